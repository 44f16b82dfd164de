"""Compares a challenger with the champion and applies the gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from ..config.params import Params
from ..config.settings import Settings
from ..pipeline.checkout import checkout
from ..pipeline.dvc_files import data_revision
from ..pipeline.plan import Plan, params_of
from ..pipeline.repro import materialised
from ..store.rows import Move
from ..store.store import Store
from ..tracking.registry import Registry, Version
from . import gate
from .by_itself import by_itself
from .versions import PromotionError, bundle_directory, validation_side

if TYPE_CHECKING:
    from .side_by_side import Contender, SideBySide


# Among a version's files in its MLflow run.
OUT_OF_FOLD, MOVED = "out_of_fold.csv", "moved_to_training.json"
PICTURES = 12  # that an approval shows


class ChangedPicture(BaseModel, frozen=True, extra="forbid"):
    """An arrival whose tags would change; Airflow keeps this, so its file is not named."""

    image_id: str
    gained: tuple[str, ...]  # as people read them
    lost: tuple[str, ...]


class Comparison(BaseModel, frozen=True, extra="forbid"):
    """How a challenger did against the champion of that moment, and whether it passes the gate."""

    group: str
    challenger: str  # bundle digest
    version: str  # of the challenger
    champion: str | None  # bundle digest; None: there was none
    champion_version: str | None
    passes: bool
    reasons: tuple[str, ...]
    approval_reason: str | None  # why a person has to approve; None: nobody has to
    hours: float  # how long an approval is waited for
    metrics: Mapping[str, float]
    data_revision: str
    mlflow_run: str | None  # of the challenger
    text: str  # Markdown, for the person who approves
    report: str | None  # address of the whole report; None without an MLflow server
    gate: str = ""  # the rules that were applied; a comparison of before they were kept has none
    commit: str = ""  # that the challenger was trained from
    warnings: tuple[str, ...] = ()  # what stops nobody, and should be seen
    changed: tuple[ChangedPicture, ...] = ()  # some of the arrivals whose tags would change
    moves: int | None = None  # of the group that were done by then; older code did not count them

    @property
    def is_champion(self) -> bool:
        """Whether the challenger is the champion already, so that there is nothing to do."""
        return self.champion == self.challenger

    @property
    def sentences(self) -> tuple[str, ...]:
        """The outcome in words, for a log: what met what, whether it passes, and why."""
        against = f"version {self.champion_version}" if self.champion else "no champion"
        verdict = "passes the gate" if self.passes else "does not pass the gate"
        if self.is_champion:
            verdict = "nothing to do"
        lines = [f"{self.group}: version {self.version} against {against}: {verdict}"]
        lines += self.reasons
        if self.approval_reason:
            lines.append(f"a person has to approve: {self.approval_reason}")
        if self.report:
            lines.append(f"the whole comparison: {self.report}")
        return tuple(lines)


def compare(
    settings: Settings,
    installation: Params,
    store: Store,
    registry: Registry,
    plan: Plan,
    group: str,
    digest: str,
) -> Comparison:
    """Compare a challenger with the live champion on the same pictures, and apply the gate.

    These are pictures whose hash puts them on the validation side, as long as both were split by
    one seed and share, which is checked, without those that either trained on for a rare tag. The
    gate, and when a person is asked, are the installation's, whatever commit the plan names. The
    report goes into the challenger's MLflow run, and into the store for the desk; where nothing was
    run, an earlier one stays. Without a champion the challenger passes, and the report shows how it
    did by itself; where the group had one, a person is asked. Raises PromotionError for a bundle
    that is not registered.
    """
    from . import report

    params = params_of(settings.repo, plan).operated_as(installation)
    versions = {version.digest: version for version in registry.versions(group)}
    if digest not in versions:
        raise PromotionError(f"{group}: the registry has no version of bundle {digest[:12]}")
    challenger = versions[digest]
    moves = store.ledger.history(group)
    champion = store.ledger.live().get(group)
    numbers = {v.digest: v.version or "?" for v in store.ledger.versions(group)}
    against = f"version {numbers[champion]}" if champion else "no champion"

    outcome = alone = None
    verdict = _verdict_beforehand(params, moves, challenger, champion, versions, against)
    if verdict is None and champion is None:
        alone = by_itself(settings, plan, group)
        verdict = gate.first(alone.validation, params.promote, params.title)
        if done := _done(moves):  # the last of which removed the champion
            verdict = gate.after_removal(verdict, done[-1].created_at)
    elif verdict is None and champion is not None:
        outcome = _run_both(
            settings,
            store,
            registry,
            plan,
            params,
            versions,
            group=group,
            challenger=digest,
            champion=champion,
        )
        verdict = gate.check(
            against, outcome.validation, outcome.arrivals.diff, params.promote, params.title
        )
    assert verdict is not None
    title = f"{params.title(group)}: version {challenger.number} against {against}"
    applied = gate.in_words(params.promote)
    document = report.document(title, verdict, applied, outcome, alone)
    if outcome or alone or not _was_compared(store, registry, challenger):
        registry.log_files(challenger, report.files(document, outcome, alone, params.title))
        changes = outcome.arrivals.changes if outcome else ()
        store.comparisons.record(digest, document, changes, now=datetime.now(UTC))
    page = registry.page_of(challenger, report.PAGE)
    return Comparison(
        group=group,
        challenger=digest,
        version=challenger.number,
        champion=champion,
        champion_version=numbers.get(champion) if champion else None,
        passes=verdict.passes,
        reasons=verdict.reasons,
        approval_reason=verdict.approval_reason,
        hours=params.promote.approval_hours,
        gate=applied,
        metrics=_metrics(outcome),
        data_revision=data_revision(checkout(settings, plan)),
        mlflow_run=challenger.run_id,
        text=report.text(document, page, params.title),
        report=page,
        commit=plan.commit,
        warnings=verdict.warnings,
        changed=_changed(outcome, params.title) if outcome else (),
        moves=len(_done(moves)),
    )


def _verdict_beforehand(
    params: Params,
    moves: Sequence[Move],
    challenger: Version,
    champion: str | None,
    versions: Mapping[str, Version],
    against: str,
) -> gate.Verdict | None:
    """Return the verdict where there is nothing to run, None where both have to be run."""
    named = f"version {challenger.number}"
    if champion == challenger.digest:
        return gate.Verdict(False, (f"{named} is the champion already",))
    if (move := _taken_back(moves, challenger.digest)) is not None:
        return gate.Verdict(
            False,
            (
                f"{named} was taken back on {move.created_at:%Y-%m-%d} by {move.by} ({move.why}): "
                "to make it champion all the same, move the alias by hand",
            ),
        )
    if champion is not None and _is_of_another_split(versions.get(champion), params):
        return gate.Verdict(
            False,
            (
                f"{against} was trained with another split.seed or split.validation, so on some "
                "of today's validation pictures: its metrics on them mean nothing; move the alias "
                "by hand, or restore the split",
            ),
        )
    return None


def _was_compared(store: Store, registry: Registry, challenger: Version) -> bool:
    """Tell whether there is a report, such as the one by which the version was promoted."""
    from .report import DOCUMENT

    kept = store.comparisons.get(challenger.digest)
    return kept is not None or registry.read_file(challenger, DOCUMENT) is not None


def _run_both(
    settings: Settings,
    store: Store,
    registry: Registry,
    plan: Plan,
    params: Params,
    versions: Mapping[str, Version],
    *,
    group: str,
    challenger: str,
    champion: str,
) -> SideBySide:
    """Run two bundles, named by their digests, on the same labelled pictures and arrivals."""
    from .side_by_side import side_by_side

    with materialised(settings, plan, "split") as folder:
        return side_by_side(
            params,
            folder,
            challenger=_contender(store, registry, settings.bundles, challenger, versions),
            champion=_contender(store, registry, settings.bundles, champion, versions),
            sample=store.predictions.sample_tagged(champion, params.promote.sample),
            checked=store.predictions.checked(group, params.promote.sample),
            inbox=settings.inbox,
            device=settings.device,
        )


def _contender(
    store: Store, registry: Registry, bundles: Path, digest: str, versions: Mapping[str, Version]
) -> Contender:
    from .moved import trained_on
    from .side_by_side import Contender

    version = versions.get(digest)
    if version is None:
        return Contender(bundle_directory(store, registry, bundles, digest), None)
    raw = registry.read_file(version, OUT_OF_FOLD)
    scores = raw.decode() if raw else None
    seen = trained_on(registry.read_file(version, MOVED), scores)
    return Contender(registry.fetch(version, bundles), scores, seen)


def _changed(outcome: SideBySide, title: Callable[[str], str]) -> tuple[ChangedPicture, ...]:
    """Return the first of the arrivals whose tags change, as many as an approval shows."""
    return tuple(
        ChangedPicture(
            image_id=change.image_id,
            gained=tuple(title(tag) for tag in change.after if tag not in change.before),
            lost=tuple(title(tag) for tag in change.before if tag not in change.after),
        )
        for change in outcome.arrivals.changes[:PICTURES]
    )


def _metrics(outcome: SideBySide | None) -> dict[str, float]:
    """Return the few numbers that Airflow shows of a comparison."""
    metrics: dict[str, float] = {}
    if outcome is None:
        return metrics
    if (macro := outcome.validation.macro_f1) is not None:
        metrics["challenger_macro_f1"] = round(macro.challenger, 4)
        metrics["champion_macro_f1"] = round(macro.champion, 4)
    if (macro := outcome.checked.metrics.macro_f1) is not None:
        metrics["challenger_macro_f1_checked"] = round(macro.challenger, 4)
        metrics["champion_macro_f1_checked"] = round(macro.champion, 4)
    if (share := outcome.arrivals.diff.share) is not None:
        metrics["tags_change"] = round(share, 4)
    return metrics


def overruled_by(moves: Sequence[Move], comparison: Comparison) -> Move | None:
    """Return the last move since a comparison, which has not seen it; None where there is none."""
    if comparison.moves is None:
        return _taken_back(moves, comparison.challenger)
    done = _done(moves)
    return done[-1] if len(done) > comparison.moves else None


def _taken_back(moves: Sequence[Move], digest: str) -> Move | None:
    """Return the move by which a person took a bundle back, if that was its last move."""
    done = [m for m in _done(moves) if digest in (m.from_digest, m.to_digest)]
    last = done[-1] if done else None
    if last is None or last.from_digest != digest or last.kind == "promote":
        return None
    return last


def _done(moves: Sequence[Move]) -> list[Move]:
    return [move for move in moves if move.state == "done"]


def _is_of_another_split(version: Version | None, params: Params) -> bool:
    side = version.tags.get("validation_side") if version else None
    return side is not None and side != validation_side(params)
