"""What the runs of one training share: a parent, the data, and how busy the machine was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun

from shoetagger.tracking.connection import EXPERIMENT, connect, experiment_id, page
from shoetagger.tracking.run import Tracker
from shoetagger.tracking.trainings import Dataset, Training

COMMIT = "c0ffee" * 6 + "abcd"
TRAINING = Training("0123", "training c0ffee", "[Its DAG run](http://a/b)", {"git_commit": COMMIT})
DATASET = Dataset("data", f"{'d' * 32}.dir", COMMIT)


@pytest.fixture
def tracker(uri: str, tmp_path: Path) -> Tracker:
    return Tracker(uri, tmp_path / "outbox", tmp_path / "artifacts")


def runs(uri: str) -> dict[str, MlflowRun]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return {str(r.info.run_name): r for r in client.search_runs([experiment.experiment_id])}


def test_the_runs_of_a_training_have_one_parent_that_ends_with_the_last(
    tracker: Tracker, uri: str
) -> None:
    shared = {"tags": {}, "params": {}, "training": TRAINING, "dataset": DATASET}
    with tracker.start("train color", **shared) as color:  # type: ignore[arg-type]
        assert runs(uri)["training c0ffee"].info.status == "RUNNING"
        color.set_tags({"weights_sha256": "a" * 64})
    with pytest.raises(KeyError), tracker.start("train style", **shared):  # type: ignore[arg-type]
        raise KeyError
    assert runs(uri)["training c0ffee"].info.status == "FAILED"
    with tracker.attach(
        key="weights_sha256", value="a" * 64, otherwise="evaluate color",
        **shared,  # type: ignore[arg-type]
    ):  # fmt: skip
        pass
    found = runs(uri)
    assert set(found) == {"training c0ffee", "train color", "train style"}
    parent = found["training c0ffee"]
    assert parent.info.status == "FINISHED", "the last to end counts"
    assert parent.info.end_time >= found["train style"].info.end_time
    assert parent.data.tags["mlflow.note.content"] == TRAINING.note
    assert parent.data.tags["git_commit"] == COMMIT
    for name in ("train color", "train style"):
        assert found[name].data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_run_names_the_revision_of_the_data_once(tracker: Tracker, uri: str) -> None:
    with tracker.start("train", tags={}, params={}, dataset=DATASET) as run:
        run._next_flush = 0.0
        run._journal._offset = 0  # as after a process that died before it noted what it had sent
        run.log_metrics({("loss", "train"): 0.5})
    (used,) = runs(uri)["train"].inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("data", "d" * 32)
    assert json.loads(used.dataset.source) == {"uri": "data.dvc", "revision": COMMIT}
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "training")]


def test_a_run_says_how_busy_the_machine_was(tracker: Tracker, uri: str) -> None:
    with tracker.start("train", tags={}, params={}) as run:
        run.log_metrics({("loss", "train"): 0.5})
    metrics = runs(uri)["train"].data.metrics
    assert metrics["loss/train"] == 0.5
    assert 0 <= metrics["system/cpu_utilization_percentage"] <= 100
    assert metrics["system/system_memory_usage_megabytes"] > 100


def test_whoever_looks_for_the_weights_finds_an_evaluation_without_its_training(
    tracker: Tracker, uri: str
) -> None:
    weights = {"key": "weights_sha256", "value": "b" * 64}
    for _ in range(2):
        with tracker.attach(**weights, otherwise="evaluate color", tags={}, params={}):
            pass
    (run,) = runs(uri).values()
    assert run.data.tags["weights_sha256"] == "b" * 64


def test_the_experiment_is_of_the_kind_that_has_models(uri: str, tmp_path: Path) -> None:
    client = connect(uri)
    made = client.create_experiment(EXPERIMENT, tmp_path.as_uri())  # by code of before
    assert experiment_id(client, tmp_path) == made
    tags = client.get_experiment(made).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"
    client.set_experiment_tag(made, "mlflow.experimentKind", "classification")  # by a person
    experiment_id(client, tmp_path)
    assert client.get_experiment(made).tags["mlflow.experimentKind"] == "classification"


@pytest.mark.slow
def test_an_address_opens_mlflow_with_its_models_in_the_menu() -> None:
    assert page("http://a:5000/") == "http://a:5000/#/?workflowType=machine_learning"
    assert page("http://a:5000", "models").endswith("/#/models?workflowType=machine_learning")
