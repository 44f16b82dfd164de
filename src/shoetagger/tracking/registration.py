"""The steps by which a bundle becomes a version of a registered model."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from .connection import REFUSALS, tagged_run
from .names import metric_name
from .packaging import save_model
from .trainings import PARENT, end_parent, parent_run

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

    from ..images.decode import Limits
    from ..inference.bundle import Bundle
    from .trainings import Training

logger = logging.getLogger(__name__)
# Seconds: a registration on another machine may still be writing what is younger.
ABANDONED_AFTER = 2 * 3600.0


def model_name(group: str) -> str:
    """Return the name under which a group's model is registered."""
    return f"shoetagger-{group}"


def run_of(
    client: MlflowClient,
    experiment: str,
    bundle: Bundle,
    tags: Mapping[str, str],
    figures: Path | None,
    training: Training | None,
) -> str:
    """Return the id of the run that trained the weights, or of a new one where there is none."""
    found = tagged_run(client, experiment, "weights_sha256", bundle.weights_sha256)
    if found is not None:
        return found
    origin = {key: str(value) for key, value in tags.items()}
    if training is not None:
        origin[PARENT] = parent_run(client, experiment, training)
    mlflow_run = client.create_run(experiment, tags=origin, run_name=f"register {bundle.group}")
    run_id = str(mlflow_run.info.run_id)
    if figures is not None and figures.is_dir():
        client.log_artifacts(run_id, str(figures), "plots")
    client.set_terminated(run_id, "FINISHED")
    end_parent(client, run_id, "FINISHED")
    # Last: a second attempt must find only a run that is complete.
    client.set_tag(run_id, "weights_sha256", bundle.weights_sha256)
    return run_id


def log_model(
    client: MlflowClient,
    experiment: str,
    run_id: str,
    bundle: Bundle,
    directory: Path,
    limits: Limits,
    tags: Mapping[str, str],
    metrics: Mapping[tuple[str, ...], float],
) -> LoggedModel:
    """Write the bundle in `directory` as a model of a run; where that fails, nothing of it stays.

    The metrics are shown with the model and with its run; those that speak of the whole group,
    which have names of two parts, also with the training's.
    """
    _remove_abandoned(client, experiment, bundle)
    model = client.create_logged_model(
        experiment, model_name(bundle.group), run_id, tags=dict(tags)
    )
    with _removed_on_failure(client, model), TemporaryDirectory() as scratch:
        target = Path(scratch) / "model"
        save_model(bundle, directory, limits, model, target)
        client.log_model_artifacts(model.model_id, str(target))
        client.finalize_logged_model(model.model_id, "READY")
        _link(client, run_id, model.model_id, metrics)
        _show_with_training(client, run_id, bundle.group, metrics)
        _ensure_registered_model(client, bundle.group)
    return model


def create_version(
    client: MlflowClient,
    group: str,
    model: LoggedModel,
    run_id: str,
    tags: Mapping[str, str],
    card: str,
) -> ModelVersion:
    """Make a logged model the next version of its group's; one that is refused is removed.

    It stays where the request was not answered, which may have been carried out all the same.
    """
    from mlflow.exceptions import MlflowException

    try:
        return client.create_model_version(
            model_name(group),
            source=f"models:/{model.model_id}",
            run_id=run_id,
            tags=dict(tags),
            description=card or None,
            model_id=model.model_id,
        )
    except MlflowException as error:
        if error.error_code in REFUSALS:
            _remove(client, model)
        raise


def _link(
    client: MlflowClient, run_id: str, model_id: str, metrics: Mapping[tuple[str, ...], float]
) -> None:
    """Show the model on its run's page, and the metrics on the model's."""
    from mlflow.entities import LoggedModelOutput, Metric

    client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    now = int(time.time() * 1000)
    points = []
    for name, value in metrics.items():
        key = metric_name(*name)
        # A value that the run has already keeps its place, or its chart would show it twice.
        logged = [m for m in client.get_metric_history(run_id, key) if m.value == value]
        when, step = (logged[-1].timestamp, logged[-1].step) if logged else (now, 0)
        points.append(Metric(key, float(value), when, step, model_id, run_id=run_id))
    if points:
        client.log_batch(run_id, metrics=points)


def _show_with_training(
    client: MlflowClient, run_id: str, group: str, metrics: Mapping[tuple[str, ...], float]
) -> None:
    """Show the metrics of a whole group on the parent of its run, under the group's name."""
    from mlflow.entities import Metric

    parent = client.get_run(run_id).data.tags.get(PARENT)
    now = int(time.time() * 1000)
    points = [
        Metric(metric_name(*name, group), float(value), now, 0)
        for name, value in metrics.items()
        if len(name) == 2
    ]
    if parent is not None and points:
        client.log_batch(parent, metrics=points)


def _ensure_registered_model(client: MlflowClient, group: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            model_name(group), description=f"Tags pictures with the tags of group {group}."
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _remove_abandoned(client: MlflowClient, experiment: str, bundle: Bundle) -> None:
    """Remove what registrations of this bundle left that were killed before they were done."""
    from mlflow.entities import LoggedModelStatus

    where = f"tags.bundle_digest = '{bundle.digest}'"
    for model in client.search_logged_models([experiment], filter_string=where):
        age = time.time() - model.creation_timestamp / 1000
        if model.status == LoggedModelStatus.PENDING and age > ABANDONED_AFTER:
            _remove(client, model)


@contextmanager
def _removed_on_failure(client: MlflowClient, model: LoggedModel) -> Iterator[None]:
    """Remove a logged model and its files, tens of megabytes, where the block fails."""
    try:
        yield
    except BaseException:
        _remove(client, model)
        raise


def _remove(client: MlflowClient, model: LoggedModel) -> None:
    """Remove a logged model and its files; what is in the way of that becomes a warning."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    try:
        files: Any = get_artifact_repository(model.artifact_location)
        files.delete_artifacts()
        client.delete_logged_model(model.model_id)
    except (MlflowException, OSError, NotImplementedError) as error:
        logger.warning("%s stays after a failed registration: %s", model.artifact_location, error)
