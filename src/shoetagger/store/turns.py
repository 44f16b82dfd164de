"""Turns: work that one process at a time does, on whichever machine, beside all writers."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy.exc import DBAPIError

from .database import Database


class Turns:
    """Turns by name; the turn of a process that is killed ends with its connection or file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def alone(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Have the turn of this name within the block; call `waiting` where another has it.

        On PostgreSQL it is an advisory lock of a connection that does nothing else. What uses a
        SQLite file shares a disk: there it is a file beside that one, since SQLite's own lock would
        keep all writers out meanwhile.
        """
        turn = self._by_file if self._database.is_sqlite else self._by_connection
        with turn(name, waiting):
            yield

    @contextmanager
    def _by_file(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        lock = FileLock(self._database.beside(f".{name}.lock"))
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _by_connection(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        key = zlib.crc32(name.encode())
        with self._database.idle() as connection:
            if not connection.scalar(sa.select(sa.func.pg_try_advisory_lock(key))):
                waiting()
                connection.execute(sa.select(sa.func.pg_advisory_lock(key)))
            try:
                yield
            finally:
                with suppress(DBAPIError):  # a connection that is lost has no lock any more
                    connection.execute(sa.select(sa.func.pg_advisory_unlock(key)))
