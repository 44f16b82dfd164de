"""Models kept in step with labels, the whole way: Airflow, MLflow, DVC and the store are real."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from helpers.airflow_program import Airflow, airflow
from helpers.experiment import WEIGHTS, write_weights
from helpers.fork_server import use_for_stages
from helpers.sample import copy_images, copy_sample, write_sheet
from helpers.stores import stored_predictions

from shoetagger.config.settings import Settings
from shoetagger.inference.bundle import load_bundle
from shoetagger.inference.engine import Engine
from shoetagger.ops.environment import Ports
from shoetagger.ops.servers import credentials
from shoetagger.ops.setup import setup
from shoetagger.orchestration.nightly import night
from shoetagger.store import tables
from shoetagger.store.store import Store
from shoetagger.tracking.registry import CHALLENGER, CHAMPION, Registry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[2]
LABELLED, PICTURES = 48, 60
# A second per model: heads on a frozen backbone tell drawn boots from other shoes, and black from
# white, even if its weights are random.
RECIPE: dict[str, dict[str, Any]] = {
    "split": {"folds": 2, "repeats": 1, "validation": 0.3},
    "images": {"size": 32},
    "features": {"views": 4},
    "train": {"weights": str(WEIGHTS)},
    "evaluate": {"bootstrap": 20, "min_positives": 1},
    "promote": {"bootstrap": 20, "min_positives": 1, "sample": 40, "approval": "never"},
}
# Whatever these small models are worth, they pass; the gate has its turn at the end.
LENIENT = {
    "macro_f1_margin": 1.0,
    "tag_f1_margin": 1.0,
    "tag_f1_floor": 0.0,
    "tag_min_positives": 1,
    "min_support": 1,
}

# A run of a DAG; where a task waits for a person, one answers over REST.
RUN = """
import json, os, sys, threading, time, traceback
from airflow.api_fastapi.app import cached_app
from airflow.dag_processing.dagbag import DagBag
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from fastapi.testclient import TestClient
from sqlalchemy import select

folder, dag_id, conf, password, report = sys.argv[1:]
outcome = {"waited": []}

# Before there are two threads: they would wait for each other's imports.
client = TestClient(cached_app()) if dag_id == "train_tag_models" else None
bag = DagBag(folder)

def person():
    given = {"username": "admin", "password": password}
    token = client.post("/auth/token", json=given).json()["access_token"]
    with create_session() as session:
        while True:
            waiting = select(TaskInstance).where(TaskInstance.state == "awaiting_input")
            for ti in session.scalars(waiting):
                outcome["waited"].append(ti.rendered_map_index)
                path = f"/api/v2/dags/{dag_id}/dagRuns/{ti.run_id}/taskInstances/{ti.task_id}"
                answer = client.patch(
                    f"{path}/{ti.map_index}/hitlDetails",
                    json={"chosen_options": ["Approve"], "params_input": {"why": "a fair change"}},
                    headers={"Authorization": f"Bearer {token}"},
                )
                assert answer.status_code == 200, answer.text
            session.rollback()
            time.sleep(1)

def safely():
    try:
        person()
    except BaseException:
        traceback.print_exc()
        os._exit(1)

if client:
    threading.Thread(target=safely, daemon=True).start()
run = bag.dags[dag_id].test(run_conf=json.loads(conf))
with create_session() as session:
    outcome["state"] = str(run.state)
    outcome["tasks"] = [
        [ti.task_id, ti.rendered_map_index, str(ti.state)]
        for ti in run.get_task_instances(session=session)
    ]
json.dump(outcome, open(report, "w"))
"""


def call(folder: Path, *command: str) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(folder / "src"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Shop:
    """An installation of its own around a small project, and what is asked of it."""

    airflow: Airflow
    sheet: list[dict[str, str]]  # with all columns that there are

    @property
    def settings(self) -> Settings:
        return self.airflow.settings

    @property
    def repo(self) -> Path:
        return self.settings.repo

    def run(self, dag_id: str, **conf: Any) -> dict[str, Any]:
        """Run a DAG; return its state, what waited for a person, and group -> state by task."""
        dags, password = str(self.repo / "dags"), credentials(self.settings)[1]
        outcome, log = self.airflow.run(RUN, dags, dag_id, json.dumps(conf), password)
        states: dict[str, dict[str, str]] = {}
        for task, group, state in outcome.pop("tasks"):
            states.setdefault(task.removeprefix("model."), {})[group] = state
        assert outcome["state"] == "success", log[-8000:]
        return outcome | states | {"log": log}

    def commit(self, why: str) -> None:
        call(self.repo, "git", "commit", "-qam", why)

    def set(self, **sections: Any) -> None:
        """Change sections of params.yaml."""
        path = self.repo / "params.yaml"
        document = yaml.safe_load(path.read_text())
        for name, values in sections.items():
            document[name] = values if name == "groups" else document[name] | values
        path.write_text(yaml.safe_dump(document, sort_keys=False))

    def label(self, tags: Sequence[str]) -> None:
        """Write the columns of these tags as the label sheet."""
        write_sheet(self.repo / "data" / "labels.csv", self.sheet, tags)
        call(self.repo, "dvc", "add", "-q", "data")

    def champion(self, group: str) -> str | None:
        version = Registry(self.settings.tracking_uri, self.settings.artifacts).by_alias(
            group, CHAMPION
        )
        return version and version.number

    def live(self) -> dict[str, str]:
        with Store(self.settings.store_url) as store:
            return store.ledger.live()

    def tags(self, *groups: str) -> dict[str, dict[str, tuple[str, ...]]]:
        """Image id -> group -> current tags; none is stale."""
        with Store(self.settings.store_url) as store:
            rows = list(store.current.rows(groups))
        assert not any(current.stale for row in rows for current in row.groups.values())
        return {r.image_id: {g: current.tags for g, current in r.groups.items()} for r in rows}

    def rows(self, digest: str) -> list[Any]:
        """Return every byte that the store holds of a bundle's predictions."""
        query = stored_predictions().where(tables.versions.c.digest == digest)
        engine = sa.create_engine(self.settings.store_url)
        with engine.connect() as database:
            rows = database.execute(query.order_by(tables.images.c.image_id)).all()
        engine.dispose()
        return list(map(tuple, rows))

    def predictions(self) -> int:
        with sqlite3.connect(self.settings.home / "store.db") as database:
            return int(database.execute("select count(*) from predictions").fetchone()[0])


@contextmanager
def model_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """Count the pictures that each bundle is run on."""
    counted: dict[str, int] = {}
    original = Engine.predict_and_describe

    def counting(self, views, only=None):  # type: ignore[no-untyped-def]
        pictures = len(next(iter(views.values())))
        for digest in only if only is not None else [b.digest for b in self.bundles]:
            counted[digest] = counted.get(digest, 0) + pictures
        return original(self, views, only)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "predict_and_describe", counting)
        yield counted


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, installed_home: Path) -> Iterator[Shop]:
    """Two groups of two tags, 48 drawn shoes, one commit."""
    folder = tmp_path_factory.mktemp("in_step")
    repo = folder / "repo"
    shutil.copytree(ROOT / "src", repo / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "dags", repo / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    use_for_stages(repo)
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "params.yaml"):
        shutil.copy(ROOT / name, repo)
    copy_sample(repo / "data", LABELLED)
    write_weights(repo / WEIGHTS, "resnet18")
    with (repo / "data" / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
        sheet = list(csv.DictReader(file))
    settings = Settings.from_environment(
        {"SHOETAGGER_REPO": str(repo), "SHOETAGGER_HOME": str(folder / "home")}
    )
    shutil.copytree(installed_home, settings.home)
    setup(settings, Ports(), report=lambda _: None)
    with airflow(settings, with_app=True) as running:
        made = Shop(running, sheet)
        groups = {"color": {"tags": ["black", "white"]}, "style": {"tags": ["boot", "heel"]}}
        made.set(**RECIPE, groups=groups)
        made.set(promote={"rule": LENIENT})
        call(repo, "git", "init", "-q")
        call(repo, "dvc", "init", "-q")
        made.label(["black", "white", "boot", "heel"])
        call(repo, "git", "add", "-A")
        made.commit("A small project")
        yield made


@dataclass(frozen=True)
class Trained:
    """What DVC and the training DAG made of one commit, each with a cache of its own."""

    shop: Shop
    other: Path
    cached: set[str]  # names in the cache of `other`, before
    run: dict[str, Any]


@pytest.fixture(scope="module")
def trained(shop: Shop) -> Trained:
    other = shop.repo.with_name("other")
    shutil.copytree(shop.repo, other)
    cached = {path.name for path in (other / ".dvc" / "cache").rglob("*") if path.is_file()}
    call(other, "dvc", "repro", "evaluate@color", "evaluate@style")
    return Trained(shop, other, cached, shop.run("train_tag_models"))


def test_dvc_and_the_training_dag_give_the_same_bundles_from_empty_caches(
    trained: Trained,
) -> None:
    by_dvc = {g: load_bundle(trained.other / "models" / g) for g in ("color", "style")}
    with Store(trained.shop.settings.store_url) as store:
        first = {group: store.ledger.history(group)[0].to_digest for group in by_dvc}
    assert first == {group: bundle.digest for group, bundle in by_dvc.items()}
    assert not any(weights_of(trained.other, g) in trained.cached for g in by_dvc)
    assert "restored from the DVC cache" not in trained.run["log"]
    assert trained.run["promote"] == {"color": "success", "style": "success"}
    assert trained.run["waited"] == []


def test_the_whole_way(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = trained.shop
    by_dvc = shop.live()

    # The first night.
    copy_images(shop.settings.inbox, range(LABELLED, LABELLED + PICTURES))
    with model_runs(monkeypatch) as runs:
        night(shop.settings, "night")
    assert runs == dict.fromkeys(by_dvc.values(), PICTURES)
    before = shop.tags("color", "style")
    assert len(before) == PICTURES
    style, color = shop.rows(by_dvc["style"]), shop.rows(by_dvc["color"])

    # One colour label: colour alone is trained, a person is asked, colour alone tags again.
    with (trained.other / "split" / "color.csv").open(newline="", encoding="utf-8") as file:
        learned = {row["image_name"] for row in csv.DictReader(file) if row["side"] == "train"}
    changed = next(row for row in shop.sheet if row["image_name"] in learned)
    changed["black"] = "" if changed["black"] == "1" else "1"
    shop.label(["black", "white", "boot", "heel"])
    shop.set(promote={"approval": "always"})
    shop.commit("A shoe was labelled wrongly")
    second = shop.run("train_tag_models")
    assert second["waited"] == ["color"]
    assert second["approve"] == {"color": "success", "style": "success"}
    assert "nothing to promote: version 1 is the champion already" in second["log"]
    assert shop.live()["style"] == by_dvc["style"]
    new_color = shop.live()["color"]
    assert new_color != by_dvc["color"]
    assert shop.champion("color") == "2"
    with Store(shop.settings.store_url) as store:
        (_, move) = store.ledger.history("color")
    assert move.by.startswith("admin, asked by ")
    assert move.why.startswith("approved (a fair change); ")
    assert move.data_revision
    assert move.mlflow_run
    with model_runs(monkeypatch) as runs:
        night(shop.settings, "retag")
    assert runs == {new_color: PICTURES}
    assert shop.rows(by_dvc["style"]) == style
    assert shop.rows(by_dvc["color"]) == color, "history stays"
    assert {i: t["style"] for i, t in shop.tags("style").items()} == {
        i: t["style"] for i, t in before.items()
    }

    # Back: what was current is current again, and no model runs.
    known = shop.predictions()
    shop.run("roll_back_tag_model", group="color", version=None, why="worse on sandals")
    assert shop.tags("color", "style") == before
    assert shop.champion("color") == "1"
    with model_runs(monkeypatch) as runs:
        night(shop.settings, "night")
    assert runs == {}
    assert shop.predictions() == known

    # A challenger that must not weigh what it sees is stopped, and stays to be looked at.
    shop.set(promote={"approval": "never", "rule": LENIENT | {"macro_f1_margin": 0.0}})
    shop.commit("Nothing worse is promoted")
    third = shop.run("train_tag_models", groups=["color"], overrides=["train.head_l2=1000.0"])
    assert third["approve"] == {"color": "skipped"}
    assert list(third["promote"].values()) == ["skipped"]
    assert "(promote.rule.macro_f1_margin)" in third["log"]
    assert shop.live() == by_dvc
    registry = Registry(shop.settings.tracking_uri, shop.settings.artifacts)
    stopped = registry.by_alias("color", CHALLENGER)
    assert stopped is not None
    assert stopped.number == "3"
    assert b"Stopped by the gate" in (registry.read_file(stopped, "comparison.html") or b"")

    # A group more, a tag more, a group less: what is new is trained, registered and tagged alone.
    tags = ["boot", "heel", "sneaker", "shiny", "leather"]
    shop.label(tags)
    groups = {"style": {"tags": tags[:3]}, "detail": {"tags": tags[3:]}}
    shop.set(groups=groups, promote={"rule": LENIENT})
    shop.commit("Details, sneakers, and no colours")
    fourth = shop.run("train_tag_models")
    assert fourth["promote"] == {"style": "success", "detail": "success"}
    with model_runs(monkeypatch) as runs:
        night(shop.settings, "retag")
    live = shop.live()
    assert runs == {live["style"]: PICTURES, live["detail"]: PICTURES}
    now = shop.tags(*groups)
    assert all(set(tags) == {"style", "detail"} for tags in now.values())
    (sheet,) = shop.settings.published.glob("csv/*.csv")
    assert "color" not in sheet.read_text(encoding="utf-8-sig").splitlines()[0]
    with Store(shop.settings.store_url) as store:
        kinds = [move.kind for move in store.ledger.history("color")]
        picture = next(iter(before))
        then = store.current.tags_at(picture, store.ledger.history("color")[1].created_at)
    assert kinds == ["promote", "promote", "rollback"]
    assert then["color"].tags == before[picture]["color"]


def weights_of(project: Path, group: str) -> str:
    """Return the name in DVC's cache, less its first two letters, of a group's weights."""
    data = (project / "models" / group / "weights.safetensors").read_bytes()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()[2:]
