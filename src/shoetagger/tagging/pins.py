"""What a tagging run pins: the live bundle of every group that can be tagged with."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ShoetaggerError, TransientError
from ..logfmt import event
from ..store.rows import StoreUnavailable
from ..store.store import Store

if TYPE_CHECKING:
    from ..tracking.registry import Registry

logger = logging.getLogger(__name__)


class TaggingError(ShoetaggerError):
    """A tagging run cannot begin or cannot go on."""


class TransientTaggingError(TaggingError, TransientError):
    """No bundle can be had at the moment: another attempt may succeed."""


@dataclass
class Pins:
    """The pinned bundles, and the groups that a run does without."""

    digests: dict[str, str] = field(default_factory=dict)  # group -> bundle digest
    versions: dict[str, str] = field(default_factory=dict)  # group -> version in the registry
    left_out: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)  # what a person must mend

    def leave_out(self, group: str, reason: str) -> None:
        self.left_out.append(group)
        logger.warning(event("left_out", group=group, reason=reason))


def pin(store: Store, registry: Registry, groups: Sequence[str], *, bundles: Path) -> Pins:
    """Complete pending promotions, then pin the bundle of each group that the store calls live.

    `bundles` is the local cache of bundles. With MLflow down, the bundles in the cache are pinned.
    A group without a champion is left out; so is one whose bundle cannot be had, with an alert:
    the others are tagged all the same. Raises TaggingError where that leaves no group.
    """
    from ..promotion.moves import reconcile

    store.ledger.live()  # where the store cannot be used, say so once, and not for each group
    faults = reconcile(store, registry, groups, bundles=bundles)
    live = store.ledger.live()
    numbers = {version.digest: version.version or "?" for version in store.ledger.versions()}
    pins = Pins()
    errors: list[Exception] = []
    for group in groups:
        meanwhile = "it is not tagged"
        if (digest := live.get(group)) is None:
            pins.leave_out(group, "it has no champion yet")
        elif (error := _fault_of(store, registry, bundles, group, digest)) is not None:
            errors.append(error)
            pins.leave_out(group, str(error))
            pins.alerts.append(f"{group}: left out of this run: {error}")
        else:
            pins.digests[group], pins.versions[group] = digest, numbers.get(digest, "?")
            meanwhile = f"version {pins.versions[group]} tags"
        if group in faults:
            pins.alerts.append(f"{group}: {faults[group]}; until then {meanwhile}")
    if not pins.digests:
        raise _no_pins(pins, errors)
    return pins


def _fault_of(
    store: Store, registry: Registry, bundles: Path, group: str, digest: str
) -> Exception | None:
    """Return why a bundle cannot be pinned; None for one that is whole and the group's own."""
    from ..inference.bundle import load_bundle
    from ..promotion.versions import bundle_directory

    try:
        bundle = load_bundle(bundle_directory(store, registry, bundles, digest))
        if bundle.transform.detector is not None:
            bundle.transform.detector.check()
    except StoreUnavailable:
        raise
    except (ShoetaggerError, OSError) as error:
        return error
    if bundle.group == group:
        return None
    return TaggingError(
        f"its live bundle {digest[:12]} is one of group {bundle.group}: roll back with "
        f"`shoetagger rollback {group}`, or promote another version"
    )


def _no_pins(pins: Pins, errors: Sequence[Exception]) -> TaggingError:
    if not pins.alerts:
        return TaggingError(
            f"no champion yet for {', '.join(pins.left_out)}: train first (`make up`, then trigger "
            "train_tag_models), then tag"
        )
    passing = any(isinstance(error, TransientError | OSError) for error in errors)
    kind = TransientTaggingError if passing else TaggingError
    return kind(f"no group can be tagged: {'; '.join(pins.alerts)}")
