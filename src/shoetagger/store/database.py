"""Connections, transactions and migrations, where SQLite and PostgreSQL differ.

On both, one transaction writes at a time: a reader never waits, and what a write transaction reads
stays true until it ends.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InvalidRequestError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
)

from ..config.settings import redacted
from .rows import StoreError, StoreUnavailable

# The revision in `migrations` that this code needs.
REVISION = "0018"
BUSY_SECONDS = 60.0
_WRITER_LOCK = 0x5403_7A66  # an advisory lock of PostgreSQL, the same for all stores
_LOCK_NOT_AVAILABLE = "55P03"  # PostgreSQL's code
_HOLDERS = sa.text(
    "SELECT format('process %s of PostgreSQL (user %s, address %s, %s)',"
    " pid, usename, coalesce(host(client_addr), 'local'), state)"
    " FROM pg_locks JOIN pg_stat_activity USING (pid)"
    " WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = :key"
)
# A turn's connection says nothing for as long as the work takes. These seconds of libpq keep a load
# balancer from cutting it for that, and tell soon where the other side is gone.
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}
_NEVER_TOO_IDLE = sa.text(
    "SELECT set_config(name, '0', false) FROM pg_settings"
    " WHERE name = 'idle_session_timeout'"  # since PostgreSQL 14
)
_PASSING = (OperationalError, sqlite3.OperationalError, psycopg.OperationalError)
_HOW_TO_MIGRATE = "run `shoetagger migrate`"


class Database:
    """The database behind a SQLAlchemy URL; it connects when first used."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._writer = self._engine.execution_options(writes=True)
        self._migrated = False
        self.name = redacted(self._engine.url.render_as_string(hide_password=True))
        self.is_sqlite = self._engine.dialect.name == "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads."""
        with self._as_store_errors(), self._engine.connect() as connection:
            self._check_migrated(connection)
            yield connection

    @contextmanager
    def idle(self) -> Iterator[Callable[[sa.Select[Any]], Any]]:
        """Open a connection of one's own to PostgreSQL, without a transaction, closed at the end.

        Yields what runs a query there and returns its value. It raises StoreUnavailable once the
        connection is lost: what the session held is not held any more then.
        """

        def value(query: sa.Select[Any]) -> Any:
            with self._as_store_errors():
                try:
                    return connection.scalar(query)
                except PendingRollbackError:  # an earlier query has found it lost
                    raise StoreUnavailable(f"store {self.name}: the connection was lost") from None

        with self._as_store_errors():
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            with self._as_store_errors():
                connection.execute(_NEVER_TOO_IDLE)
            yield value
        finally:
            connection.invalidate()  # and so closed: the pool would keep what a session holds
            connection.close()

    def beside(self, suffix: str) -> Path:
        """Return a path beside a SQLite file, of its name with a suffix; StoreError without one."""
        with self._as_store_errors():
            path = Path(self._engine.url.database or "").absolute()
        return path.with_name(path.name + suffix)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open the one transaction that writes; it commits at the end, an exception undoes it."""
        with self._as_store_errors():
            if not self._migrated:
                with self._engine.connect() as connection:
                    self._check_migrated(connection)
            with self._writer.begin() as connection:
                self._wait_for_turn(connection)
                yield connection

    def migrate(self) -> None:
        """Create the tables or upgrade them; safe in several processes at once."""
        # Alembic is needed here alone, and takes time to import.
        from alembic import command
        from alembic.config import Config

        config = Config()
        folder = Path(__file__).parent / "migrations"
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        with self._as_store_errors(missing_is_new=True):
            if self.is_sqlite:
                self._use_write_ahead_log()
            try:
                with self._engine.execution_options(migrates=True).begin() as connection:
                    self._wait_for_turn(connection)
                    found = _revision(connection)
                    if found is not None and not _is_known(found):
                        raise StoreError(_newer(self.name, found))
                    config.attributes["connection"] = connection
                    command.upgrade(config, REVISION)
                    if found != REVISION:
                        self._check_foreign_keys(connection)
            finally:
                self._engine.dispose()  # the next connection follows foreign keys again

    def _check_foreign_keys(self, connection: Connection) -> None:
        """Raise StoreError where a row names one that is not there: nothing is committed then."""
        if not self.is_sqlite:
            return
        if lost := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise StoreError(
                f"store {self.name}: a row of {lost[0]} belongs to one of {lost[2]} that is not "
                "there: the store is damaged and stays as it was; restore a backup of it"
            )

    def is_migrated(self) -> bool:
        """Return whether there are tables, of whatever version; creates no file."""
        if self.is_sqlite and not Path(self._engine.url.database or "").exists():
            return False
        with self._as_store_errors(missing_is_new=True), self._engine.connect() as connection:
            return _revision(connection) is not None

    def close(self) -> None:
        self._engine.dispose()

    def _wait_for_turn(self, connection: Connection) -> None:
        """Serialise writers on PostgreSQL by a lock; SQLite's BEGIN IMMEDIATE has done so.

        Raises StoreUnavailable, which names the other writer, after BUSY_SECONDS.
        """
        if self.is_sqlite:
            return
        limit = sa.func.set_config("lock_timeout", f"{BUSY_SECONDS:.0f}s", True)
        try:
            connection.execute(sa.select(limit, sa.func.pg_advisory_xact_lock(_WRITER_LOCK)))
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
                raise
            with self._engine.connect() as other:
                holders = other.execute(_HOLDERS, {"key": _WRITER_LOCK}).scalars().all()
            raise StoreUnavailable(
                f"store {self.name}: another process has been writing for {BUSY_SECONDS:.0f} "
                f"seconds, through {', '.join(holders) or 'a connection that has just ended'}: "
                "wait for it, or end it with pg_terminate_backend"
            ) from error

    def _use_write_ahead_log(self) -> None:
        """Switch SQLite to WAL, which the file keeps; SQLite does not wait for this by itself."""
        Path(self._engine.url.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        give_up = time.monotonic() + BUSY_SECONDS
        while True:
            connection = self._engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > give_up:
                    raise StoreUnavailable(f"store {self.name}: {error}") from None
                time.sleep(0.05)
            finally:
                connection.close()

    def _check_migrated(self, connection: Connection) -> None:
        if self._migrated:
            return
        found = _revision(connection)
        if found is None:
            raise StoreError(f"store {self.name} has not been migrated: {_HOW_TO_MIGRATE}")
        if found != REVISION:
            if _is_known(found):
                raise StoreError(
                    f"store {self.name} is of an older version ({found}, this code needs "
                    f"{REVISION}): {_HOW_TO_MIGRATE}"
                )
            raise StoreError(_newer(self.name, found))
        self._migrated = True

    @contextmanager
    def _as_store_errors(self, *, missing_is_new: bool = False) -> Iterator[None]:
        file = self._engine.url.database if self.is_sqlite else None
        if file and not missing_is_new and not self._migrated and not Path(file).exists():
            # Checked here, since SQLite would create an empty file.
            raise StoreError(f"store {self.name} has not been migrated: {_HOW_TO_MIGRATE}")
        try:
            yield
        except (DBAPIError, sqlite3.Error, psycopg.Error, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            first_lines = " ".join(str(cause).split("\n")[:2]).strip()
            unavailable = isinstance(error, (*_PASSING, OSError))
            kind = StoreUnavailable if unavailable else StoreError
            raise kind(
                f"store {self.name}: {redacted(first_lines)}{_advice(first_lines)}"
            ) from error


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        backend = parsed.get_backend_name()
        options: dict[str, Any] = {"pool_pre_ping": True} if backend != "sqlite" else {}
        if backend not in ("sqlite", "postgresql") or (
            backend == "sqlite" and parsed.database in (None, "", ":memory:")
        ):
            raise StoreError(
                f"SHOETAGGER_STORE_URL={redacted(parsed.render_as_string())}: the store is a file "
                "(sqlite:////folder/store.db) or a PostgreSQL (postgresql+psycopg://user@host/name)"
            )
        if backend == "sqlite":
            options["connect_args"] = {"timeout": BUSY_SECONDS}
        else:
            options["connect_args"] = {
                name: value for name, value in _KEEPALIVES.items() if name not in parsed.query
            }
        # One encoder: json.dumps would build one per value.
        compact = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        engine = sa.create_engine(parsed, json_serializer=compact.encode, **options)
    except (ArgumentError, NoSuchModuleError, InvalidRequestError) as error:
        raise StoreError(
            f"SHOETAGGER_STORE_URL is no SQLAlchemy URL that can be used: {redacted(str(error))}"
        ) from None
    if backend == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_sqlite(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None  # `_begin_sqlite` begins the transactions
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA secure_delete=ON")  # forgotten data must not stay in free pages
    connection.execute("PRAGMA cache_size=-32768")  # KiB


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins as a reader and then writes does not wait but fails as "locked".
    options = connection.get_execution_options()
    if options.get("migrates"):
        # A table that others refer to can be written anew only so; within one, this does nothing.
        connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
    writes = options.get("writes") or options.get("migrates")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(connection: Connection) -> str | None:
    """Return the revision of the tables; None without tables."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _is_known(revision: str) -> bool:
    folder = Path(__file__).parent / "migrations" / "versions"
    return any(file.name.startswith(f"v{revision}_") for file in folder.glob("v*.py"))


def _newer(name: str, found: str) -> str:
    return (
        f"store {name} is of a newer version ({found}) than this code ({REVISION}): update the "
        "code, or point SHOETAGGER_STORE_URL at another store"
    )


def _advice(cause: str) -> str:
    full = ("database or disk is full", "No space left", "disk I/O error")  # as SQLite calls it
    if any(words in cause for words in full):
        return ": free some space and run it again, nothing was half written"
    if "onnect" in cause:
        return ": start the database, or set SHOETAGGER_STORE_URL"
    if "unable to open" in cause or "readonly" in cause:
        return ": see to the folder's permissions, or set SHOETAGGER_STORE_URL"
    return ""
