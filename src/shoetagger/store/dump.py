"""Dumps: whole databases to a file and back.

A database is dumped while others use it. MLflow's embedded database, also a SQLite file, is dumped
in the same way.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import make_url

from . import postgres
from .rows import StoreError, StoreUnavailable

_BUSY_SECONDS = 60.0
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def backend(url: str) -> str:
    """Return the kind of a URL's database: `sqlite` or `postgresql`."""
    return make_url(url).get_backend_name()


def sqlite_file(url: str) -> Path:
    """Return the file of a SQLite database."""
    return Path(make_url(url).database or "").absolute()


def dump(url: str, out: Path) -> None:
    """Write the database as of one moment to `out`; raises StoreError where that fails."""
    if backend(url) == "postgresql":
        postgres.dump(make_url(url), out)
        return
    source = sqlite_file(url)
    if not source.is_file():
        raise StoreError(f"no database {source}: nothing to back up; run `shoetagger migrate`")
    _copy(source, out)
    check(out, source)


def load(url: str, dumped: Path) -> None:
    """Replace the contents of a PostgreSQL by a dump, in one transaction; raises StoreError."""
    postgres.load(make_url(url), dumped, busy_seconds=_BUSY_SECONDS)


def check(file: Path, name: Path | str) -> None:
    """Raise StoreError, which calls it `name`, for a file that is no intact SQLite database."""
    try:
        with closing(sqlite3.connect(file)) as database:
            faults = [str(row[0]) for row in database.execute("PRAGMA quick_check(1)")]
    except sqlite3.DatabaseError as error:
        faults = [str(error)]
    if faults != ["ok"]:
        raise StoreError(f"the database {name} is damaged ({faults[0]}): restore a backup of it")


def require_unused(file: Path, seconds: float) -> None:
    """Wait until nobody else has a SQLite database open, and merge its write-ahead log into it.

    Raises StoreUnavailable after `seconds`. A damaged database passes: nobody can work with it. An
    idle connection to a database that is not in WAL mode goes unnoticed.
    """
    if not file.exists():
        return
    try:
        with closing(sqlite3.connect(file, timeout=seconds, isolation_level=None)) as database:
            # In this mode, WAL or not, the transaction needs a lock that excludes readers, too.
            database.execute("PRAGMA locking_mode=EXCLUSIVE")
            database.execute("BEGIN EXCLUSIVE")
            database.execute("COMMIT")
    except sqlite3.DatabaseError as error:
        if _primary_code(error) in _BUSY:
            raise StoreUnavailable(f"the database {file} is in use") from None


def _primary_code(error: sqlite3.Error) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF


def _copy(source: Path, target: Path) -> None:
    """Copy by SQLite's online backup, which is consistent beside writers.

    It would try for ever where a process keeps the source locked: after _BUSY_SECONDS, this raises
    StoreUnavailable.
    """

    def give_up_when_locked(status: int, _remaining: int, _total: int) -> None:
        if status in _BUSY:
            raise StoreUnavailable(
                f"the database {source} has been locked for {_BUSY_SECONDS:.0f} seconds: end the "
                "process that holds it, and run this again"
            )

    try:
        with (
            closing(sqlite3.connect(source, timeout=_BUSY_SECONDS)) as one,
            closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as other,
        ):
            one.backup(other, progress=give_up_when_locked)
    except sqlite3.Error as error:
        raise StoreError(f"cannot copy {source} to {target}: {error}") from error
