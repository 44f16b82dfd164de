"""Compare, gate, promote, roll back: the only place where registry and store move together.

A move is a row of the ledger first (`pending`), then the alias, then the row is `done`. Whatever
breaks in between, `reconcile` completes it; an alias that moved without a row was moved by hand
and is written down as such.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..config.settings import Settings, without_password
from ..store.rows import MoveConflict, MoveKind
from ..store.store import Store
from ..tracking.connection import TrackingError
from ..tracking.registry import CHAMPION, Registry, RegistryError, Version
from .compare import Comparison
from .versions import (
    PromotionError,
    bundle_directory,
    find_version,
    open_registry,
    remember_version,
)

logger = logging.getLogger(__name__)


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
    registry = open_registry(settings)
    with Store(settings.store_url) as store:
        # Idempotent: a retry of the task finds its own move done, or pending.
        _complete_pending(store, registry, group)
        live = store.ledger.live().get(group)
        if live == comparison.challenger:
            return
        if live != comparison.champion:
            numbers = {v.digest: f"version {v.version}" for v in store.ledger.versions(group)}
            raise MoveConflict(
                f"{named} was compared with {numbers.get(comparison.champion or '', 'none')}, but "
                f"{numbers.get(live or '', 'none')} is the champion now: it moved meanwhile; run "
                "the training again, which compares anew"
            )
        move = store.ledger.begin(
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
        store.ledger.finish(move)
    logger.info("%s is the champion", named)


def refuse(settings: Settings, comparison: Comparison, decision: Decision) -> None:
    """Write into the ledger who refused a challenger, and why; nothing moves."""
    with Store(settings.store_url) as store:
        store.ledger.refuse(
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
    registry = open_registry(settings)
    with Store(settings.store_url) as store:
        _complete_pending(store, registry, group)
        chain = store.ledger.chain(group)
        if not chain:
            raise PromotionError(f"group {group} has no champion: there is nothing to roll back")
        known = {v.digest: v for v in store.ledger.versions(group)}
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
        version = find_version(registry, group, digest)
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
        move = store.ledger.begin(
            group,
            digest,
            kind="rollback",
            by=by,
            why=why,
            expect_from=chain[0],
            **_origin(version),
        )
        _point(registry, group, digest)
        store.ledger.finish(move)
        return known[digest].version or "?"


def reconcile(settings: Settings, store: Store, groups: Sequence[str]) -> None:
    """Complete moves that were left pending, and write down aliases that were moved by hand.

    A group whose registry is away, or says what cannot be, is left with what the store calls live,
    and a warning says so.
    """
    for group in groups:
        try:
            registry = open_registry(settings)
            _complete_pending(store, registry, group)
            _accept_by_hand(settings, store, registry, group)
        except (RegistryError, TrackingError) as error:
            logger.warning("%s: going on with what the store calls live: %s", group, error)


def _complete_pending(store: Store, registry: Registry, group: str) -> None:
    for move in store.ledger.pending():
        if move.group != group:
            continue
        if move.to_digest and find_version(registry, group, move.to_digest) is None:
            store.ledger.cancel(move.id)
            logger.warning("%s: gave up move %d: its version left the registry", group, move.id)
            continue
        _point(registry, group, move.to_digest)
        store.ledger.finish(move.id)
        logger.warning("%s: completed the pending %s to %s", group, move.kind, move.to_digest)


def _point(registry: Registry, group: str, digest: str | None) -> None:
    """Let the alias name the bundle's version; None takes the alias away."""
    if digest is None:
        registry.drop_alias(group, CHAMPION)
        return
    version = find_version(registry, group, digest)
    if version is None:
        raise PromotionError(f"{group}: the registry has no version of bundle {digest[:12]}")
    registry.set_alias(group, CHAMPION, version.number)


def _origin(version: Version | None) -> dict[str, Any]:
    """Return where a version comes from, for its row of the ledger."""
    if version is None:
        return {"data_revision": None, "mlflow_run": None}
    return {"data_revision": version.tags.get("data_revision"), "mlflow_run": version.run_id}


def _accept_by_hand(settings: Settings, store: Store, registry: Registry, group: str) -> None:
    """Let the store follow an alias that no move of the ledger explains."""
    from ..inference.bundle import load_bundle

    before = store.ledger.live().get(group)
    version = registry.by_alias(group, CHAMPION)
    named = version.digest if version else None
    if named == before:
        return
    if version is not None:
        bundle = load_bundle(registry.fetch(version, settings.bundles))
        remember_version(store, version, bundle.tags)
    elif before is not None and find_version(registry, group, before) is None:
        logger.warning(
            "%s: the registry at %s does not know the live version; is it the right one? "
            "Going on with what the store calls live",
            group,
            without_password(settings.tracking_uri),
        )
        return
    kind: MoveKind = "remove" if version is None else "manual"
    why = f"the alias {CHAMPION} was moved by hand in the registry"
    if any(move.group == group for move in store.ledger.pending()):
        return  # a promotion is under way, and its alias is not one moved by hand
    try:
        move = store.ledger.begin(
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
    store.ledger.finish(move)
    logger.warning("%s: the alias was moved by hand, and that is accepted: %s", group, kind)
