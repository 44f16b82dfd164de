"""What the runs of one training share in MLflow: a parent run, and the data as a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .connection import tagged_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

PARENT = "mlflow.parentRunId"
_NOTE = "mlflow.note.content"
_TRAINING = "training"  # the tag by which the parent run is found


@dataclass(frozen=True)
class Training:
    """What runs belong together as: the same `id` means the same training.

    `name`, `note` (Markdown) and `tags` are those of the parent run.
    """

    id: str
    name: str
    note: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A revision of the data: the md5 that DVC gives the folder, and the commit that names it."""

    name: str
    revision: str
    commit: str


def parent_run(
    client: MlflowClient, experiment: str, training: Training, time_ms: int | None = None
) -> str:
    """Return the id of a training's parent run, which is begun where there is none."""
    found = tagged_run(client, experiment, _TRAINING, training.id)
    if found is not None:
        return found
    tags = {_TRAINING: training.id, **training.tags}
    if training.note:
        tags[_NOTE] = training.note
    return str(client.create_run(experiment, time_ms, tags, training.name).info.run_id)


def end_parent(client: MlflowClient, run_id: str, status: str, time_ms: int | None = None) -> None:
    """End the parent of a run that has ended, if it has one: the last of them to end counts."""
    parent = client.get_run(run_id).data.tags.get(PARENT)
    if parent is not None:
        client.set_terminated(parent, status, time_ms)


def as_input(dataset: Dataset) -> DatasetInput:
    """Return a dataset as MLflow's runs list it."""
    from mlflow.entities import Dataset as Entity
    from mlflow.entities import DatasetInput, InputTag

    source: dict[str, Any] = {"uri": f"{dataset.name}.dvc", "revision": dataset.commit}
    digest = dataset.revision.removesuffix(".dir")
    entity = Entity(dataset.name, digest, "dvc", json.dumps(source))
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])
