"""What a run pins, and what it says where it cannot begin."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from shoetagger.store.rows import StoreError
from shoetagger.store.store import Store
from shoetagger.tagging.pins import pin
from shoetagger.tracking.registry import Registry


def test_a_store_that_was_never_migrated_is_told_once_and_no_registry_is_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = cast(Registry, None)
    with (
        Store(f"sqlite:///{tmp_path / 'store.db'}") as store,
        pytest.raises(StoreError, match="`shoetagger migrate`"),
    ):
        pin(store, registry, ["color", "style"], bundles=tmp_path)
    assert caplog.messages == []
