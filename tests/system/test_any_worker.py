"""A training whose tasks share no disk: a worker and all it had are gone in the middle of it."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from helpers import fork_server
from helpers.mlflow_server import mlflow_server
from helpers.sample import copy_sample, keep_columns

from shoetagger.config.settings import Settings
from shoetagger.orchestration import tasks
from shoetagger.store.store import Store
from shoetagger.tracking.registry import CHALLENGER, Registry

ROOT = Path(__file__).parents[2]
TAGS = ("black", "white")
QUICK: Mapping[str, Mapping[str, Any]] = {
    "split": {"folds": 2, "validation": 0.3},
    "images": {"size": 32},
    "train": {"weights": "none", "freeze": "none", "epochs": 1},
    "evaluate": {"bootstrap": 20, "min_positives": 1},
}

pytestmark = pytest.mark.slow


def run(folder: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@dataclass(frozen=True)
class Cluster:
    """What all workers reach: remotes of git and DVC, the store, MLflow; `runs` notes stages."""

    git: Path
    dvc: Path
    runs: Path
    store: str
    mlflow: str

    def stages(self) -> list[str]:
        return [" ".join(line.split()[:2]) for line in self.runs.read_text().splitlines()]


@pytest.fixture
def mlflow(tmp_path: Path, empty_mlflow: Path) -> Iterator[str]:
    """A server with the artifacts on its own disk."""
    folder = tmp_path / "mlflow"
    folder.mkdir()
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    options = ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
    with mlflow_server(f"sqlite:///{folder / 'mlflow.db'}", folder, *options) as address:
        yield address


@pytest.fixture
def cluster(tmp_path: Path, mlflow: str) -> Cluster:
    found = Cluster(
        git=tmp_path / "project.git",
        dvc=tmp_path / "dvc",
        runs=tmp_path / "runs",
        store=f"sqlite:///{tmp_path / 'store.db'}",
        mlflow=mlflow,
    )
    found.runs.touch()
    with Store(found.store) as store:
        store.migrate()
    run(tmp_path, "git", "init", "--quiet", "--bare", "--initial-branch=main", str(found.git))
    author = clone(found, tmp_path / "author")
    shutil.copytree(ROOT / "src", author / "src", ignore=shutil.ignore_patterns("__pycache__"))
    command = shlex.join(fork_server.python("-m", "shoetagger.stages"))
    noted = f'echo "$@" >> {shlex.quote(str(found.runs))}\nexec {command} "$@"\n'
    (author / "src" / "stage.sh").write_text(noted)
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, author)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {"color": {"tags": list(TAGS)}}
    for section, values in QUICK.items():
        document[section] |= values
    (author / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    for step in (
        ["dvc", "init", "--quiet"],
        ["dvc", "remote", "add", "--quiet", "--default", "shared", str(found.dvc)],
        ["git", "add", "-A"], ["git", "commit", "--quiet", "-m", "A project without data"],
        ["git", "push", "--quiet", "origin", "HEAD:main"],
    ):  # fmt: skip
        run(author, *step)
    return found


def clone(cluster: Cluster, folder: Path) -> Path:
    run(folder.parent, "git", "clone", "--quiet", str(cluster.git), str(folder))
    return folder


def push_data(author: Path) -> str:
    """Make and push the commit to train from, and its data; return the commit."""
    copy_sample(author / "data", count=24)
    keep_columns(author / "data" / "labels.csv", TAGS)
    for command in (
        ["dvc", "add", "--quiet", "data"], ["dvc", "push", "--quiet"], ["git", "add", "-A"],
        ["git", "commit", "--quiet", "-m", "Data"],
        ["git", "push", "--quiet", "origin", "HEAD:main"],
    ):  # fmt: skip
        run(author, *command)
    return run(author, "git", "rev-parse", "HEAD").strip()


def move_to(worker: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tasks that follow be those of a worker, whose clone and state are its own."""
    (worker / "state").mkdir()
    for name, value in {
        "SHOETAGGER_REPO": str(worker / "repo"),
        "SHOETAGGER_HOME": str(worker / "state"),
        "SHOETAGGER_STORE_URL": cluster.store,
        "SHOETAGGER_DEVICE": "cpu",
        "MLFLOW_TRACKING_URI": cluster.mlflow,
    }.items():
        monkeypatch.setenv(name, value)


def handed_on(result: Any) -> Any:
    """Return what the next task gets: Airflow keeps results as JSON."""
    return json.loads(json.dumps(result))


def test_a_worker_may_be_lost_between_any_two_tasks(
    cluster: Cluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    workers = [tmp_path / "worker 1", tmp_path / "worker 2"]
    for worker in workers:
        worker.mkdir()
        clone(cluster, worker / "repo")
    commit = push_data(tmp_path / "author")  # which neither clone has

    move_to(workers[0], cluster, monkeypatch)
    dag_run = SimpleNamespace(dag_id="train_tag_models", run_id="manual")
    asked = {"revision": commit, "groups": [], "overrides": []}
    training = handed_on(tasks.checkout(asked, {}, dag_run))
    training = handed_on(tasks.run_stage(training, "split"))
    training = handed_on(tasks.run_stage(training, "features"))
    (of_group,) = handed_on(tasks.groups(training))
    of_group = handed_on(tasks.run_stage(of_group, "train"))
    ran = ["split data", "features split/images.csv", "train color"]
    assert cluster.stages() == ran

    shutil.rmtree(workers[0])
    move_to(workers[1], cluster, monkeypatch)
    of_group = handed_on(tasks.run_stage(of_group, "crossval"))
    of_group = handed_on(tasks.run_stage(of_group, "evaluate"))
    of_group = handed_on(tasks.register(of_group))
    assert cluster.stages() == [*ran, "crossval color", "evaluate color"]

    # The third has seen nothing of it, not even the files that git keeps and DVC does not.
    shutil.rmtree(workers[1])
    workers[1].mkdir()
    clone(cluster, workers[1] / "repo")
    move_to(workers[1], cluster, monkeypatch)
    compared = handed_on(tasks.compare(of_group))
    assert compared["passes"], compared["reasons"]
    assert cluster.stages() == [*ran, "crossval color", "evaluate color"]
    settings = Settings.from_environment()
    registered = Registry(cluster.mlflow, settings.artifacts).by_alias("color", CHALLENGER)
    assert registered is not None
    assert registered.digest == of_group["challenger"]["digest"]
    assert not [record for record in caplog.records if "DVC's remote fails" in record.message]
