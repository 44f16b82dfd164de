"""The environments of the cluster's processes: deploy/*.env, filled with addresses and secrets."""

from __future__ import annotations

import base64
import os
import secrets
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from dotenv import dotenv_values

from ...config.settings import Settings
from ..environment import HOST, Ports, ServersError, process_variables, statsd_address
from ..people import people
from ..processes import free_port_near
from ..setup import write_private

BUCKETS = ("shoetagger", "mlflow")
# These variables may be those of another Airflow, MLflow or object store; the files set all.
_REPLACED = ("AIRFLOW__", "AWS_", "MLFLOW_", "SHOETAGGER_")
# What the files leave to whoever starts the servers.
_PASSED_ON = ("SHOETAGGER_DEVICE", "SHOETAGGER_NOTIFY_URL")


@dataclass(frozen=True)
class ServicePorts:
    """Where PostgreSQL, Redis and SeaweedFS listen, on 127.0.0.1."""

    postgres: int
    redis: int
    s3: int
    # SeaweedFS is made of three servers and a gateway; each takes its port plus 10,000, too.
    s3_master: int
    s3_volume: int
    s3_filer: int

    @classmethod
    def free(cls) -> ServicePorts:
        """Return ports that nothing listens on; the same ones as before, where they are free."""
        return cls(
            postgres=free_port_near(15432),
            redis=free_port_near(16379),
            s3=free_port_near(18333, also=10_000),
            s3_master=free_port_near(19333, also=10_000),
            s3_volume=free_port_near(20333, also=10_000),
            s3_filer=free_port_near(21333, also=10_000),
        )


def folder(settings: Settings) -> Path:
    """Return the folder of all that the cluster keeps."""
    return settings.home / "cluster"


def site_file(settings: Settings) -> Path:
    """Return the file of addresses and secrets, as deploy/site.env describes it."""
    return folder(settings) / "site.env"


def write_site(settings: Settings, ports: Ports, services: ServicePorts) -> dict[str, str]:
    """Write the file of addresses and secrets, and return its values; secrets are kept."""
    file = site_file(settings)
    known = read_site(settings) if file.exists() else {}
    generated = {
        "FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "JWT_SECRET": secrets.token_urlsafe(96),
        "S3_KEY": "shoetagger",
        "MLFLOW_S3_KEY": "mlflow",
    }
    names = (
        *("BROKER_PASSWORD", "RESULTS_PASSWORD", "STORE_PASSWORD", "MLFLOW_PASSWORD", "S3_SECRET"),
        *("METADATA_PASSWORD", "API_SECRET", "MLFLOW_DATABASE_PASSWORD", "MLFLOW_SESSION_SECRET"),
        *("MLFLOW_S3_SECRET", "SUPERUSER_PASSWORD"),
    )
    own_inbox = bool(os.environ.get("SHOETAGGER_INBOX"))
    inbox = str(settings.inbox) if own_inbox else f"s3://{BUCKETS[0]}/inbox"
    statsd = statsd_address()
    generated |= {name: secrets.token_urlsafe(24) for name in names}
    values = {
        "AIRFLOW_URL": ports.airflow_url,
        "MLFLOW_URL": ports.mlflow_url,
        "MLFLOW_PAGE": ports.mlflow_page,
        "MLFLOW_HOSTS": f"{HOST}:{ports.mlflow},localhost:{ports.mlflow}",
        "POSTGRES": f"{HOST}:{services.postgres}",
        "REDIS": f"{HOST}:{services.redis}",
        "S3_URL": f"http://{HOST}:{services.s3}",
        "S3_REGION": "us-east-1",
        "INBOX": inbox,
        "PUBLISHED": f"s3://{BUCKETS[0]}/published",
        "REPO": str(settings.repo),
        "STATE": str(folder(settings) / "state"),
        "TASK_LOGS": str(folder(settings) / "task-logs"),
        "PASSWORDS_FILE": str(folder(settings) / "airflow" / "passwords.json"),
        "MLFLOW_AUTH_FILE": str(folder(settings) / "mlflow-auth.ini"),
        "METRICS": str(statsd is not None),
        "STATSD_HOST": statsd[0] if statsd else HOST,
        "STATSD_PORT": str(statsd[1] if statsd else 8125),
        **generated,
        **{name: value for name, value in known.items() if name in generated},
    }
    # Shells load the file, too.
    lines = (f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    write_private(file, "# Written by make cluster; its secrets are kept.\n" + "".join(lines))
    return values


def read_site(settings: Settings) -> dict[str, str]:
    """Return the addresses and secrets; raises ServersError before the first `make cluster`."""
    file = site_file(settings)
    if not file.exists():
        raise ServersError("the cluster is not set up yet: run `make cluster`")
    return _read(file)


def filled(settings: Settings, values: Mapping[str, str], *names: str) -> dict[str, str]:
    """Return the variables of environment files of deploy/, by their names without `.env`.

    A later file's variables take the place of an earlier one's. Raises ServersError that names a
    value which the site lacks.
    """
    found: dict[str, str] = {}
    for name in names:
        file = settings.repo / "deploy" / f"{name}.env"
        for variable, text in _read(file).items():
            try:
                found[variable] = Template(text).substitute(values)
            except (KeyError, ValueError) as error:
                raise ServersError(f"{file}: {variable} needs a value for {error}") from None
    return found


def _read(file: Path) -> dict[str, str]:
    return {k: v or "" for k, v in dotenv_values(file, interpolate=False).items()}


def worker_environment(settings: Settings, values: Mapping[str, str], name: str) -> dict[str, str]:
    """Return all that the worker `name` has in its environment."""
    return _outer(settings) | filled(settings, values, "workers") | _airflow_home(settings, name)


def server_environment(settings: Settings, values: Mapping[str, str], name: str) -> dict[str, str]:
    """Return all that one of Airflow's servers has in its environment."""
    people_of_ours = ",".join(f"{who}:{role}" for who, role in people().items())
    return (
        _outer(settings)
        | filled(settings, values, "workers", "servers")
        | _airflow_home(settings, name)
        | {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": people_of_ours}
    )


def mlflow_environment(settings: Settings, values: Mapping[str, str]) -> dict[str, str]:
    """Return all that MLflow's server has in its environment."""
    return _outer(settings) | filled(settings, values, "mlflow")


def _airflow_home(settings: Settings, name: str) -> dict[str, str]:
    """Give each program a folder of its own, where Airflow writes a configuration file."""
    return {"AIRFLOW_HOME": str(folder(settings) / "airflow" / name)}


def _outer(settings: Settings) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_REPLACED)}
    passed_on = {name: os.environ[name] for name in _PASSED_ON if os.environ.get(name)}
    return kept | passed_on | process_variables(settings)
