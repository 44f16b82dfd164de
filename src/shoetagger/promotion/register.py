"""Registers a trained group as challenger."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ..config.settings import Settings
from ..pipeline.dvc_files import data_revision, outputs
from ..pipeline.plan import Plan, params_of
from ..pipeline.repro import materialised
from ..store.store import Store
from ..tracking.registry import CHALLENGER, Registry
from .compare import MOVED, OUT_OF_FOLD
from .versions import remember_version, validation_side

if TYPE_CHECKING:
    from ..inference.bundle import Bundle


class Challenger(BaseModel, frozen=True, extra="forbid"):
    """A registered version under test."""

    group: str
    digest: str
    version: str


def register(
    settings: Settings,
    store: Store,
    registry: Registry,
    plan: Plan,
    group: str,
    *,
    dag_run: str = "",
) -> Challenger:
    """Register what the stages of one group left in the plan's checkout, as the challenger.

    Idempotent: the same bundle is the same version. `dag_run` is the address of a DAG run's page.
    """
    from ..images.decode import Limits
    from ..inference.bundle import BUNDLE_FILE, load_bundle
    from ..learning.dataset.tables import read_predictions, read_split
    from ..learning.evaluation.documents import flat_metrics
    from ..stages.mlflow_run import PARAMS, training
    from .model_card import model_card
    from .moved import moved_to_training
    from .out_of_fold import out_of_fold

    params = params_of(settings.repo, plan)
    stage = f"evaluate@{group}"
    with (
        materialised(settings, plan, "split"),
        materialised(settings, plan, f"crossval@{group}"),
        materialised(settings, plan, stage) as checkout,
    ):
        files = outputs(checkout, stage)
        directory = files[BUNDLE_FILE].parent
        bundle = load_bundle(directory)
        metrics = json.loads(files[f"{group}.json"].read_text(encoding="utf-8"))
        split = read_split(outputs(checkout, "split")["split"] / f"{group}.csv")
        revision = data_revision(checkout)
        origin = {
            "commit": plan.commit,
            "data": revision,
            "overrides": " ".join(plan.overrides),
            **_backbone(bundle),
            **_detector(bundle),
        }
        warning = bundle.origin.warning if bundle.origin else None
        predictions = read_predictions(files[f"{group}.csv"])
        version = registry.register(
            directory,
            limits=Limits.of(params.images),
            tags={
                "git_commit": plan.commit,
                "data_revision": revision,
                "overrides": " ".join(plan.overrides),
                "validation_side": validation_side(params),
                "dag_run": dag_run,
            },
            metrics=flat_metrics(metrics),
            figures=files["figures"],
            card=model_card(group, bundle.tags, metrics, predictions, split, origin, warning),
            training=training(plan.commit, revision, checkout / PARAMS, dag_run),
        )
        remember_version(store, version, bundle.tags)
        beside = {MOVED: moved_to_training(split, params.split)}
        if (scores := out_of_fold(checkout, group)) is not None:
            beside[OUT_OF_FOLD] = scores.encode()
    registry.log_files(version, beside)
    registry.set_alias(group, CHALLENGER, version.number)
    return Challenger(group=group, digest=version.digest, version=version.number)


def _detector(bundle: Bundle) -> dict[str, str]:
    """Return what the model card says of the detector that finds shoes on uneven ground."""
    detector = bundle.transform.detector
    return {"shoe detector": detector.sha256} if detector else {}


def _backbone(bundle: Bundle) -> dict[str, str]:
    """Return what the model card says of a bundle's backbone and its pretrained weights."""
    weights = bundle.origin
    if weights is None:
        return {"backbone": bundle.arch}
    return {
        "backbone": f"{bundle.arch}, by {weights.library}",
        "pretrained weights": weights.source,
        "their licence": weights.license or "not stated",
        "their digest": bundle.pretrained or "",
    }
