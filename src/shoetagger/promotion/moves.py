"""Promote, refuse, roll back, reconcile: the only place where registry and store move together.

A move is a row of the ledger first (`pending`), then the alias, then the row is `done`. Whatever
breaks in between, `reconcile` completes it; an alias that moved without a row was moved by hand
and is recorded as such. A request to move the alias is counted before it is sent: one whose answer
was never seen may arrive after later moves, and is then undone, not taken for a move by hand.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ..errors import ShoetaggerError, TransientError
from ..store.rows import Move, MoveConflict, MoveKind, StoreUnavailable
from ..store.store import Store
from ..tracking.connection import MLflowUnavailable, TrackingError
from ..tracking.registry import CHAMPION, Registry, RegistryError, Version
from .compare import Comparison, overruled_by
from .versions import (
    PromotionError,
    bundle_directory,
    remember_version,
)

logger = logging.getLogger(__name__)


class Decision(BaseModel, frozen=True, extra="forbid"):
    """What the person who was asked decided about a comparison."""

    approved: bool
    by: str
    why: str


def promote(
    store: Store,
    registry: Registry,
    comparison: Comparison,
    decision: Decision | None,
    *,
    by: str,
) -> None:
    """Make a challenger champion, in ledger, registry and store.

    It must have passed the gate and, where the comparison asks for it, been approved: `decision`
    is None where nobody was asked. Raises PromotionError where one of the two is missing, and
    MoveConflict where the champion has moved since the comparison, even if it is back by now.
    """
    group = comparison.group
    named = f"{group} version {comparison.version}"
    if not comparison.passes:
        raise PromotionError(f"{named} did not pass the gate: {'; '.join(comparison.reasons)}")
    if comparison.approval_reason and decision is None:
        raise PromotionError(f"{named} was not approved by anybody: {comparison.approval_reason}")
    if decision is not None and not decision.approved:
        raise PromotionError(f"{named} was rejected by {decision.by}: {decision.why}")
    why = "; ".join(comparison.reasons)
    if comparison.gate:
        why += f" (gate: {comparison.gate})"
    if decision is not None:
        by = f"{decision.by}, asked by {by}"
        why = f"approved ({decision.why or 'no reason given'}); {why}"
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
            "the training again, which compares again"
        )
    if (since := overruled_by(store.ledger.history(group), comparison)) is not None:
        raise MoveConflict(
            f"{named} was compared before the {since.kind} of {since.created_at:%Y-%m-%d} by "
            f"{since.by} ({since.why}): run the training again, which compares again"
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
    _carry_out(store, registry, group, move, comparison.challenger)
    logger.info("%s is the champion", named)


def refuse(store: Store, comparison: Comparison, decision: Decision) -> None:
    """Write into the ledger who refused a challenger, and why; nothing moves."""
    store.ledger.refuse(
        comparison.group,
        comparison.challenger,
        by=decision.by,
        why=f"rejected ({decision.why or 'no reason given'})",
        data_revision=comparison.data_revision,
        mlflow_run=comparison.mlflow_run,
    )


def rollback(
    store: Store,
    registry: Registry,
    group: str,
    *,
    bundles: Path,
    to: str | None,
    by: str,
    why: str,
) -> str:
    """Move a group back to an earlier version and return its number; runs no model.

    `to` is a version's number; None is the live one's predecessor. A move that is pending is
    cancelled: it has shown nobody anything yet, so it is not what is to be taken back. `bundles` is
    the local cache. Raises PromotionError that says which versions there are.
    """
    chain = store.ledger.chain(group)
    if not chain:
        raise PromotionError(f"group {group} has no champion: there is nothing to roll back")
    numbers = {v.digest: v.version or "?" for v in store.ledger.versions(group)}
    digest = _target(group, chain, numbers, store.ledger.history(group), to)
    version = registry.version_with(group, digest)
    if version is None:
        raise PromotionError(
            f"group {group}: version {numbers[digest]} left the registry at {registry.address}: "
            "restore it there, or name another with --to"
        )
    try:
        bundle_directory(store, registry, bundles, digest)
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
        supersede=True,
        **_origin(version),
    )
    _carry_out(store, registry, group, move, digest)
    return numbers[digest]


def _target(
    group: str,
    chain: Sequence[str],
    numbers: Mapping[str, str],
    history: Sequence[Move],
    to: str | None,
) -> str:
    """Return the digest of the bundle to roll back to, given the live chain, latest first.

    Only what was live before: anything else has not passed the gate, or was refused by a person.
    """
    if to is None:
        if len(chain) < 2:
            raise PromotionError(
                f"group {group} has had no version before {numbers[chain[0]]}: "
                "there is none to roll back to"
            )
        return chain[1]
    digest = next((digest for digest, number in numbers.items() if number == to), None)
    if digest is None:
        raise PromotionError(
            f"group {group} has no version {to}: the versions are {', '.join(numbers.values())}"
        )
    if digest == chain[0]:
        raise PromotionError(f"group {group}: version {to} is live already")
    was_live = {move.to_digest for move in history if move.state == "done"}
    if digest not in was_live:
        named = ", ".join(number for known, number in numbers.items() if known in was_live)
        raise PromotionError(
            f"group {group}: version {to} was never live, so there is no rolling back to it: the "
            f"versions that were live are {named}"
        )
    return digest


def reconcile(
    store: Store, registry: Registry, groups: Sequence[str], *, bundles: Path
) -> dict[str, str]:
    """Complete moves that were left pending, and record aliases that were moved by hand.

    A group whose registry is unreachable or inconsistent keeps what the store calls live, and a
    warning says so. Returns, for each group whose registry is inconsistent, what a person must
    mend. `bundles` is the local cache. Raises StoreUnavailable.
    """
    faults: dict[str, str] = {}
    for group in groups:
        try:
            _complete_pending(store, registry, group)
            _undo_late_request(store, registry, group)
            _accept_by_hand(store, registry, group, bundles)
        except StoreUnavailable:
            raise
        except (ShoetaggerError, OSError) as error:
            logger.warning("%s: going on with what the store calls live: %s", group, error)
            # An outage passes by itself, and who moves it at this moment completes that.
            if not isinstance(error, TransientError | MoveConflict):
                faults[group] = str(error)
    return faults


def _complete_pending(store: Store, registry: Registry, group: str) -> None:
    for move in store.ledger.pending():
        if move.group != group:
            continue
        if move.to_digest and registry.version_with(group, move.to_digest) is None:
            store.ledger.cancel(move.id)
            logger.warning("%s: gave up move %d: its version left the registry", group, move.id)
            continue
        _carry_out(store, registry, group, move.id, move.to_digest)
        logger.warning("%s: completed the pending %s to %s", group, move.kind, move.to_digest)


def _carry_out(
    store: Store, registry: Registry, group: str, move_id: int, digest: str | None
) -> None:
    """Move the alias, then let the pending move count.

    Others may complete or cancel it at any time, while the request is on its way: then it must not
    have the last word. Raises MoveConflict where the move was cancelled.
    """
    if store.ledger.request(move_id):
        _point(registry, group, digest)
        store.ledger.answer(move_id)
    move = next(move for move in store.ledger.history(group) if move.id == move_id)
    if move.state == "pending":
        store.ledger.finish(move_id)
    _undo_late_request(store, registry, group)
    if move.state == "cancelled":
        raise MoveConflict(
            f"group {group}: the {move.kind} was cancelled meanwhile, by a rollback: see "
            "`shoetagger history`"
        )


def _undo_late_request(store: Store, registry: Registry, group: str) -> None:
    """Put back an alias that a request for an earlier move reached after later moves."""
    if any(move.group == group for move in store.ledger.pending()):
        return  # whoever completes that one moves the alias
    live = store.ledger.live().get(group)
    version = registry.by_alias(group, CHAMPION)
    named = version.digest if version else None
    if named == live or not store.ledger.take_late_request(group, named):
        return
    done = [move for move in store.ledger.history(group) if move.state == "done"]
    if done and not store.ledger.request(done[-1].id):
        return  # moved again meanwhile
    _point(registry, group, live)
    if done:
        store.ledger.answer(done[-1].id)
    logger.warning(
        "%s: a request for version %s came late, after later moves: the alias %s is back at what "
        "is live; whoever did move it by hand moves it once more",
        group,
        version.number if version else "none",
        CHAMPION,
    )


def _point(registry: Registry, group: str, digest: str | None) -> None:
    """Point the alias to the bundle's version; None removes the alias."""
    if digest is None:
        registry.drop_alias(group, CHAMPION)
        return
    version = registry.version_with(group, digest)
    if version is None:
        raise PromotionError(f"{group}: the registry has no version of bundle {digest[:12]}")
    registry.set_alias(group, CHAMPION, version.number)


def _origin(version: Version | None) -> dict[str, Any]:
    """Return the origin of a version, for its row of the ledger."""
    if version is None:
        return {"data_revision": None, "mlflow_run": None}
    return {"data_revision": version.tags.get("data_revision"), "mlflow_run": version.run_id}


def _accept_by_hand(store: Store, registry: Registry, group: str, bundles: Path) -> None:
    """Make the store follow an alias that no move of the ledger explains."""
    from ..inference.bundle import load_bundle

    before = store.ledger.live().get(group)
    version = registry.by_alias(group, CHAMPION)
    named = version.digest if version else None
    if named == before:
        return
    if version is not None:
        try:
            bundle = load_bundle(registry.fetch(version, bundles))
        except MLflowUnavailable as error:  # it has just answered: the files are gone
            raise PromotionError(
                f"the files of version {version.number}, which the alias {CHAMPION} names, cannot "
                f"be had: restore them, or move the alias ({error})"
            ) from error
        if bundle.group != group:
            raise PromotionError(
                f"the alias {CHAMPION} names version {version.number} of {version.name}, "
                f"whose bundle is one of group {bundle.group}: point it to a version that was "
                f"trained for {group}"
            )
        remember_version(store, version, bundle.tags)
    elif before is not None and registry.version_with(group, before) is None:
        logger.warning(
            "%s: the registry at %s does not know the live version; is it the right one? "
            "Going on with what the store calls live",
            group,
            registry.address,
        )
        return
    kind: MoveKind = "remove" if version is None else "manual"
    why = f"the alias {CHAMPION} was moved by hand in the registry"
    if any(move.group == group for move in store.ledger.pending()):
        return  # the alias is that of a promotion under way, not one moved by hand
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
        return  # a promotion came in between: the next run sees its result
    store.ledger.finish(move)
    logger.warning("%s: the alias was moved by hand, and that is accepted: %s", group, kind)
