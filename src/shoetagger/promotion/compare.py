"""Compares a challenger with the champion and applies the gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..config import params
from ..config.settings import Settings
from ..pipeline.checkout import checkout
from ..pipeline.dvc_files import data_revision
from ..pipeline.plan import Plan, params_of
from ..pipeline.repro import materialised
from ..store.rows import Move
from ..store.store import Store
from ..tracking.registry import Registry, Version
from . import gate
from .versions import PromotionError, bundle_directory, find_version, open_registry, validation_side

if TYPE_CHECKING:
    from .side_by_side import Trial


OUT_OF_FOLD = "out_of_fold.csv"  # among a version's files in its run


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


def compare(settings: Settings, plan: Plan, group: str, digest: str) -> Comparison:
    """Judge a challenger and the live champion by the same pictures, and gate it.

    Judged are pictures whose hash puts them on the validation side: neither version trained on
    them, as long as both were split by one seed and share, which is checked. The report goes into
    the challenger's MLflow run. Without a champion the challenger passes.
    """
    from . import report

    options = params_of(settings.repo, plan)
    registry = open_registry(settings)
    with Store(settings.store_url) as store:
        champion = store.ledger.live().get(group)
        numbers = {v.digest: v.version or "?" for v in store.ledger.versions(group)}
        moves = store.ledger.history(group)
    version = find_version(registry, group, digest)
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
        data_revision=data_revision(checkout(settings, plan)),
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
    plan: Plan,
    options: params.Params,
    registry: Registry,
    challenger: Version,
    champion: str,
) -> Trial:
    from . import side_by_side

    def taking_part(digest: str, version: Version | None) -> side_by_side.Side:
        scores = registry.read_file(version, OUT_OF_FOLD) if version else None
        return side_by_side.Side(
            bundle_directory(settings, digest), scores.decode() if scores else None
        )

    live = find_version(registry, challenger.group, champion)
    with materialised(settings, plan, "split") as checkout:
        return side_by_side.hold(
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


def _split_otherwise(settings: Settings, group: str, champion: str, options: params.Params) -> bool:
    version = find_version(open_registry(settings), group, champion)
    side = version.tags.get("validation_side") if version else None
    return side is not None and side != validation_side(options)
