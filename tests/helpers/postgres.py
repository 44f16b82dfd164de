"""A PostgreSQL of the machine's own binaries for the tests, on a free loopback port."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from helpers.ports import free_port


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A running server with `folder`'s binaries; yields the URL of its empty database `postgres`.

    It refuses to run as root, so root runs it as `nobody`. Nothing of it is left afterwards.
    """
    password = secrets.token_hex(16)
    home = Path(tempfile.mkdtemp(prefix="shoetagger-postgres-"))
    user: dict[str, object] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(home, nobody.pw_uid, nobody.pw_gid)
        user = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    (home / "password").write_text(password)
    (home / "password").chmod(0o644)  # in a folder that only the server's user may enter
    quiet = {"cwd": home, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **user}
    try:
        make = f"-U shoetagger -E UTF8 --locale=C.UTF-8 -A scram-sha-256 --pwfile={home}/password"
        made = subprocess.run(
            [folder / "initdb", "-D", home / "data", "--no-sync", *make.split()], **quiet
        )
        assert made.returncode == 0, made.stdout
        port = free_port()
        options = "-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        # Of tables that change all the time it knows little, and would compile what reads few rows.
        options += " -c jit=off"
        options += " -c timezone=Asia/Kolkata"  # times must come back as UTC wherever it lives
        with (home / "log").open("wb") as log:
            running = subprocess.Popen(
                [folder / "postgres", "-D", home / "data", "-p", str(port), *options.split()],
                **(quiet | {"stdout": log}),
            )
        try:
            url = f"postgresql+psycopg://shoetagger:{password}@127.0.0.1:{port}/postgres"
            _wait_until_it_answers(url, running, home / "log")
            yield url
        finally:
            running.send_signal(signal.SIGINT)  # its "fast" shutdown
            running.wait(30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def database(server_url: str, template: str = "template1") -> Iterator[str]:
    """A fresh database on a server, dropped in the end; yields its URL."""
    name = f"test_{secrets.token_hex(6)}"
    engine = sa.create_engine(server_url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
        yield sa.make_url(server_url).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    finally:
        engine.dispose()


def cut_off(url: str, *, waiting: bool = False) -> None:
    """End the connections to a database that have a turn there, or those that wait for one."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    cut = sa.text(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks JOIN pg_database ON oid = database"
        " WHERE locktype = 'advisory' AND granted != :waiting AND datname = current_database()"
    )
    try:
        with engine.connect() as connection:
            assert connection.execute(cut, {"waiting": waiting}).scalars().all() == [True]
    finally:
        engine.dispose()


def _wait_until_it_answers(url: str, running: subprocess.Popen[bytes], log: Path) -> None:
    engine = sa.create_engine(url)
    try:
        for _ in range(300):
            try:
                engine.connect().close()
                return
            except sa.exc.OperationalError:
                assert running.poll() is None, log.read_text()
                time.sleep(0.1)
        raise AssertionError(log.read_text())
    finally:
        engine.dispose()
