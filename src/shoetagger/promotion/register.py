"""Registers a trained group as challenger."""

from __future__ import annotations

import json

from pydantic import BaseModel

from ..config.settings import Settings
from ..pipeline.dvc_files import data_revision, outputs
from ..pipeline.plan import Plan, params_of
from ..pipeline.repro import materialised
from ..store.store import Store
from ..tracking.registry import CHALLENGER, Registry
from .compare import MOVED, OUT_OF_FOLD
from .versions import remember_version, validation_side


class Challenger(BaseModel, frozen=True, extra="forbid"):
    """A registered version under test."""

    group: str
    digest: str
    version: str


def register(
    settings: Settings, store: Store, registry: Registry, plan: Plan, group: str
) -> Challenger:
    """Register what the stages of one group left in the plan's checkout, as the challenger.

    Idempotent: the same bundle is the same version.
    """
    from ..images.decode import Limits
    from ..inference.bundle import BUNDLE_FILE, load_bundle
    from ..learning.dataset.tables import read_split
    from ..learning.evaluation.documents import flat_metrics
    from .moved import moved_to_training
    from .out_of_fold import out_of_fold

    params = params_of(settings.repo, plan)
    stage = f"evaluate@{group}"
    with materialised(settings, plan, stage) as checkout:
        files = outputs(checkout, stage)
        directory = files[BUNDLE_FILE].parent
        bundle = load_bundle(directory)
        version = registry.register(
            directory,
            limits=Limits.of(params.images),
            tags={
                "git_commit": plan.commit,
                "data_revision": data_revision(checkout),
                "overrides": " ".join(plan.overrides),
                "validation_side": validation_side(params),
            },
            metrics=flat_metrics(json.loads(files[f"{group}.json"].read_text())),
            figures=files["figures"],
        )
        remember_version(store, version, bundle.tags)
    with (
        materialised(settings, plan, "split"),
        materialised(settings, plan, f"crossval@{group}") as checkout,
    ):
        table = read_split(outputs(checkout, "split")["split"] / f"{group}.csv")
        beside = {MOVED: moved_to_training(table, params.split)}
        if (scores := out_of_fold(checkout, group)) is not None:
            beside[OUT_OF_FOLD] = scores.encode()
    registry.log_files(version, beside)
    registry.set_alias(group, CHALLENGER, version.number)
    return Challenger(group=group, digest=version.digest, version=version.number)
