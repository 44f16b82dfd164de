"""PostgreSQL's own tools: a whole database to a file and back."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL

from .rows import StoreError, StoreUnavailable

_POLL_SECONDS = 0.5
_SERVICE = "shoetagger"
_HOLDERS = sa.text(
    "SELECT format('%s (user %s, %s)', a.pid, a.usename, a.application_name)"
    " FROM pg_stat_activity a WHERE a.pid IN (SELECT unnest(pg_blocking_pids(b.pid))"
    " FROM pg_stat_activity b WHERE b.application_name = :name) ORDER BY a.pid"
)


def dump(url: URL, out: Path) -> None:
    """Write the database as of one moment to `out`; raises StoreError."""
    _run("pg_dump", url, ["--format=custom", "--no-owner", f"--file={out}"])


def load(url: URL, dumped: Path, *, busy_seconds: float) -> None:
    """Replace the database's contents by a dump, in one transaction: whole or not at all.

    Raises StoreUnavailable if the locks of others block it for `busy_seconds`, and StoreError.
    """
    name = f"shoetagger-{uuid.uuid4().hex[:12]}"
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"))
    blocked_since: float | None = None

    def watch() -> None:
        # pg_restore has no limit of its own, and overrides PostgreSQL's lock_timeout.
        nonlocal blocked_since
        with engine.connect() as connection:
            holders = connection.execute(_HOLDERS, {"name": name}).scalars().all()
        if not holders:
            blocked_since = None
            return
        blocked_since = blocked_since or time.monotonic()
        if time.monotonic() - blocked_since > busy_seconds:
            raise StoreUnavailable(
                f"the store has been in use for {busy_seconds:.0f} seconds, by these processes of "
                f"PostgreSQL: {', '.join(holders)}; end what they belong to, and run this again"
            )

    options = ["--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error"]
    try:
        _run("pg_restore", url, [*options, str(dumped)], {"PGAPPNAME": name}, watch)
    except sa.exc.DBAPIError as error:
        raise StoreError(f"pg_restore was ended: {error.orig}") from error
    finally:
        engine.dispose()


def _run(
    tool: str,
    url: URL,
    arguments: list[str],
    variables: Mapping[str, str] | None = None,
    watch: Callable[[], None] | None = None,
) -> None:
    """Run a tool to its end, calling `watch` meanwhile; if that raises, the tool is ended."""
    with TemporaryDirectory(prefix="shoetagger.") as folder:
        environment = os.environ | _connection(url, Path(folder)) | dict(variables or {})
        with (Path(folder) / "errors").open("w+", errors="replace") as errors:
            command = [_program(tool), f"--dbname=service={_SERVICE}", *arguments]
            process = subprocess.Popen(command, env=environment, stderr=errors)
            try:
                while _is_running(process):
                    if watch is not None:
                        watch()
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                errors.seek(0)
                lines = [line.strip() for line in errors if line.strip()]
                raise StoreError(f"{tool} failed: {lines[-1] if lines else 'it gave no reason'}")


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _connection(url: URL, folder: Path) -> dict[str, str]:
    """Return variables that connect libpq to a database; others cannot read what they name.

    A URL may hold secrets in its query, too, and everybody can read a command line.
    """
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    _, given = url.set(drivername="postgresql+psycopg").get_dialect()().create_connect_args(url)
    options = {name: str(value) for name, value in given.items() if name in known}
    password = options.pop("password", None)
    if any("\n" in value for value in options.values()):
        raise StoreError("SHOETAGGER_STORE_URL has a line break in it: remove it")
    service = folder / "service"
    service.touch(mode=0o600)
    lines = [f"[{_SERVICE}]", *(f"{name}={value}" for name, value in options.items())]
    service.write_text("\n".join(lines) + "\n", encoding="utf-8")
    variables = {"PGSERVICEFILE": str(service)}
    # A service file would strip spaces from its end.
    return variables if password is None else variables | {"PGPASSWORD": password}


def _program(tool: str) -> str:
    """Return the path of a tool; raises StoreError where it is not installed."""
    found = _find(tool)
    if found is None:
        raise StoreError(
            f"no {tool} on this machine: install PostgreSQL's client (apt-get install "
            "postgresql-client), or back the database up where it runs"
        )
    return found


def _find(tool: str) -> str | None:
    """Return a tool on the path, or where Debian keeps those of a server; None without either."""
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{tool}"))
    return shutil.which(tool) or (str(beside[-1]) if beside else None)
