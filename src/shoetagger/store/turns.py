"""Turns: work that one process at a time does, on whichever machine, beside all writers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from filelock import FileLock, Timeout

from .database import Database
from .rows import StoreError, StoreUnavailable

Check = Callable[[], None]  # raises StoreUnavailable where the turn was lost


class Turns:
    """Turns by name; the turn of a process that is killed ends with its connection or file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def alone(self, name: str, waiting: Callable[[], None]) -> Iterator[Check]:
        """Have the turn of this name within the block; call `waiting` where another has it.

        A turn is lost with its connection, and another process may have it from then on. So what
        only one may do is done after a call of the check that this yields.

        On PostgreSQL it is an advisory lock of a connection that does nothing else. What uses a
        SQLite file shares a disk: there it is a file beside that one, since SQLite's own lock would
        keep all writers out meanwhile.
        """
        turn = self._by_file if self._database.is_sqlite else self._by_connection
        with turn(name, waiting) as check:
            yield check

    @contextmanager
    def _by_file(self, name: str, waiting: Callable[[], None]) -> Iterator[Check]:
        lock = FileLock(self._database.beside(f".{name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield lambda: None  # a file stays locked until its process ends
        finally:
            lock.release()

    @contextmanager
    def _by_connection(self, name: str, waiting: Callable[[], None]) -> Iterator[Check]:
        key = zlib.crc32(name.encode())
        with self._database.idle() as value:

            def check() -> None:
                try:
                    value(sa.select(1))
                except StoreUnavailable as error:
                    raise StoreUnavailable(
                        f"the turn of {name} was lost with its connection, and another process may "
                        f"have it: run it again ({error})"
                    ) from error

            if not value(sa.select(sa.func.pg_try_advisory_lock(key))):
                waiting()
                value(sa.select(sa.func.pg_advisory_lock(key)))
            yield check
            # After an error it ends with the session. A lost one has ended, and the work is done.
            with suppress(StoreError):
                value(sa.select(sa.func.pg_advisory_unlock(key)))
