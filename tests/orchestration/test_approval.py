"""Who is asked before a promotion, and what becomes of each answer, on a real Airflow database."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.airflow_program import run_program
from helpers.bundles import write_bundle
from helpers.installation import promote
from helpers.webhook import webhook

from shoetagger.config.settings import Settings
from shoetagger.images.decode import Limits
from shoetagger.ops.environment import Ports
from shoetagger.ops.setup import setup
from shoetagger.promotion.compare import ChangedPicture, Comparison
from shoetagger.promotion.moves import Decision
from shoetagger.promotion.versions import PromotionError
from shoetagger.store.rows import Move
from shoetagger.store.store import Store
from shoetagger.tracking.registry import CHAMPION, Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
TAGS = ("one", "two")
USERS = {"ann": "user", "vera": "viewer"}
SHOE = ChangedPicture(image_id="ab" * 32, gained=("red",), lost=("tan",))

# As the training DAG wires it, with comparisons that were made before.
DAG = """
import json
import re
import shutil
from pathlib import Path
from airflow.sdk import dag, task, task_group
from shoetagger.orchestration import tasks
from shoetagger.orchestration.dag_parts import PROMOTED, NOTIFIED
from shoetagger.orchestration.operators import Approve, ApproveLabels

LABELS = json.loads(Path(__file__).with_name("labels.json").read_text())
CASES = json.loads(Path(__file__).with_name("cases.json").read_text())

@dag(schedule=None, params={"groups": ["one"]}, default_args=NOTIFIED)
def approvals():
    @task_group
    def model(case):
        approval = Approve(task_id="approve", comparison=case)
        task(tasks.promote, outlets=[PROMOTED])(approval.output)
    model.expand(case=CASES)

    @task
    def look(name):
        return LABELS[name]

    @task
    def collect(approved):
        return approved

    for name in LABELS:
        looked = look.override(task_id=f"{name}.look")(name)
        approved = ApproveLabels(task_id=f"{name}.approve", waiting=looked).output
        collect.override(task_id=f"{name}.collect")(approved)

approvals()
"""

# The run, and beside it people who answer over REST, and the scheduler's look at the clock.
RUN = """
import json, sys, threading, time, traceback
from airflow.api_fastapi.app import create_app
from airflow.dag_processing.dagbag import DagBag
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import select

folder, passwords, report = sys.argv[1:]
outcome = {"answers": {}, "waiting": None}

def open_approvals(session):
    found = session.scalars(select(TaskInstance).where(TaskInstance.state == "awaiting_input"))
    return {ti.rendered_map_index or ti.task_id.partition(".")[0]: ti for ti in found}

# Before there are two threads: they would wait for each other's imports.
client = TestClient(create_app("all"))
bag = DagBag(folder)

def people():
    with create_session() as session:
        while len(open_approvals(session)) < 6:
            time.sleep(0.5)
            session.rollback()
        waiting = open_approvals(session)
        outcome["waiting"] = {g: [ti.pool, ti.pid and 0] for g, ti in waiting.items()}
        places = {g: (ti.run_id, ti.task_id, ti.map_index) for g, ti in waiting.items()}

    def token(user):
        body = {"username": user, "password": json.load(open(passwords))[user]}
        return client.post("/auth/token", json=body).json()["access_token"]

    def answer(group, user, option, why=None):
        run, task_id, index = places[group]
        path = f"/api/v2/dags/approvals/dagRuns/{run}/taskInstances/{task_id}/{index}"
        path += "/hitlDetails"
        headers = {"Authorization": f"Bearer {token(user)}"}
        if option is None:
            return client.get(path, headers=headers).json()
        body = {"chosen_options": [option], "params_input": {"why": why} if why else {}}
        return client.patch(path, json=body, headers=headers).status_code

    outcome["shown"] = answer("approved", "vera", None)
    outcome["answers"]["viewer"] = answer("approved", "vera", "Approve")
    outcome["answers"]["approved"] = answer("approved", "ann", "Approve", "looks right")
    outcome["answers"]["again"] = answer("approved", "ann", "Reject")
    outcome["answers"]["rejected"] = answer("rejected", "ann", "Reject", "worse on sandals")
    outcome["answers"]["stale"] = answer("stale", "ann", "Approve")
    outcome["shown_labels"] = answer("wanted", "vera", None)
    outcome["answers"]["wanted"] = answer("wanted", "ann", "Approve")
    outcome["answers"]["unwanted"] = answer("unwanted", "ann", "Reject")
    time.sleep(2)
    SchedulerJobRunner(Job()).check_awaiting_input_timeouts()

def safely():
    try:
        people()
    except BaseException:
        traceback.print_exc()
        import os
        os._exit(1)

threading.Thread(target=safely, daemon=True).start()
run = bag.dags["approvals"].test()
with create_session() as session:
    outcome["states"] = [
        [ti.task_id, ti.map_index, str(ti.state)] for ti in run.get_task_instances(session=session)
    ]
    collected = session.scalars(
        select(XComModel).where(XComModel.task_id.endswith(".collect"))
    )
    outcome["collected"] = {row.task_id: row.value for row in collected}
    links = session.scalars(select(XComModel).where(XComModel.key == "_link_ReportLink"))
    outcome["links"] = {row.map_index: row.value for row in links}
json.dump(outcome, open(report, "w"), default=str)
"""


def settings_in(home: Path) -> Settings:
    return Settings.from_environment({"SHOETAGGER_REPO": str(ROOT), "SHOETAGGER_HOME": str(home)})


def comparison(settings: Settings, group: str, folder: Path, **changes: Any) -> Comparison:
    """Register a first version of a group, and say that it met nobody and passed."""
    write_bundle(folder / group, group, TAGS)
    registry = Registry(settings.tracking_uri, settings.artifacts)
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    version = registry.register(folder / group, limits=limits, tags={}, metrics={})
    with Store(settings.store_url) as store:
        store.ledger.add_version(
            digest=version.digest,
            group=group,
            tags=TAGS,
            registry_name=version.name,
            version=version.number,
            now=datetime.now(UTC),
        )
    made: dict[str, Any] = {
        "group": group,
        "challenger": version.digest,
        "version": version.number,
        "champion": None,
        "champion_version": None,
        "passes": True,
        "reasons": ("it is better",),
        "approval_reason": "the test wants it",
        "hours": 1.0,
        "metrics": {},
        "data_revision": "some data",
        "mlflow_run": version.run_id,
        "text": f"**{group}** {{{{ not_a_template }}}}",
        "report": f"http://mlflow.example/{group}",
    }
    return Comparison(**{**made, **changes})


@dataclass(frozen=True)
class Ran:
    settings: Settings
    cases: list[Comparison]
    outcome: dict[str, Any]
    log: str
    told: list[dict[str, Any]]

    def states(self, task: str) -> dict[str, str]:
        return {
            self.cases[index].group: state
            for task_id, index, state in self.outcome["states"]
            if task_id == f"model.{task}"
        }

    def history(self, group: str) -> list[Move]:
        with Store(self.settings.store_url) as store:
            return store.ledger.history(group)

    def live(self) -> set[str]:
        with Store(self.settings.store_url) as store:
            return set(store.ledger.live())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, installed_home: Path) -> Ran:
    """One run with a group for each thing that may happen."""
    folder = tmp_path_factory.mktemp("approval")
    settings = settings_in(folder / "home")
    shutil.copytree(installed_home, settings.home)
    setup(settings, Ports(), report=lambda _: None)
    cases = [
        comparison(settings, "approved", folder, changed=(SHOE,)),
        comparison(settings, "rejected", folder),
        comparison(settings, "timed_out", folder, hours=0.0003),
        comparison(settings, "not_needed", folder, approval_reason=None),
        comparison(settings, "stale", folder, champion="f" * 64),
        comparison(settings, "stopped", folder, passes=False, reasons=("it is worse",)),
    ]
    dags = folder / "dags"
    dags.mkdir()
    (dags / "approvals.py").write_text(DAG)
    answer_by = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    asked = {"least": 1, "until": 7, "body": "{{ a name }}", "answer_by": answer_by}
    labels = {
        "wanted": asked | {"summary": "3 checked pictures"},
        "unwanted": asked | {"summary": "9 checked pictures"},
        "unasked": {"least": 50, "until": None, "body": None},
    }
    (dags / "labels.json").write_text(json.dumps(labels))
    (dags / "cases.json").write_text(json.dumps([case.model_dump(mode="json") for case in cases]))
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(USERS, "secret")))
    with webhook() as (url, told):
        outcome, log = run_program(
            RUN, settings, str(dags), str(passwords),
            cwd=folder,
            SHOETAGGER_NOTIFY_URL=url,
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS=",".join(f"{n}:{r}" for n, r in USERS.items()),
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=str(passwords),
        )  # fmt: skip
    return Ran(settings, cases, outcome, log, told)


def test_who_approves_and_why_goes_into_the_ledger(ran: Ran) -> None:
    assert ran.outcome["answers"]["approved"] == 200
    assert ran.states("approve")["approved"] == ran.states("promote")["approved"] == "success"
    (move,) = ran.history("approved")
    assert move.state == "done"
    assert move.by.startswith("ann, asked by ")
    assert move.why == "approved (looks right); it is better"
    assert (move.data_revision, move.mlflow_run) == ("some data", ran.cases[0].mlflow_run)
    registry = Registry(ran.settings.tracking_uri, ran.settings.artifacts)
    named = registry.by_alias("approved", CHAMPION)
    assert named is not None
    assert named.digest == move.to_digest


def test_whoever_decides_is_shown_the_comparison(ran: Ran) -> None:
    assert ran.outcome["shown"]["subject"] == "Promote approved version 1?"
    body = ran.outcome["shown"]["body"]
    assert "**approved** {{ not_a_template }}" in body
    until = re.match(r"\*\*Answer by \w+, (\d+ \w+ \d{4}, \d\d:\d\d) UTC\.\*\*", body)
    assert until is not None
    left = datetime.strptime(until[1], "%d %B %Y, %H:%M") - datetime.now(UTC).replace(tzinfo=None)
    assert timedelta(minutes=30) < left <= timedelta(hours=1)
    assert re.search(rf"!\[a picture\]\(http://[^)]+/pictures/thumbs/{SHOE.image_id}\.jpg\)", body)
    assert re.search(
        r"\[gains red, loses tan\]"
        rf"\(http://[^)]+/plugin/pictures/pictures/picture/{SHOE.image_id}\)",
        body,
    )
    assert re.search(r"\]\(http://[^)]+/plugin/pictures/pictures/challengers/approved/1\)", body)
    assert set(ran.outcome["shown"]["params"]) == {"why"}, "the DAG's own form is left out"
    assert ran.outcome["links"]["0"] == "http://mlflow.example/approved"


def test_people_hear_of_approvals_that_wait_and_of_tasks_that_failed(ran: Ran) -> None:
    waiting = {told["summary"]: told for told in ran.told if told["state"] == "waiting"}
    assert set(waiting) == {
        "Collect the labels of 3 checked pictures?",
        "Collect the labels of 9 checked pictures?",
        *(
            f"Promote {group} version 1?"
            for group in ("approved", "rejected", "timed_out", "stale")
        ),
    }
    told = waiting["Promote approved version 1?"]
    assert told["alerts"][0].startswith("answer by 2")
    assert "/tasks/model.approve/required_actions?map_index=0" in told["url"]
    (failed,) = [told for told in ran.told if told["state"] == "failed"]
    assert failed["summary"].startswith("approvals: promote")
    assert "it moved meanwhile; run the training again" in failed["alerts"][0]
    assert "/dags/approvals/runs/" in failed["url"]
    assert "hook/s3cret" not in ran.log


def test_labels_are_collected_once_somebody_approved_or_where_nobody_is_asked(ran: Ran) -> None:
    assert ran.outcome["shown_labels"]["subject"] == "Collect the labels of 3 checked pictures?"
    assert ran.outcome["shown_labels"]["body"] == "{{ a name }}"
    states = {task: state for task, _, state in ran.outcome["states"] if task.endswith(".collect")}
    assert states == {
        "wanted.collect": "success", "unwanted.collect": "skipped", "unasked.collect": "success",
    }  # fmt: skip
    wanted, unasked = (
        json.loads(value) if isinstance(value, str) else value
        for value in (ran.outcome["collected"][f"{name}.collect"] for name in ("wanted", "unasked"))
    )
    assert (wanted["until"], wanted["by"]) == (7, "ann")
    assert unasked == {"least": 50, "until": None, "body": None}


def test_whoever_lacks_the_right_decides_nothing(ran: Ran) -> None:
    assert ran.outcome["answers"]["viewer"] == 403
    assert ran.outcome["answers"]["again"] == 409, "what was decided stays"


def test_a_rejection_moves_nothing_and_is_written_down(ran: Ran) -> None:
    assert ran.outcome["answers"]["rejected"] == 200
    assert ran.states("promote")["rejected"] == "skipped"
    (move,) = ran.history("rejected")
    assert (move.state, move.by) == ("cancelled", "ann")
    assert move.why == "rejected (worse on sandals)"


def test_no_answer_in_time_is_a_rejection(ran: Ran) -> None:
    assert ran.states("promote")["timed_out"] == "skipped"
    (move,) = ran.history("timed_out")
    assert (move.state, move.by) == ("cancelled", "nobody within 0.0003 hours")


def test_where_nobody_is_asked_the_promotion_follows_at_once(ran: Ran) -> None:
    assert ran.states("promote")["not_needed"] == "success"
    (move,) = ran.history("not_needed")
    assert move.state == "done"
    assert move.why == "it is better"


def test_an_approval_of_what_is_stale_moves_nothing(ran: Ran) -> None:
    assert ran.outcome["answers"]["stale"] == 200
    assert ran.states("promote")["stale"] == "failed"
    assert "it moved meanwhile; run the training again" in ran.log
    assert ran.history("stale") == []


def test_what_the_gate_stopped_is_skipped_with_the_reasons_and_nobody_asked(ran: Ran) -> None:
    assert ran.states("approve")["stopped"] == ran.states("promote")["stopped"] == "skipped"
    assert "stopped: it is worse" in ran.log
    assert ran.history("stopped") == []


def test_groups_end_each_by_itself_and_none_holds_a_slot_while_it_waits(ran: Ran) -> None:
    assert ran.live() == {"approved", "not_needed"}
    asked = {"approved", "rejected", "timed_out", "stale", "wanted", "unwanted"}
    assert set(ran.outcome["waiting"]) == asked


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (None, "was not approved by anybody"),
        (Decision(approved=False, by="ann", why="no"), "was rejected by ann: no"),
    ],
)
def test_promote_itself_moves_nothing_without_an_approval(
    ran: Ran, decision: Decision | None, words: str
) -> None:
    with pytest.raises(PromotionError, match=words):
        promote(ran.settings, ran.cases[1], decision, by="test")
    assert "rejected" not in ran.live()
