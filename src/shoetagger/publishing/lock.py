"""The publishers' turn: one at a time, wherever they run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..store.store import Store
from ..store.turns import Check

log = logging.getLogger(__name__)


@contextmanager
def alone(store: Store) -> Iterator[Check]:
    """Be the only publisher of a store, waiting for another one; the turn of a killed one ends.

    Yields a check that raises StoreUnavailable where the turn was lost meanwhile.
    """

    def waiting() -> None:
        log.info("another publisher is at work: waiting")

    with store.turns.alone("publishing", waiting) as check:
        yield check
