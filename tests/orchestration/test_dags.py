"""The DAGs: their wiring as Airflow reads it, and real runs on a real Airflow database."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.airflow_program import Airflow, airflow
from helpers.fork_server import use_for_stages
from helpers.sample import copy_sample
from helpers.stores import make_live
from PIL import Image

from shoetagger.config import params
from shoetagger.config.settings import GPU_POOL, Settings
from shoetagger.ops.environment import Ports
from shoetagger.ops.setup import setup
from shoetagger.store.runs import SILENCE
from shoetagger.store.store import Store

ROOT = Path(__file__).parents[2]

# The first of the real runs sets up and trains for all that follow.
pytestmark = pytest.mark.timeout(1800)

DAGS = ("train_tag_models", "tag_new_images", "roll_back_tag_model", "collect_labels", "clean")

# A recipe that takes seconds, and learns nothing.
TINY = [
    "train.weights=none",
    "train.freeze=none",
    "train.epochs=1",
    "images.size=32",
    "features.views=1",
    "split.folds=2",
    "split.repeats=1",
    "evaluate.bootstrap=10",
]

# In a process of its own, for Airflow reads its configuration once, when it is imported.
READ_DAGS = """
import gc
gc.disable()
import json, os, sys, time
from types import SimpleNamespace
from airflow.dag_processing.dagbag import DagBag
from airflow.task.priority_strategy import validate_and_load_priority_weight_strategy as strategy
before, start = set(sys.modules), time.process_time()
bag = DagBag(sys.argv[1])
seconds = time.process_time() - start
dags = {
    dag.dag_id: {
        "doc": dag.doc_md,
        "tags": sorted(dag.tags),
        "max_active_runs": dag.max_active_runs,
        "starts_on": [a.name for a in getattr(dag.timetable.asset_condition, "objects", ())],
        "params": dag.params.dump(),
        "schema": {
            name: param.schema | {"explained": param.description or param.schema["description_md"]}
            for name, param in ((name, dag.params.get_param(name)) for name in dag.params)
        },
        "tasks": {
            task.task_id: {
                "after": sorted(task.upstream_task_ids),
                "pool": task.pool,
                "queue": task.queue,
                "retries": task.retries,
                "rule": task.trigger_rule.value,
                "doc": task.doc_md or getattr(task, "partial_kwargs", {}).get("doc_md"),
                "named": getattr(task, "map_index_template", None),
                "hours": task.execution_timeout and task.execution_timeout.total_seconds() / 3600,
                "weight": strategy(task.weight_rule).get_weight(SimpleNamespace(task=task)),
                "outlets": [outlet.name for outlet in task.outlets],
            }
            for task in dag.tasks
        },
    }
    for dag in bag.dags.values()
}
imported = sorted(set(sys.modules) - before)
from shoetagger.desk import plugin
from shoetagger.promotion import approval
json.dump({"errors": bag.import_errors, "dags": dags, "seconds": seconds, "imported": imported,
           "desk": [approval.DESK, plugin.PREFIX]}, open(sys.argv[2], "w"))
os._exit(0)  # to take apart what was imported would take as long as to read the files
"""

RUN_DAG = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.models.asset import AssetEvent
from airflow.utils.session import create_session
folder, dag_id, conf, report = sys.argv[1:]
run = DagBag(folder).dags[dag_id].test(run_conf=json.loads(conf))
with create_session() as session:
    outcome = {
        "state": str(run.state),
        "tasks": [
            [ti.task_id, ti.rendered_map_index or ti.map_index, str(ti.state)]
            for ti in run.get_task_instances(session=session)
        ],
        "events": {},
    }
    for event in session.query(AssetEvent).order_by(AssetEvent.id):
        outcome["events"].setdefault(event.asset.name, []).append(event.extra)
json.dump(outcome, open(report, "w"))
"""


# --- the wiring ---------------------------------------------------------------------------------


def read_dags(folder: Path, home: Path, **environment: str) -> Any:
    there = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    home.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", READ_DAGS, str(folder), str(home / "read.json")],
        env=os.environ | there | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((home / "read.json").read_text())


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The DAGs of an installation in which three versions of a group were live by turns.

    Its tasks that fill a GPU have a queue of their own.
    """
    home = tmp_path_factory.mktemp("home")
    digests = ["a" * 64, "b" * 64, "c" * 64]
    with Store(f"sqlite:///{home / 'store.db'}") as store:
        store.migrate()
        for day, digest in enumerate(digests, start=1):
            now = datetime(2026, 5, day, tzinfo=UTC)
            store.ledger.add_version(
                digest=digest, group="color", tags=["red"], registry_name="shoetagger-color",
                version=str(day), now=now,
            )  # fmt: skip
            make_live(store, "color", digest, now=now)
    there = {"SHOETAGGER_HOME": str(home), "SHOETAGGER_GPU_QUEUE": "cuda"}
    return read_dags(ROOT / "dags", home / "airflow", **there)


@pytest.mark.slow
def test_the_dags_are_read_quickly_and_import_nothing_heavy(read: Any) -> None:
    assert read["errors"] == {}
    assert set(read["dags"]) == set(DAGS)
    heavy = {"torch", "torchvision", "mlflow", "dvc", "pandas", "numpy", "PIL", "sklearn"}
    assert heavy.isdisjoint(read["imported"])
    assert read["seconds"] < 2, "of CPU; 0.1 on a machine that does nothing else"


@pytest.mark.slow
def test_training_goes_from_commit_to_champion_group_by_group(read: Any) -> None:
    tasks = read["dags"]["train_tag_models"]["tasks"]
    # One wire: each task hands on what the next one needs.
    assert tasks["checkout"]["after"] == []
    for before, after in itertools.pairwise(
        ["checkout", "split", "features", "groups", "model.train"]
    ):
        assert tasks[after]["after"] == [before]
    assert tasks["model.crossval"]["after"] == ["groups"]
    assert tasks["model.evaluate"]["after"] == ["model.crossval", "model.train"]
    order = ["evaluate", "register", "compare", "approve", "promote"]
    for before, after in itertools.pairwise(order):
        assert tasks[f"model.{after}"]["after"] == [f"model.{before}"]
    assert tasks["model.promote"]["outlets"] == ["shoetagger-champions-promoted"]
    in_pool = {name for name, task in tasks.items() if task["pool"] == GPU_POOL}
    models = {f"model.{name}" for name in ("train", "crossval", "evaluate", "compare")}
    assert in_pool == {"features", *models}
    assert all(task["named"] for name, task in tasks.items() if name.startswith("model."))


def test_tagging_publishes_and_finishes_whatever_became_of_its_shards(read: Any) -> None:
    dag = read["dags"]["tag_new_images"]
    tasks = dag["tasks"]
    assert dag["max_active_runs"] == 1
    assert tasks["find_arrivals"]["after"] == ["begin"]
    assert tasks["shards"]["after"] == ["begin", "find_arrivals"]
    assert tasks["tag_shard"]["after"] == ["begin", "shards"]
    assert tasks["publish"]["after"] == ["begin", "tag_shard"]
    assert "publish" in tasks["finish"]["after"]
    assert tasks["publish"]["outlets"] == ["shoetagger-tags-published"]
    assert tasks["publish"]["rule"] == tasks["finish"]["rule"] == "all_done"
    assert {name for name, task in tasks.items() if task["pool"] == GPU_POOL} == {"tag_shard"}
    budget = params.load(ROOT / "params.yaml").tag.budget_minutes
    assert tasks["tag_shard"]["hours"] * 60 > budget


def test_tasks_that_fill_a_gpu_go_to_its_queue_and_outlive_lost_workers(read: Any) -> None:
    for dag in read["dags"].values():
        for name, task in dag["tasks"].items():
            on_gpu = task["pool"] == GPU_POOL
            assert task["queue"] == ("cuda" if on_gpu else "default"), name
            assert not on_gpu or task["retries"] == 5, name


def test_tagging_goes_before_training_where_both_wait_for_a_slot(read: Any) -> None:
    tagging, training = (
        [task["weight"] for task in read["dags"][dag]["tasks"].values()]
        for dag in ("tag_new_images", "train_tag_models")
    )
    assert max(training) > 3, "of the default weights: the numbers of tasks that follow"
    assert min(tagging) > 10 * max(training)


def test_every_task_has_a_time_limit_within_which_its_run_counts_as_alive(read: Any) -> None:
    limits = {
        (dag_id, name): task["hours"]
        for dag_id, dag in read["dags"].items()
        for name, task in dag["tasks"].items()
    }
    assert all(limits.values()), limits
    silent = [hours for (_, name), hours in limits.items() if name != "tag_shard"]
    assert timedelta(hours=2 * max(silent)) < SILENCE


STUCK = """
import ctypes, sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from shoetagger.orchestration import dag_parts
dag_parts._GRACE = timedelta(seconds=0.5)
task = SimpleNamespace(execution_timeout=timedelta(seconds=0.5))
dag_parts.end_in_any_case({"task": task})
ctypes.PyDLL(None).sleep(100)  # in native code, without ever returning to Python
"""


@pytest.mark.slow
def test_a_task_that_hangs_in_native_code_ends_after_its_limit(tmp_path: Path) -> None:
    began = time.monotonic()
    environment = os.environ | {"AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", STUCK], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "Timeout (0:00:01)!" in done.stderr, "and says where it hung"
    assert time.monotonic() - began < 90


def test_the_form_offers_groups_revision_and_overrides(read: Any) -> None:
    dag = read["dags"]["train_tag_models"]
    groups = list(params.load(ROOT / "params.yaml").groups)
    assert dag["params"] == {"groups": [], "revision": "HEAD", "overrides": []}
    assert dag["schema"]["groups"]["examples"] == groups
    assert dag["schema"]["overrides"]["items"] == {"type": "string"}
    for field in dag["schema"].values():
        assert field["title"]
        assert field["explained"]


def test_rolling_back_asks_for_group_version_and_reason_and_publishes(read: Any) -> None:
    dag = read["dags"]["roll_back_tag_model"]
    assert dag["schema"]["group"]["enum"] == list(params.load(ROOT / "params.yaml").groups)
    assert dag["params"]["version"] is None, "the one before"
    version = dag["schema"]["version"]
    assert version["examples"] == ["2", "1"], "what there is to go back to, the latest first"
    assert "- color: **2** (live from 2026-05-02), **1** (live from 2026-05-01)\n" in (
        version["description_md"] + "\n"
    )
    assert "- style: none" in version["description_md"]
    assert dag["schema"]["why"]["minLength"] == 1
    assert dag["tasks"]["publish"]["after"] == ["roll_back"]
    assert dag["tasks"]["publish"]["outlets"] == ["shoetagger-tags-published"]


def test_an_approval_finds_the_desk(read: Any) -> None:
    assert read["desk"][0] == read["desk"][1]


def test_a_collection_of_labels_is_approved_and_starts_training(read: Any) -> None:
    tasks = read["dags"]["collect_labels"]["tasks"]
    order = ["look_at_labels", "approve", "collect"]
    assert set(tasks) == set(order)
    for before, after in itertools.pairwise(order):
        assert tasks[after]["after"] == [before]
    assert tasks["collect"]["outlets"] == ["shoetagger-labels-collected"]
    assert read["dags"]["collect_labels"]["max_active_runs"] == 1
    assert read["dags"]["train_tag_models"]["starts_on"] == ["shoetagger-labels"]


def test_dags_and_tasks_say_what_they_do(read: Any) -> None:
    for dag in read["dags"].values():
        assert dag["doc"].startswith("### ")
        assert dag["tags"] == ["shoetagger"]
        assert all(task["doc"] for task in dag["tasks"].values()), dag["tasks"]


@pytest.mark.slow
def test_a_broken_params_file_is_an_import_error_that_names_the_key(
    shop: Shop, tmp_path: Path
) -> None:
    text = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(text.replace("  shards:", "  shard:"))
    read = shop.read_dags(repo=tmp_path, home=tmp_path / "home")
    assert read["dags"] == {}
    assert len(read["errors"]) == len(DAGS)
    assert all("unknown key tag.shard" in error for error in read["errors"].values())


@pytest.mark.slow
def test_a_params_file_that_was_good_before_is_no_import_error(shop: Shop, tmp_path: Path) -> None:
    home, text = tmp_path / "home", (ROOT / "params.yaml").read_text()
    home.mkdir()
    (home / "last_good_params.yaml").write_text(
        text.replace("budget_minutes: 300", "budget_minutes: 60")
    )
    (tmp_path / "params.yaml").write_text(text.replace("  shards:", "  shard:"))
    read = shop.read_dags(repo=tmp_path, home=home)
    assert read["errors"] == {}
    assert read["dags"]["tag_new_images"]["tasks"]["tag_shard"]["hours"] == 2


@pytest.mark.parametrize("name", DAGS)
def test_a_dag_file_only_wires(name: str) -> None:
    assert len((ROOT / "dags" / f"{name}.py").read_text().splitlines()) < 60


# --- real runs ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ran:
    """What became of a DAG run."""

    state: str
    tasks: dict[tuple[str, Any], str]
    log: str
    events: dict[str, list[dict[str, Any]]]  # what the events of each asset have carried so far

    def states(self, task: str) -> dict[Any, str]:
        return {name: state for (task_id, name), state in self.tasks.items() if task_id == task}

    def line(self, words: str) -> str:
        """Return the line of the log that holds these words."""
        found = [line for line in self.log.splitlines() if words in line]
        assert found, self.log[-5000:]
        return found[0]


@dataclass(frozen=True)
class Shop:
    """An installation of its own: a clone with data and state, and a real Airflow database."""

    airflow: Airflow

    @property
    def settings(self) -> Settings:
        return self.airflow.settings

    def run(self, dag_id: str, conf: dict[str, Any] | None = None, **variables: str) -> Ran:
        dags = str(self.settings.repo / "dags")
        arguments = (dags, dag_id, json.dumps(conf or {}))
        outcome, log = self.airflow.run(RUN_DAG, *arguments, **variables)
        states = {(task, name): state for task, name, state in outcome["tasks"]}
        return Ran(outcome["state"], states, log, outcome["events"])

    def read_dags(self, repo: Path, home: Path) -> dict[str, Any]:
        """Read the DAG files as in another installation."""
        places = {"SHOETAGGER_REPO": str(repo), "SHOETAGGER_HOME": str(home)}
        return self.airflow.run(READ_DAGS, str(self.settings.repo / "dags"), **places).report


def git(folder: Path, *arguments: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, installed_home: Path) -> Iterator[Shop]:
    """A clone with data of its own: fewer pictures than the sample has, so that tasks are short."""
    folder = tmp_path_factory.mktemp("shop")
    repo = folder / "repo"
    # Without the history, of which cleaning looks at every commit.
    clone = ["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(repo)]
    subprocess.run(clone, check=True)
    use_for_stages(repo)
    copy_sample(repo / "data", count=60)
    for command in (
        [sys.executable, "-m", "dvc", "add", "--quiet", "data"],
        ["git", "commit", "--quiet", "--all", "--message", "Fewer pictures"],
    ):
        subprocess.run(command, cwd=repo, check=True)
    shutil.copytree(installed_home, folder / "home")
    settings = Settings.from_environment(
        {"SHOETAGGER_REPO": str(repo), "SHOETAGGER_HOME": str(folder / "home")}
    )
    setup(settings, Ports(), report=lambda _: None)
    with airflow(settings) as running:
        yield Shop(running)


@pytest.fixture(scope="module")
def before_training(shop: Shop) -> Ran:
    return shop.run("tag_new_images")


@pytest.fixture(scope="module")
def trained(shop: Shop, before_training: Ran) -> Ran:
    assert before_training.state == "failed"
    return shop.run("train_tag_models", {"groups": ["color", "style"], "overrides": TINY})


@pytest.mark.slow
def test_without_a_champion_tagging_says_what_to_do(before_training: Ran) -> None:
    assert before_training.state == "failed"
    assert before_training.states("begin") == {-1: "failed"}
    assert "no champion yet for color" in before_training.line("train first")


@pytest.mark.slow
def test_training_promotes_the_first_version_of_each_group(shop: Shop, trained: Ran) -> None:
    assert trained.state == "success", trained.log[-5000:]
    assert trained.states("model.train") == {"color": "success", "style": "success"}
    assert trained.states("model.promote") == {"color": "success", "style": "success"}
    commit = git(shop.settings.repo, "rev-parse", "HEAD").strip()
    events = trained.events["shoetagger-champions"]
    assert sorted(events, key=lambda event: str(event["group"])) == [
        {"group": group, "version": "1", "commit": commit} for group in ("color", "style")
    ]
    assert trained.line("style: version 1 against no champion: passes the gate")
    with Store(shop.settings.store_url) as store:
        assert set(store.ledger.live()) == {"color", "style"}
        assert all("dag_test" in move.by for move in store.ledger.history())
    assert git(shop.settings.repo, "status", "--porcelain") == "", "the workspace was written"


@pytest.mark.slow
def test_training_again_restores_everything_and_has_nothing_to_do(shop: Shop, trained: Ran) -> None:
    again = shop.run("train_tag_models", {"groups": ["style"], "overrides": TINY})
    assert again.state == "success"
    for task in ("evaluate", "approve", "promote"):
        assert again.states(f"model.{task}") == {"style": "success"}
    assert again.line("nothing to promote: version 1 is the champion already")
    name = "shoetagger-champions"
    assert again.events[name] == trained.events[name], "nothing wakes the tagging DAG"
    assert "git add" not in trained.log + again.log
    assert "dvc push" not in trained.log + again.log


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_an_empty_inbox_is_a_night_like_any_other(shop: Shop) -> None:
    ran = shop.run("tag_new_images")
    assert ran.state == "success"
    assert set(ran.states("tag_shard").values()) == {"skipped"}
    assert ran.states("publish") == ran.states("finish") == {-1: "success"}


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_new_pictures_are_tagged_and_a_bad_file_is_rejected(shop: Shop) -> None:
    inbox = shop.settings.inbox
    inbox.mkdir(exist_ok=True)
    for number, colour in enumerate(["red", "blue", "black"]):
        Image.new("RGB", (60, 40), colour).save(inbox / f"{number} é.jpg")
    (inbox / "bad.jpg").write_text("not a picture")
    os.utime(inbox / "bad.jpg", (1, 1))  # old enough not to be still arriving

    # One shard fails; what it left is the next run's.
    failed = shop.run("tag_new_images", SHOETAGGER_DEVICE="cuda:99")
    assert failed.state == "failed"
    assert set(failed.states("tag_shard").values()) == {"failed"}
    assert failed.states("publish") == {-1: "success"}
    assert failed.states("finish") == {-1: "failed"}

    ran = shop.run("tag_new_images")
    assert ran.state == "success", ran.log[-5000:]
    assert ran.states("tag_shard") == {"1 of 1": "success"}
    with Store(shop.settings.store_url) as store:
        assert len(list(store.current.rows(["color", "style"]))) == 3
        (rejected,) = store.files.rejected()
        assert rejected.locator.endswith("bad.jpg")
        assert [run.kind for run in store.runs.latest(1)] == ["manual"]
    (day,) = shop.settings.published.glob("csv/*.csv")
    assert ran.events["shoetagger-tags"][-1] == {"days": [day.stem]}


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_what_people_checked_is_collected_and_updates_the_labels(shop: Shop) -> None:
    nothing = shop.run("collect_labels")
    assert nothing.state == "success"
    inbox = shop.settings.inbox
    inbox.mkdir(exist_ok=True)
    Image.new("RGB", (60, 40), "green").save(inbox / "checked.png")
    assert shop.run("tag_new_images").state == "success"
    with Store(shop.settings.store_url) as store:
        (row,) = (
            row
            for row in store.current.rows([])
            if any(locator.endswith("checked.png") for locator in row.locators)
        )
        for group, tags in (("color", ["blue"]), ("style", ["boot"]), ("detail", [])):
            store.corrections.correct(
                row.image_id, group, tags, by="ann", why="", now=datetime.now(UTC)
            )
    ran = shop.run("collect_labels")
    assert ran.state == "success", ran.log[-5000:]
    before = nothing.events.get("shoetagger-labels", [])
    *earlier, event = ran.events["shoetagger-labels"]
    assert (earlier, event["pictures"]) == (before, 1)
    log = git(shop.settings.repo, "log", "-1", "--format=%s", "labels")
    assert log == "Labels: 1 checked picture, 1 of them new\n"


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_uncommitted_labels_fail_the_checkout_in_one_line(shop: Shop) -> None:
    sheet = shop.settings.repo / "data" / "labels.csv"
    kept = sheet.read_bytes()
    try:
        sheet.unlink()  # it may be a link into the cache
        sheet.write_bytes(kept + b"new.jpg" + b"," * 19 + b"\n")
        ran = shop.run("train_tag_models", {"overrides": TINY})
    finally:
        sheet.write_bytes(kept)
    assert ran.state == "failed"
    assert ran.states("checkout") == {-1: "failed"}
    assert "dvc add data" in ran.line("data/labels.csv (modified)")


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_an_unknown_group_fails_in_one_line(shop: Shop) -> None:
    ran = shop.run("train_tag_models", {"groups": ["colour"], "overrides": TINY})
    assert ran.state == "failed"
    assert ran.states("checkout") == {-1: "failed"}
    assert ran.states("split") == {-1: "upstream_failed"}
    assert "the groups are color, style, detail" in ran.line("no group 'colour'")


@pytest.mark.slow
def test_the_weekly_cleaning_says_what_it_freed(shop: Shop) -> None:
    ran = shop.run("clean")
    assert ran.state == "success"
    assert "left alone" not in ran.log
    for kind in ("predictions", "files in DVC's cache", "rows of Airflow", "logs of tasks"):
        assert ran.line(f"{kind}: ")
