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
from typing import TYPE_CHECKING, Any

from . import gate, params, pipeline
from .errors import ShoetaggerError
from .registry import CHALLENGER, CHAMPION, Registry, RegistryError, Version, holds
from .settings import Settings, without_password
from .store import Move, MoveConflict, Store
from .store.rows import MoveKind
from .tracking import TrackingError

if TYPE_CHECKING:
    from .trial import Trial

logger = logging.getLogger(__name__)

_OUT_OF_FOLD = "out_of_fold.csv"  # among a version's files in its run


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
    asks: str | None  # why a person has to approve; None: nobody has to
    hours: float  # how long an approval is waited for
    figures: Mapping[str, float]
    data_revision: str
    mlflow_run: str | None  # of the challenger
    text: str  # Markdown, for the person who approves
    report: str | None  # address of the whole report; None without an MLflow server

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": list(self.reasons), "figures": dict(self.figures)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Comparison:
        return cls(**{**plain, "reasons": tuple(plain["reasons"])})


@dataclass(frozen=True)
class Decision:
    """What a person said to a comparison."""

    approved: bool
    by: str
    why: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Decision:
        return cls(**plain)


def register(settings: Settings, plan: pipeline.Plan, group: str) -> Challenger:
    """Register what the stages of one group left in the plan's checkout, as the challenger.

    Idempotent: the same bundle is the same version.
    """
    from . import trial
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
    with (
        pipeline.using(settings, plan, "split"),
        pipeline.using(settings, plan, f"crossval@{group}") as checkout,
    ):
        scores = trial.out_of_fold(checkout, group)
    if scores is not None:
        registry.log_files(version, {_OUT_OF_FOLD: scores.encode()})
    registry.set_alias(group, CHALLENGER, version.number)
    return Challenger(group, version.digest, version.number)


def compare(settings: Settings, plan: pipeline.Plan, group: str, digest: str) -> Comparison:
    """Judge a challenger and the live champion by the same pictures, and gate it.

    Judged are pictures whose hash puts them on the validation side: neither version trained on
    them, as long as both were split by one seed and share, which is checked. The report goes into
    the challenger's MLflow run. Without a champion the challenger passes.
    """
    from . import report

    options = pipeline.params_of(settings, plan)
    registry = _registry(settings)
    with Store(settings.store_url) as store:
        champion = store.live().get(group)
        numbers = {v.digest: v.version or "?" for v in store.versions(group)}
        moves = store.history(group)
    version = _version_of(registry, group, digest)
    if version is None:
        raise PromotionError(f"{group}: the registry has no version of bundle {digest[:12]}")
    against = f"version {numbers[champion]}" if champion else "no champion"
    trial = None
    verdict = _verdict_without_trial(settings, options, moves, version, champion, against)
    if verdict is None and champion is not None:
        trial = _trial(settings, plan, options, registry, version, champion)
        verdict = gate.judge(against, trial.validation, trial.arrivals.diff, options.promote)
    assert verdict is not None
    told = report.document(f"{group}: version {version.number} against {against}", verdict, trial)
    registry.log_files(version, report.files(told, trial))
    page = registry.page_of(version, report.PAGE)
    return Comparison(
        group=group,
        challenger=digest,
        version=version.number,
        champion=champion,
        champion_version=numbers.get(champion) if champion else None,
        passes=verdict.passes,
        reasons=verdict.reasons,
        asks=verdict.asks,
        hours=options.promote.approval_hours,
        figures=_figures(trial),
        data_revision=pipeline.data_revision(pipeline.checkout(settings, plan)),
        mlflow_run=version.run_id,
        text=report.text(told, page),
        report=page,
    )


def _verdict_without_trial(
    settings: Settings,
    options: params.Params,
    moves: Sequence[Move],
    challenger: Version,
    champion: str | None,
    against: str,
) -> gate.Verdict | None:
    """Return the verdict where there is nothing to try, None where the two have to meet."""
    mine = f"version {challenger.number}"
    if champion is None:
        asks = gate.asks(options.promote, None)
        return gate.Verdict(True, ("the first version of its group",), asks)
    if champion == challenger.digest:
        return gate.Verdict(False, (f"{mine} is the champion already",))
    if (taken_back := _taken_back(moves, challenger.digest)) is not None:
        return gate.Verdict(
            False,
            (
                f"{mine} was taken back on {taken_back.created_at:%Y-%m-%d} by "
                f"{taken_back.by} ({taken_back.why}): whoever finds it right now moves the alias "
                "by hand",
            ),
        )
    if _split_otherwise(settings, challenger.group, champion, options):
        return gate.Verdict(
            False,
            (
                f"{against} was trained with another split.seed or split.validation, so on some "
                "of today's validation pictures: its figures on them mean nothing; move the alias "
                "by hand, or restore the split",
            ),
        )
    return None


def _trial(
    settings: Settings,
    plan: pipeline.Plan,
    options: params.Params,
    registry: Registry,
    challenger: Version,
    champion: str,
) -> Trial:
    from . import trial

    def taking_part(digest: str, version: Version | None) -> trial.Side:
        scores = registry.read_file(version, _OUT_OF_FOLD) if version else None
        return trial.Side(bundle_directory(settings, digest), scores.decode() if scores else None)

    live = _version_of(registry, challenger.group, champion)
    with pipeline.using(settings, plan, "split") as checkout:
        return trial.hold(
            settings,
            options,
            checkout,
            challenger=taking_part(challenger.digest, challenger),
            champion=taking_part(champion, live),
        )


def _figures(trial: Trial | None) -> dict[str, float]:
    """Return the few numbers that Airflow shows of a comparison."""
    found: dict[str, float] = {}
    if trial is None:
        return found
    if (macro := trial.validation.macro_f1) is not None:
        found["challenger_macro_f1"] = round(macro.challenger, 4)
        found["champion_macro_f1"] = round(macro.champion, 4)
    if (share := trial.arrivals.diff.share) is not None:
        found["tags_change"] = round(share, 4)
    return found


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
    settings: Settings, comparison: Comparison, decision: Decision | None, *, by: str
) -> None:
    """Make a challenger champion, in ledger, registry and store.

    It must have passed the gate and, where the comparison asks for it, been approved: `decision`
    is what a person said, None where nobody was asked. Raises PromotionError where one of the two
    is missing, and MoveConflict where the champion it was compared with is not live any more.
    """
    group = comparison.group
    named = f"{group} version {comparison.version}"
    if not comparison.passes:
        raise PromotionError(f"{named} did not pass the gate: {'; '.join(comparison.reasons)}")
    if comparison.asks and decision is None:
        raise PromotionError(f"{named} was not approved by anybody: {comparison.asks}")
    if decision is not None and not decision.approved:
        raise PromotionError(f"{named} was rejected by {decision.by}: {decision.why}")
    why = "; ".join(comparison.reasons)
    if decision is not None:
        by = f"{decision.by}, asked by {by}"
        why = f"approved ({decision.why or 'no reason given'}); {why}"
    registry = _registry(settings)
    with Store(settings.store_url) as store:
        # Idempotent: a retry of the task finds its own move done, or pending.
        _complete_pending(store, registry, group)
        live = store.live().get(group)
        if live == comparison.challenger:
            return
        if live != comparison.champion:
            numbers = {v.digest: f"version {v.version}" for v in store.versions(group)}
            raise MoveConflict(
                f"{named} was compared with {numbers.get(comparison.champion or '', 'none')}, but "
                f"{numbers.get(live or '', 'none')} is the champion now: it moved meanwhile; run "
                "the training again, which compares anew"
            )
        move = store.begin_move(
            group,
            comparison.challenger,
            kind="promote",
            by=by,
            why=why,
            data_revision=comparison.data_revision,
            mlflow_run=comparison.mlflow_run,
            expect_from=comparison.champion,
        )
        _point(registry, group, comparison.challenger)
        store.finish_move(move)
    logger.info("%s is the champion", named)


def refuse(settings: Settings, comparison: Comparison, decision: Decision) -> None:
    """Write into the ledger who refused a challenger, and why; nothing moves."""
    with Store(settings.store_url) as store:
        store.refuse_move(
            comparison.group,
            comparison.challenger,
            by=decision.by,
            why=f"rejected ({decision.why or 'no reason given'})",
            data_revision=comparison.data_revision,
            mlflow_run=comparison.mlflow_run,
        )


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
        if digest == chain[0]:
            raise PromotionError(f"group {group}: version {known[digest].version} is live already")
        version = _version_of(registry, group, digest)
        if version is None:
            raise PromotionError(
                f"group {group}: version {known[digest].version} left the registry at "
                f"{without_password(settings.tracking_uri)}: restore it there, or "
                "name another with --to"
            )
        try:
            bundle_directory(settings, digest)
        except (RegistryError, TrackingError) as error:
            raise PromotionError(
                f"group {group}: the files of version {version.number} are gone, so it cannot go "
                f"live: restore them, or name another with --to ({error})"
            ) from error
        move = store.begin_move(
            group,
            digest,
            kind="rollback",
            by=by,
            why=why,
            expect_from=chain[0],
            **_origin(version),
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
            f"{without_password(settings.tracking_uri)}: restore the registry, or train and "
            "promote anew"
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


def _origin(version: Version | None) -> dict[str, Any]:
    """Return where a version comes from, for its row of the ledger."""
    if version is None:
        return {"data_revision": None, "mlflow_run": None}
    return {"data_revision": version.tags.get("data_revision"), "mlflow_run": version.run_id}


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
            without_password(settings.tracking_uri),
        )
        return
    kind: MoveKind = "remove" if version is None else "manual"
    why = f"the alias {CHAMPION} was moved by hand in the registry"
    if any(move.group == group for move in store.pending_moves()):
        return  # a promotion is under way, and its alias is not one moved by hand
    try:
        move = store.begin_move(
            group,
            named,
            kind=kind,
            by="mlflow",
            why=why,
            expect_from=before,
            **_origin(version),
        )
    except MoveConflict:
        return  # a promotion came in between: what it leaves is the next run's to see
    store.finish_move(move)
    logger.warning("%s: the alias was moved by hand, and that is accepted: %s", group, kind)
