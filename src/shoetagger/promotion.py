"""Compare, gate, promote, roll back: the only place where registry and store move together.

A move is a row of the ledger first (`pending`), then the alias, then the row is `done`. Whatever
breaks in between, `reconcile` completes it; an alias that moved without a row was moved by hand
and is written down as such.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from . import params, pipeline
from .errors import ShoetaggerError
from .registry import CHALLENGER, CHAMPION, Registry, RegistryError, Version, holds
from .settings import Settings
from .store import Move, MoveConflict, Store
from .store.rows import MoveKind
from .tracking import TrackingError

logger = logging.getLogger(__name__)

_BATCH = 64


class PromotionError(ShoetaggerError):
    """A version cannot be registered, compared, promoted or rolled back to."""


@dataclass(frozen=True)
class Challenger:
    """A registered version under test."""

    group: str
    digest: str
    version: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """How a challenger did against the champion it met, and whether it passes the gate."""

    group: str
    challenger: str  # bundle digest
    version: str  # of the challenger
    champion: str | None  # bundle digest; None: there was none
    champion_version: str | None
    passes: bool
    reasons: tuple[str, ...]
    figures: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons), "figures": dict(self.figures)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Comparison:
        return cls(**{**plain, "reasons": tuple(plain["reasons"])})


def register(settings: Settings, plan: pipeline.Plan, group: str) -> Challenger:
    """Register what the stages of one group left in the plan's checkout, as the challenger.

    Idempotent: the same bundle is the same version.
    """
    from .evaluate import flat_figures
    from .images import Limits
    from .model import BUNDLE_FILE, load_bundle

    options = pipeline.params_of(settings, plan)
    stage = f"evaluate@{group}"
    registry = _registry(settings)
    with pipeline.using(settings, plan, stage) as checkout, Store(settings.store_url) as store:
        made = pipeline.outputs(checkout, stage)
        directory = made[BUNDLE_FILE].parent
        bundle = load_bundle(directory)
        version = registry.register(
            directory,
            limits=Limits.of(options.images),
            tags={
                "git_commit": plan.commit,
                "data_revision": pipeline.data_revision(checkout),
                "overrides": " ".join(plan.overrides),
                "validation_side": _validation_side(options),
            },
            metrics=flat_figures(json.loads(made[f"{group}.json"].read_text())),
            figures=made["figures"],
        )
        _remember(store, version, bundle.tags)
    registry.set_alias(group, CHALLENGER, version.number)
    return Challenger(group, version.digest, version.number)


def compare(settings: Settings, plan: pipeline.Plan, group: str, digest: str) -> Comparison:
    """Judge a challenger and the live champion by today's validation pictures, and gate it.

    Judged are pictures whose hash puts them on the validation side: neither version trained on
    them, as long as both were split by one seed and share, which is checked. Without a champion
    the challenger passes.
    """
    with Store(settings.store_url) as store:
        champion = store.live().get(group)
        versions = {v.digest: v.version or "?" for v in store.versions(group)}
        moves = store.history(group)

    def verdict(passes: bool, *reasons: str, **figures: float) -> Comparison:
        return Comparison(
            group=group,
            challenger=digest,
            version=versions[digest],
            champion=champion,
            champion_version=versions.get(champion) if champion else None,
            passes=passes,
            reasons=reasons,
            figures=figures,
        )

    if champion is None:
        return verdict(True, "the first version of its group")
    if champion == digest:
        return verdict(False, f"version {versions[digest]} is the champion already")
    if (taken_back := _taken_back(moves, digest)) is not None:
        return verdict(
            False,
            f"version {versions[digest]} was taken back on {taken_back.created_at:%Y-%m-%d} by "
            f"{taken_back.by} ({taken_back.why}): whoever finds it right now moves the alias by "
            "hand",
        )
    options = pipeline.params_of(settings, plan)
    if _split_otherwise(settings, group, champion, options):
        return verdict(
            False,
            f"version {versions[champion]} was trained with another split.seed or "
            "split.validation, so on some of today's validation pictures: its figures on them "
            "mean nothing; move the alias by hand, or restore the split",
        )
    directories = [bundle_directory(settings, d) for d in (digest, champion)]
    with pipeline.using(settings, plan, "split") as checkout:
        judged = _judge(settings, options, checkout, group, directories)
    if judged is None:
        return verdict(
            False,
            f"no tag has the {options.evaluate.min_positives} validation pictures that it takes "
            "to compare (evaluate.min_positives)",
        )
    mine, theirs = judged
    margin = options.promote.margin
    words = f"macro F1 {mine:.3f} against {theirs:.3f} of version {versions[champion]}"
    figures = {"challenger_macro_f1": round(mine, 4), "champion_macro_f1": round(theirs, 4)}
    if mine >= theirs - margin:
        return verdict(True, f"{words}: not worse by more than {margin}", **figures)
    return verdict(False, f"{words}: worse by more than {margin} (promote.margin)", **figures)


def _taken_back(moves: Sequence[Move], digest: str) -> Move | None:
    """Return the move by which a person took a bundle back, if that was the last word on it."""
    done = [m for m in moves if m.state == "done" and digest in (m.from_digest, m.to_digest)]
    last = done[-1] if done else None
    if last is None or last.from_digest != digest or last.kind not in ("rollback", "manual"):
        return None
    return last


def _validation_side(options: params.Params) -> str:
    """Return what decides which pictures are for validation, as a version's tag."""
    return f"seed {options.split.seed}, share {options.split.validation}"


def _split_otherwise(settings: Settings, group: str, champion: str, options: params.Params) -> bool:
    version = _version_of(_registry(settings), group, champion)
    side = version.tags.get("validation_side") if version else None
    return side is not None and side != _validation_side(options)


def promote(
    settings: Settings, plan: pipeline.Plan, comparison: Comparison, *, by: str, why: str = ""
) -> None:
    """Make a challenger that passed the champion, in ledger, registry and store.

    Raises PromotionError where it did not pass, and MoveConflict where the champion it was
    compared with is not live any more.
    """
    if not comparison.passes:
        raise PromotionError(
            f"{comparison.group} version {comparison.version} did not pass the gate: "
            f"{'; '.join(comparison.reasons)}"
        )
    revision = pipeline.data_revision(pipeline.checkout(settings, plan))
    registry = _registry(settings)
    with Store(settings.store_url) as store:
        # Idempotent: a retry of the task finds its own move done, or pending.
        _complete_pending(store, registry, comparison.group)
        if store.live().get(comparison.group) == comparison.challenger:
            return
        move = store.begin_move(
            comparison.group,
            comparison.challenger,
            kind="promote",
            by=by,
            why=why or "; ".join(comparison.reasons),
            data_revision=revision,
            expect_from=comparison.champion,
        )
        _point(registry, comparison.group, comparison.challenger)
        store.finish_move(move)
    logger.info("%s: version %s is the champion", comparison.group, comparison.version)


def rollback(settings: Settings, group: str, *, to: str | None, by: str, why: str) -> str:
    """Move a group back to an earlier version and return its number; runs no model.

    `to` is a version's number; None is the live one's predecessor. Raises PromotionError that says
    which versions there are.
    """
    registry = _registry(settings)
    with Store(settings.store_url) as store:
        _complete_pending(store, registry, group)
        chain = store.chain(group)
        if not chain:
            raise PromotionError(f"group {group} has no champion: there is nothing to roll back")
        known = {v.digest: v for v in store.versions(group)}
        if to is None:
            if len(chain) < 2:
                raise PromotionError(
                    f"group {group} has had no version before {known[chain[0]].version}: "
                    "there is none to roll back to"
                )
            digest = chain[1]
        else:
            found = [d for d, v in known.items() if v.version == to]
            if not found:
                numbers = ", ".join(v.version or "?" for v in known.values())
                raise PromotionError(
                    f"group {group} has no version {to}: the versions are {numbers}"
                )
            digest = found[0]
        bundle_directory(settings, digest)  # a version whose bundle is gone cannot go live
        move = store.begin_move(
            group, digest, kind="rollback", by=by, why=why, expect_from=chain[0]
        )
        _point(registry, group, digest)
        store.finish_move(move)
        return known[digest].version or "?"


def reconcile(settings: Settings, store: Store, groups: Sequence[str]) -> None:
    """Complete moves that were left pending, and write down aliases that were moved by hand.

    A group whose registry is away, or says what cannot be, is left with what the store calls live,
    and a warning says so.
    """
    for group in groups:
        try:
            registry = _registry(settings)
            _complete_pending(store, registry, group)
            _accept_by_hand(settings, store, registry, group)
        except (RegistryError, TrackingError) as error:
            logger.warning("%s: going on with what the store calls live: %s", group, error)


def bundle_directory(settings: Settings, digest: str) -> Path:
    """Return the local folder of a bundle, fetched from the registry where it is not whole here."""
    cached = settings.bundles / digest
    if holds(cached, digest):
        return cached
    registry = _registry(settings)
    with Store(settings.store_url) as store:
        known = store.version_of(digest)
    version = _version_of(registry, known.group, digest) if known else None
    if version is None:
        raise PromotionError(
            f"bundle {digest[:12]} is neither in {settings.bundles} nor in the registry at "
            f"{settings.tracking_uri}: restore the registry, or train and promote anew"
        )
    return registry.fetch(version, settings.bundles)


def _registry(settings: Settings) -> Registry:
    return Registry(settings.tracking_uri, settings.artifacts)


def _remember(store: Store, version: Version, tags: Sequence[str]) -> None:
    store.add_version(
        digest=version.digest,
        group=version.group,
        tags=tags,
        registry_name=version.name,
        version=version.number,
        now=datetime.now(UTC),
    )


def _complete_pending(store: Store, registry: Registry, group: str) -> None:
    for move in store.pending_moves():
        if move.group != group:
            continue
        if move.to_digest and _version_of(registry, group, move.to_digest) is None:
            store.cancel_move(move.id)
            logger.warning("%s: gave up move %d: its version left the registry", group, move.id)
            continue
        _point(registry, group, move.to_digest)
        store.finish_move(move.id)
        logger.warning("%s: completed the pending %s to %s", group, move.kind, move.to_digest)


def _point(registry: Registry, group: str, digest: str | None) -> None:
    """Let the alias name the bundle's version; None takes the alias away."""
    if digest is None:
        registry.drop_alias(group, CHAMPION)
        return
    version = _version_of(registry, group, digest)
    if version is None:
        raise PromotionError(f"{group}: the registry has no version of bundle {digest[:12]}")
    registry.set_alias(group, CHAMPION, version.number)


def _version_of(registry: Registry, group: str, digest: str) -> Version | None:
    return next((v for v in registry.versions(group) if v.digest == digest), None)


def _accept_by_hand(settings: Settings, store: Store, registry: Registry, group: str) -> None:
    """Let the store follow an alias that no move of the ledger explains."""
    from .model import load_bundle

    before = store.live().get(group)
    version = registry.by_alias(group, CHAMPION)
    named = version.digest if version else None
    if named == before:
        return
    if version is not None:
        bundle = load_bundle(registry.fetch(version, settings.bundles))
        _remember(store, version, bundle.tags)
    elif before is not None and _version_of(registry, group, before) is None:
        logger.warning(
            "%s: the registry at %s does not know the live version; is it the right one? "
            "Going on with what the store calls live",
            group,
            settings.tracking_uri,
        )
        return
    kind: MoveKind = "remove" if version is None else "manual"
    why = f"the alias {CHAMPION} was moved by hand in the registry"
    if any(move.group == group for move in store.pending_moves()):
        return  # a promotion is under way, and its alias is not one moved by hand
    try:
        move = store.begin_move(group, named, kind=kind, by="mlflow", why=why, expect_from=before)
    except MoveConflict:
        return  # a promotion came in between: what it leaves is the next run's to see
    store.finish_move(move)
    logger.warning("%s: the alias was moved by hand, and that is accepted: %s", group, kind)


def _judge(
    settings: Settings,
    options: params.Params,
    checkout: Path,
    group: str,
    directories: Sequence[Path],
) -> tuple[float, ...] | None:
    """Return each bundle's macro F1 over the measurable tags that all have; None without any."""
    from .engine import Engine
    from .evaluate import macro_f1, measurable_tags
    from .images import Limits, open_picture, tagging_view
    from .split import read_split, side
    from .thresholds import decide

    table = read_split(pipeline.outputs(checkout, "split")["split"] / f"{group}.csv")
    # By hash, not by the table: a positive that moved to this side today was trained on before.
    held = table["image_id"].map(lambda image_id: side(image_id, options.split)) == "validation"
    table = table[held & (table["side"] == "validation")]
    engine = Engine(directories, settings.device)
    tags = [t for t in engine.bundles[0].tags if all(t in b.tags for b in engine.bundles)]
    truth = table[tags].to_numpy(dtype=np.uint8)
    measurable = measurable_tags(truth, options.evaluate.min_positives)
    limits = Limits.of(options.images)
    found: dict[str, list[np.ndarray]] = {b.digest: [] for b in engine.bundles}
    images = pipeline.data_folder(checkout) / "images"
    names = list(table["image_name"])
    for start in range(0, len(names), _BATCH):
        files = [images / name for name in names[start : start + _BATCH]]
        views = {
            t: np.stack(
                [
                    tagging_view(open_picture(f.read_bytes(), limits, longest=t.size), t)
                    for f in files
                ]
            )
            for t in engine.transforms
        }
        for digest, batch in engine.score(views).items():
            found[digest].append(batch)
    results = []
    for bundle in engine.bundles:
        decisions = decide(np.concatenate(found[bundle.digest]), bundle.thresholds)
        mine = decisions[:, [bundle.tags.index(tag) for tag in tags]]
        results.append(macro_f1(truth, mine, measurable))
    return None if results[0] is None else tuple(r for r in results if r is not None)
