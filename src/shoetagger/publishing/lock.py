"""The publishers' turn: one at a time, wherever they run."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

from ..store.store import Store
from ..store.turns import Check

log = logging.getLogger(__name__)


def alone(store: Store) -> AbstractContextManager[Check]:
    """Be the only publisher of a store, waiting for another one; the turn of a killed one ends.

    Yields a check that raises StoreUnavailable where the turn was lost meanwhile.
    """
    return store.turns.alone(
        "publishing", lambda: log.info("another publisher is at work: waiting")
    )
