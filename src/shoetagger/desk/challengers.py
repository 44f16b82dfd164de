"""What challengers would change: their comparisons with the champion, picture by picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..store.rows import BundleVersion, TagChange
from ..store.store import Store


@dataclass(frozen=True)
class Challenger:
    """A version that was compared; `document` is what the report has."""

    group: str
    version: str
    compared_at: datetime
    document: Mapping[str, Any]
    changes: Sequence[TagChange]


def challengers(store: Store) -> list[tuple[BundleVersion, datetime]]:
    """Return the versions whose comparisons are kept, the latest first."""
    versions = {version.digest: version for version in store.ledger.versions()}
    return [(versions[d], at) for d, at in store.comparisons.latest() if d in versions]


def challenger(store: Store, group: str, number: str) -> Challenger | None:
    """Return what was found of a group's version; None where no comparison of it is kept."""
    for version in store.ledger.versions(group):
        if version.version == number and (kept := store.comparisons.get(version.digest)):
            return Challenger(group, number, kept.created_at, kept.document, kept.changes)
    return None
