"""Versions in store and registry, and their bundles on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from ..config import params
from ..errors import ShoetaggerError
from ..store.store import Store
from ..tracking.registry import Registry, Version, has_intact_bundle


class PromotionError(ShoetaggerError):
    """A version cannot be registered, compared, promoted or rolled back to."""


def validation_side(options: params.Params) -> str:
    """Return how the validation side was drawn, as the value of a version's tag."""
    return f"seed {options.split.seed}, share {options.split.validation}"


def bundle_directory(store: Store, registry: Registry, bundles: Path, digest: str) -> Path:
    """Return the local folder of a bundle, fetched from the registry where it is not whole here.

    `bundles` is the local cache. Raises PromotionError for a bundle that is in neither.
    """
    cached = bundles / digest
    if has_intact_bundle(cached, digest):
        return cached
    known = store.ledger.version_of(digest)
    version = registry.version_with(known.group, digest) if known else None
    if version is None:
        raise PromotionError(
            f"bundle {digest[:12]} is neither in {bundles} nor in the registry at "
            f"{registry.address}: restore the registry, or train and promote again"
        )
    return registry.fetch(version, bundles)


def remember_version(store: Store, version: Version, tags: Sequence[str]) -> None:
    store.ledger.add_version(
        digest=version.digest,
        group=version.group,
        tags=tags,
        registry_name=version.name,
        version=version.number,
        now=datetime.now(UTC),
    )
