"""Whole databases to a file and back, beside others who use them.

MLflow's embedded database is a SQLite file as well, and is copied alike.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL, make_url

from .rows import StoreError

_BUSY_SECONDS = 60.0


def backend(url: str) -> str:
    """Return `sqlite` or `postgresql`."""
    return make_url(url).get_backend_name()


def dump(url: str, out: Path) -> None:
    """Write the database as of one moment to `out`; raises StoreError."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        _postgres("pg_dump", parsed, "--format=custom", "--no-owner", f"--file={out}")
        return
    source = _file(parsed)
    if not source.is_file():
        raise StoreError(f"no database {source}: nothing to back up; run `shoetagger migrate`")
    _copy(source, out)


def load(url: str, dumped: Path) -> None:
    """Put a dumped database in the place of the one there, all or nothing; raises StoreError."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        options = ["--clean", "--if-exists", "--no-owner", "--single-transaction"]
        _postgres("pg_restore", parsed, *options, "--exit-on-error", str(dumped))
        return
    target = _file(parsed)
    target.parent.mkdir(parents=True, exist_ok=True)
    _copy(dumped, target)


def _file(url: URL) -> Path:
    return Path(url.database or "").absolute()


def _copy(source: Path, target: Path) -> None:
    """SQLite's own online backup: a consistent copy beside writers, and all or nothing."""
    try:
        with (
            closing(sqlite3.connect(source, timeout=_BUSY_SECONDS)) as one,
            closing(sqlite3.connect(target, timeout=_BUSY_SECONDS)) as other,
        ):
            one.backup(other)
    except sqlite3.Error as error:
        raise StoreError(f"cannot copy {source} to {target}: {error}") from error


def _postgres(tool: str, url: URL, *arguments: str) -> None:
    program = _find(tool)
    if program is None:
        raise StoreError(
            f"no {tool} on this machine: install PostgreSQL's client (apt-get install "
            "postgresql-client), or back the database up where it runs"
        )
    # The password goes by the environment: a command line can be read by everybody.
    place = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = dict(os.environ)
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    done = subprocess.run(
        [program, f"--dbname={place}", *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise StoreError(f"{tool} failed: {_last_line(done.stderr.splitlines())}")


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")


def _find(tool: str) -> str | None:
    """Where Debian keeps the tools of a server when no client package puts them on the path."""
    found = shutil.which(tool)
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{tool}"))
    return found or (str(beside[-1]) if beside else None)
