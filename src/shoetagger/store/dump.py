"""Dumps: whole databases to a file and back, while others use them.

MLflow's embedded database, also a SQLite file, is dumped in the same way.
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
    """Return the kind of a URL's database: `sqlite` or `postgresql`."""
    return make_url(url).get_backend_name()


def dump(url: str, out: Path) -> None:
    """Write the database as of one moment to `out`; raises StoreError where that fails."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        _postgres("pg_dump", parsed, "--format=custom", "--no-owner", f"--file={out}")
        return
    source = _file(parsed)
    if not source.is_file():
        raise StoreError(f"no database {source}: nothing to back up; run `shoetagger migrate`")
    _copy(source, out)


def load(url: str, dumped: Path) -> None:
    """Replace a database by a dumped one, all or nothing; raises StoreError where that fails."""
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
    """Copy by SQLite's online backup: consistent beside writers, and all or nothing."""
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
    # The password is passed in the environment, since everybody can read a command line.
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
    return next((line.strip() for line in reversed(lines) if line.strip()), "it gave no reason")


def _find(tool: str) -> str | None:
    """Return a tool on the path, or where Debian keeps those of a server; None without either."""
    found = shutil.which(tool)
    beside = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{tool}"))
    return found or (str(beside[-1]) if beside else None)
