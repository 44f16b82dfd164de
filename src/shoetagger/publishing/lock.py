"""The lock of the published folder: one process at a time writes there."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def alone(published: Path) -> Iterator[None]:
    """Hold the folder's lock, waiting for another publisher; the lock of a killed one is free."""
    lock = FileLock(published / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        log.info("another publisher is at work in %s: waiting for it", published)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
