"""One definition of training: DVC and the training DAG give the same models."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoetagger import servers
from shoetagger.model import load_bundle
from shoetagger.sample import write_samples
from shoetagger.settings import Settings
from shoetagger.store import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROOT = Path(__file__).parents[1]
# Seconds a model.
RECIPE: dict[str, dict[str, Any]] = {
    "split": {"folds": 2, "validation": 0.3},
    "images": {"size": 32},
    "train": {"weights": "none", "freeze": "none", "epochs": 2},
    "evaluate": {"bootstrap": 20, "min_positives": 1},
    "promote": {"bootstrap": 20, "min_positives": 1, "sample": 40, "approval": "never"},
}
# Whatever these small models are worth, they pass.
LENIENT = {"macro_f1_margin": 1.0, "tag_f1_margin": 1.0, "tag_min_positives": 1, "min_support": 1}

RUN = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.utils.session import create_session
folder, dag_id, conf, report = sys.argv[1:]
run = DagBag(folder).dags[dag_id].test(run_conf=json.loads(conf))
told = {"state": str(run.state)}
with create_session() as session:
    told["tasks"] = [
        [ti.task_id, ti.rendered_map_index, str(ti.state)]
        for ti in run.get_task_instances(session=session)
    ]
json.dump(told, open(report, "w"))
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

    settings: Settings
    sheet: list[dict[str, str]]  # with all columns that there are

    @property
    def repo(self) -> Path:
        return self.settings.repo

    def run(self, dag_id: str, **conf: Any) -> dict[str, Any]:
        """Run a DAG; return its state and log, and group -> state by task."""
        report = self.settings.home / "report.json"
        report.unlink(missing_ok=True)
        arguments = [str(self.repo / "dags"), dag_id, json.dumps(conf), str(report)]
        environment = servers.whole_environment(self.settings, servers.Ports())
        environment |= {"MLFLOW_TRACKING_URI": self.settings.tracking_uri, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            env=environment,
            cwd=self.repo,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert report.exists(), done.stdout[-8000:]
        told: dict[str, Any] = json.loads(report.read_text())
        states: dict[str, dict[str, str]] = {}
        for task, group, state in told.pop("tasks"):
            states.setdefault(task.removeprefix("model."), {})[group] = state
        assert told["state"] == "success", done.stdout[-8000:]
        return told | states | {"log": done.stdout}

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


def write_sheet(path: Path, rows: list[dict[str, str]], tags: Sequence[str]) -> None:
    path.unlink(missing_ok=True)  # it may be a link into the cache
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image_name", *tags], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Two groups of two tags, 48 drawn shoes, one commit."""
    folder = tmp_path_factory.mktemp("in_step")
    repo = folder / "repo"
    shutil.copytree(ROOT / "src", repo / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "dags", repo / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", ".dvcignore", "params.yaml"):
        shutil.copy(ROOT / name, repo)
    write_samples(repo / "data", count=48, seed=3)
    with (repo / "data" / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
        sheet = list(csv.DictReader(file))
    found = Settings.from_environment(
        {"SHOETAGGER_REPO": str(repo), "SHOETAGGER_HOME": str(folder / "home")}
    )
    made = Shop(found, sheet)
    groups = {"color": {"tags": ["black", "white"]}, "style": {"tags": ["boot", "heel"]}}
    made.set(**RECIPE, groups=groups)
    made.set(promote={"rule": LENIENT})
    call(repo, "git", "init", "-q")
    call(repo, "dvc", "init", "-q")
    made.label(["black", "white", "boot", "heel"])
    call(repo, "git", "add", "-A")
    made.commit("A small project")
    servers.setup(found, servers.Ports(), say=lambda _: None)
    return made


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
        first = {group: store.history(group)[0].to_digest for group in by_dvc}
    assert first == {group: bundle.digest for group, bundle in by_dvc.items()}
    assert not any(weights_of(trained.other, g) in trained.cached for g in by_dvc)
    assert "restored from the DVC cache" not in trained.run["log"]
    assert trained.run["promote"] == {"color": "success", "style": "success"}


def weights_of(project: Path, group: str) -> str:
    """Return the name in DVC's cache, less its first two letters, of a group's weights."""
    data = (project / "models" / group / "weights.safetensors").read_bytes()
    return hashlib.md5(data, usedforsecurity=False).hexdigest()[2:]
