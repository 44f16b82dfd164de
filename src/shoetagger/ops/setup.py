"""Secrets, databases and pools: what servers need before their first start."""

from __future__ import annotations

import base64
import contextlib
import importlib.metadata
import json
import os
import secrets
import sqlite3
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from ..config.settings import GPU_POOL, Settings
from ..notification.addresses import fault_of
from ..tracking import login
from .environment import (
    MARK,
    NAME,
    Ports,
    Report,
    ServersError,
    airflow_home,
    last_lines,
    log_file,
    own_mlflow,
    passwords_file,
    script_path,
    whole_environment,
)
from .people import passwords, with_new_passwords
from .restore import settle

SET_UP_AIRFLOW = "set up Airflow's database"


def setup(settings: Settings, ports: Ports, report: Report = print) -> None:
    """Make folders and secrets, migrate store, MLflow and Airflow, create the pool; idempotent."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with only_one_starts(settings, report):
        setup_locked(settings, ports, report)


def setup_locked(settings: Settings, ports: Ports, report: Report) -> None:
    """Do what `setup` does, for a caller that holds the lock of `only_one_starts`."""
    if fault := fault_of(settings.notify_url):
        report(f"{fault}: until then nobody is notified")
    settle(settings)
    for folder in (airflow_home(settings), settings.home / "logs"):
        folder.mkdir(exist_ok=True)
    airflow_home(settings).chmod(0o700)
    if isinstance(settings.inbox, Path) and settings.inbox.is_relative_to(settings.home):
        settings.inbox.mkdir(parents=True, exist_ok=True)
    _write_secrets(settings)
    _explain_home_page(settings)
    _migrate_store(settings)
    # Airflow's migration is a process of its own: meanwhile this one migrates MLflow.
    with ThreadPoolExecutor(max_workers=1) as executor:
        airflow = executor.submit(_migrate_airflow, settings, ports, report)
        _migrate_mlflow(settings, ports, report)
        airflow.result()


def _write_secrets(settings: Settings) -> None:
    """Generate Airflow's password and keys, once, in files that only their owner can read."""
    config = airflow_home(settings) / "airflow.cfg"
    if not config.exists():
        fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        write_private(
            config,
            "# Generated secrets; everything else comes from the environment.\n"
            f"[core]\nfernet_key = {fernet}\n\n"
            f"[api]\nsecret_key = {secrets.token_urlsafe(48)}\n\n"
            f"[api_auth]\njwt_secret = {secrets.token_urlsafe(96)}\n",
        )
    file = passwords_file(settings)
    known = passwords(file) if file.exists() else {}
    everybody = with_new_passwords(known)
    if everybody != known:
        write_private(file, json.dumps(everybody) + "\n")


# Airflow imports it in each of its processes, and shows its alerts on the home page. The import
# that they need takes time, which only the server of that page spends.
_HOME_PAGE = """# Written by shoetagger whenever the servers start.
import os

if os.environ.get({name!r}) == "api-server":
    from airflow.api_fastapi.common.types import UIAlert

    DASHBOARD_UIALERTS = [UIAlert(text={text!r}, category="info")]
"""
_NO_TRIGGERER = (
    "The triggerer is red because none is started: no task here defers, and approvals wait without "
    "one. It would take memory and do nothing."
)


def _explain_home_page(settings: Settings) -> None:
    """Let Airflow's home page say why it shows a part as unhealthy."""
    file = airflow_home(settings) / "config" / "airflow_local_settings.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(_HOME_PAGE.format(name=NAME, text=_NO_TRIGGERER), encoding="utf-8")


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 that appears as a whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


def _migrate_store(settings: Settings) -> None:
    from ..store.store import Store

    store = Store(settings.store_url)
    try:
        store.migrate()
    finally:
        store.close()


def _migrate_mlflow(settings: Settings, ports: Ports, report: Report) -> None:
    """Bring our MLflow database up to date before anything touches it in parallel."""
    database = own_mlflow(settings, ports)
    if database is None:
        return
    report("setting up MLflow's database")
    settings.artifacts.mkdir(parents=True, exist_ok=True)
    login.ensure_login(settings.artifacts, ports.mlflow_url)
    from ..tracking import connection

    connection.prepare(database)


def _migrate_airflow(settings: Settings, ports: Ports, report: Report) -> None:
    """Migrate Airflow's database and create the pool, once per version of Airflow."""
    slots = gpu_slots()
    version = importlib.metadata.version("apache-airflow")
    stamp = airflow_home(settings) / f"migrated-{version}{'-' + slots if slots else ''}"
    database = airflow_home(settings) / "airflow.db"
    if stamp.exists() and database.exists():
        return
    report("setting up Airflow's database")
    is_new = not database.exists()
    with _migrated_beside(database) as beside:

        def airflow(*arguments: str) -> str:
            there = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{beside}"}
            environment = whole_environment(settings, ports) | there
            return run_once(settings, environment, "airflow", arguments, SET_UP_AIRFLOW)

        airflow("db", "migrate")
        # Slots that somebody changed in the UI are left alone, unless the environment says so.
        if slots or is_new or f'"{GPU_POOL}"' not in airflow("pools", "list", "-o", "json"):
            airflow(*set_pool_arguments(slots or "1"))
    for old in airflow_home(settings).glob("migrated-*"):
        old.unlink()
    stamp.touch()


def gpu_slots() -> str:
    """Return the slots of the pool that the environment asks for, "" if none; checks the number."""
    slots = os.environ.get("SHOETAGGER_GPU_SLOTS") or ""
    if slots and not slots.isdecimal():
        raise ServersError(f"SHOETAGGER_GPU_SLOTS={slots!r} is not a number of slots")
    return slots


def set_pool_arguments(slots: str) -> list[str]:
    """Return the arguments with which `airflow` makes the pool, or sets its slots."""
    return ["pools", "set", GPU_POOL, slots, "tasks that fill the GPU, or all cores"]


@contextlib.contextmanager
def _migrated_beside(path: Path) -> Iterator[Path]:
    """Yield a copy of an SQLite database to migrate, which then takes the place of `path`.

    A migration that is cut off leaves a half-migrated database, which no later one repairs.
    """
    for left in path.parent.glob(f"{path.name}.migrating-*"):
        left.unlink()
    beside = path.with_name(f"{path.name}.migrating-{os.getpid()}")
    if path.exists():
        with (
            contextlib.closing(sqlite3.connect(path)) as source,
            contextlib.closing(sqlite3.connect(beside)) as copy,
        ):
            source.backup(copy)
    yield beside
    # Rows may still lie in the write-ahead log; all must be in the file before it moves.
    with contextlib.closing(sqlite3.connect(beside)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    beside.replace(path)


def run_once(
    settings: Settings,
    environment: Mapping[str, str],
    tool: str,
    arguments: Sequence[str],
    purpose: str,
) -> str:
    """Run one command of a tool to its end and return its output."""
    # Not a server: `down` in another terminal must not end it.
    unmarked = {name: value for name, value in environment.items() if name != MARK}
    done = subprocess.run(
        [script_path(tool), *arguments],
        env=unmarked,
        cwd=settings.home,
        capture_output=True,
        text=True,
        check=False,
    )
    log = log_file(settings, f"setup-{tool}")
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {tool} {' '.join(arguments[:2])}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        raise ServersError(
            f"cannot {purpose}: `{tool} {' '.join(arguments[:2])}` ended with {done.returncode}; "
            f"its log is {log}\n{last_lines(log)}"
        )
    return done.stdout


@contextlib.contextmanager
def only_one_starts(settings: Settings, report: Report) -> Iterator[None]:
    """Hold the lock of `up`, which the kernel releases when this process dies, however it does."""
    lock = FileLock(settings.home / "servers.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        report("the servers are being started elsewhere: waiting for that")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
