"""The publishers' turn: one at a time, wherever they run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..store.store import Store

log = logging.getLogger(__name__)


@contextmanager
def alone(store: Store) -> Iterator[None]:
    """Be the only publisher of a store, waiting for another one; the turn of a killed one ends."""
    with store.turns.alone("publishing", lambda: log.info("another publisher is at work: waiting")):
        yield
