"""PostgreSQL, Redis and SeaweedFS of the cluster: where their programs are, and how they start."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg import sql

from ...config.settings import Settings
from ..environment import HOST, ServersError, script_path
from ..programs import Program, as_user
from ..setup import write_private
from .site import BUCKETS, ServicePorts, folder

SUPERUSER = "postgres"
# Database and its owner -> which password is the owner's.
_DATABASES = {
    ("airflow", "airflow"): "METADATA_PASSWORD",
    ("celery", "celery"): "RESULTS_PASSWORD",
    ("mlflow", "mlflow"): "MLFLOW_DATABASE_PASSWORD",
    ("mlflow_users", "mlflow"): "MLFLOW_DATABASE_PASSWORD",
    ("shoetagger", "shoetagger"): "STORE_PASSWORD",
}


def programs(
    settings: Settings, values: Mapping[str, str], services: ServicePorts
) -> dict[str, Program]:
    """Prepare the three services, and return how to start each.

    Raises ServersError in one line where a program is missing.
    """
    return {
        "postgres": _postgres(settings, values, services),
        "redis": _redis(settings, values, services),
        "seaweedfs": _seaweedfs(settings, values, services),
    }


# --- PostgreSQL -------------------------------------------------------------------------------
def postgres_binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`, the newest there is; None without any."""
    found = [file.parent for file in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    if not found and (on_path := shutil.which("initdb")):
        found = [Path(on_path).resolve().parent]
    return max(found, key=_release, default=None)


def _release(binaries: Path) -> int:
    """17 of /usr/lib/postgresql/17/bin; 0 of folders of another kind."""
    return int(binaries.parent.name) if binaries.parent.name.isdigit() else 0


def _postgres(settings: Settings, values: Mapping[str, str], services: ServicePorts) -> Program:
    binaries = postgres_binaries()
    if binaries is None:
        raise ServersError("PostgreSQL is missing: on Debian, apt-get install postgresql")
    home, user = folder(settings) / "postgres", _unprivileged()
    if not (home / "data").exists():
        _initialize(binaries, home, user, values["SUPERUSER_PASSWORD"])
    options = {
        "listen_addresses": HOST,
        "port": services.postgres,
        "unix_socket_directories": "",
        "max_connections": 200,
    }
    settings_of_server = [f"-c{name}={value}" for name, value in options.items()]
    return Program(
        [str(binaries / "postgres"), "-D", str(home / "data"), *settings_of_server],
        environment={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        folder=home,
        user=user,
    )


def _unprivileged() -> str | None:
    """Return whose process PostgreSQL is to be: it refuses root. None for ourselves."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _initialize(binaries: Path, home: Path, user: str | None, password: str) -> None:
    """Make the data folder; a cut-off attempt leaves none."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    password_file = home / "password"
    write_private(password_file, password)
    if user is not None:
        account = pwd.getpwnam(user)
        _refuse_unreachable(home.parent, account)
        for path in (home, password_file):
            os.chown(path, account.pw_uid, account.pw_gid)
    home.chmod(0o700)
    made = home / "made"
    how = f"-U {SUPERUSER} -E UTF8 --locale=C.UTF-8 -A scram-sha-256 --pwfile={password_file}"
    done = subprocess.run(
        [binaries / "initdb", "-D", made, *how.split()],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **as_user(user),
    )
    password_file.unlink()
    if done.returncode:
        raise ServersError(f"cannot make PostgreSQL's data folder {made}: {done.stdout[-2000:]}")
    made.rename(home / "data")


def _refuse_unreachable(path: Path, account: pwd.struct_passwd) -> None:
    """Raise ServersError where PostgreSQL's user may not enter the folder of its data."""
    for each in (path, *path.parents):
        status = each.stat()
        if not status.st_mode & 0o001 and status.st_uid != account.pw_uid:
            raise ServersError(
                f"PostgreSQL refuses root and runs as {account.pw_name}, who may not enter {each}: "
                "run `make cluster` as another user than root, or set SHOETAGGER_HOME to a folder "
                "that everybody may enter"
            )


def superuser_url(values: Mapping[str, str]) -> str:
    """Return the address of the database `postgres`, for its superuser."""
    return f"postgresql://{SUPERUSER}:{values['SUPERUSER_PASSWORD']}@{values['POSTGRES']}/postgres"


def make_databases(values: Mapping[str, str]) -> None:
    """Make the databases and their owners; owners that there are get their passwords again."""
    with psycopg.connect(superuser_url(values), autocommit=True) as connection:
        for (database, owner), password_name in _DATABASES.items():
            secret = connection.pgconn.encrypt_password(
                values[password_name].encode(), owner.encode(), b"scram-sha-256"
            ).decode()
            role, name = sql.Identifier(owner), sql.Identifier(database)
            if not _exists(connection, "pg_roles", "rolname", owner):
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(secret))
            connection.execute(change)
            if not _exists(connection, "pg_database", "datname", database):
                connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, role))
                # By default everybody who may log in may connect to every database.
                connection.execute(
                    sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(name)
                )


def _exists(connection: psycopg.Connection[Any], table: str, column: str, name: str) -> bool:
    query = sql.SQL("SELECT 1 FROM {} WHERE {} = %s")
    named = query.format(sql.Identifier(table), sql.Identifier(column))
    return connection.execute(named, (name,)).fetchone() is not None


# --- Redis ------------------------------------------------------------------------------------
def _redis(settings: Settings, values: Mapping[str, str], services: ServicePorts) -> Program:
    server = shutil.which("redis-server")
    if server is None:
        raise ServersError("Redis is missing: on Debian, apt-get install redis-server")
    home = folder(settings) / "redis"
    config = home / "redis.conf"
    write_private(
        config,
        f'include "{settings.repo / "deploy" / "redis.conf"}"\n'
        f"bind {HOST}\n"
        f"port {services.redis}\n"
        f'dir "{home}"\n'
        f"requirepass {values['BROKER_PASSWORD']}\n",
    )
    return Program([server, str(config)], environment={"PATH": os.environ["PATH"]}, folder=home)


# --- SeaweedFS --------------------------------------------------------------------------------
def _seaweedfs(settings: Settings, values: Mapping[str, str], services: ServicePorts) -> Program:
    weed = Path(script_path("weed"))
    if not weed.exists():
        raise ServersError("SeaweedFS is missing: it comes with the extra `cluster`, `make setup`")
    home = folder(settings) / "seaweedfs"
    # Each sees its own bucket only.
    identities = [
        {
            "name": key,
            "credentials": [{"accessKey": key, "secretKey": secret}],
            "actions": [f"{action}:{bucket}" for action in ("Read", "Write", "List", "Tagging")],
        }
        for bucket, key, secret in (
            (BUCKETS[0], values["S3_KEY"], values["S3_SECRET"]),
            (BUCKETS[1], values["MLFLOW_S3_KEY"], values["MLFLOW_S3_SECRET"]),
        )
    ]
    config = home / "s3.json"
    write_private(config, json.dumps({"identities": identities}))
    options = {
        "ip": HOST, "ip.bind": HOST, "dir": home, "s3.config": config,
        "s3.port": services.s3, "master.port": services.s3_master,
        "volume.port": services.s3_volume, "filer.port": services.s3_filer,
        "volume.max": 300, "master.volumeSizeLimitMB": 64, "volume.preStopSeconds": 0,
        "s3.port.iceberg": 0, "s3.port.lance": 0, "master.telemetry": "false",
    }  # fmt: skip
    flags = [f"-{name}={value}" for name, value in options.items()]
    return Program(
        # Or it would write its log to /tmp, too, and leave it there.
        [str(weed), "-logtostderr=true", "server", "-s3", *flags],
        environment={"PATH": os.environ["PATH"], "HOME": str(home)},
        folder=home,
    )


def make_buckets(services: ServicePorts) -> None:
    """Make the buckets; to SeaweedFS, a bucket is a folder below /buckets."""
    for bucket in BUCKETS:
        address = f"http://{HOST}:{services.s3_filer}/buckets/{bucket}/"
        answered = httpx.post(address, timeout=30)
        if answered.status_code != httpx.codes.CONFLICT:  # the bucket is already there
            answered.raise_for_status()


# --- all of them ------------------------------------------------------------------------------
def answer(values: Mapping[str, str], services: ServicePorts) -> bool:
    """Tell whether all three can be used."""
    import redis  # with the extra `cluster`

    try:
        psycopg.connect(superuser_url(values), connect_timeout=5).close()
        host, _, port = values["REDIS"].partition(":")
        with redis.Redis(host, int(port), password=values["BROKER_PASSWORD"]) as client:
            client.ping()
        for address in (values["S3_URL"], f"http://{HOST}:{services.s3_filer}"):
            if httpx.get(address, timeout=5).status_code >= 500:
                return False
    except (psycopg.OperationalError, redis.RedisError, httpx.TransportError):
        return False
    return True
