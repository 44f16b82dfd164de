"""Ports, places and environment variables of the servers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from ..config.settings import Settings, redacted, sqlite_url
from ..errors import ShoetaggerError
from ..tracking.connection import page
from .people import people

HOST = "127.0.0.1"
MARK = "SHOETAGGER_SERVERS_OF"
NAME = "SHOETAGGER_SERVER"
Report = Callable[[str], None]


class ServersError(ShoetaggerError):
    """A server cannot be set up, started or reached."""


@dataclass(frozen=True)
class Ports:
    """Where the two servers listen."""

    airflow: int = 8080
    mlflow: int = 5000

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Ports:
        """Read AIRFLOW_PORT and MLFLOW_PORT; raises ServersError that names a bad one."""
        ports = cls(
            airflow=_port(environ, "AIRFLOW_PORT", cls.airflow),
            mlflow=_port(environ, "MLFLOW_PORT", cls.mlflow),
        )
        if ports.airflow == ports.mlflow:
            raise ServersError(
                f"AIRFLOW_PORT and MLFLOW_PORT are both {ports.airflow}: give each its own"
            )
        return ports

    @property
    def airflow_url(self) -> str:
        return f"http://{HOST}:{self.airflow}"

    @property
    def mlflow_url(self) -> str:
        """For programs; people open `mlflow_page`."""
        return f"http://{HOST}:{self.mlflow}"

    @property
    def mlflow_page(self) -> str:
        """For browsers: under another name than Airflow, as cookies do not keep ports apart."""
        return f"http://localhost:{self.mlflow}"


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ServersError(f"{name}={text!r} is not a port: use a number in 1..65535")
    return int(text)


def airflow_home(settings: Settings) -> Path:
    """Return Airflow's folder: its database, its secrets and the logs of tasks."""
    return settings.home / "airflow"


def log_file(settings: Settings, server: str) -> Path:
    """Return the file with a server's output since its last start."""
    return settings.home / "logs" / f"{server}.log"


def task_logs(settings: Settings) -> Path:
    """Return the root of the logs of Airflow's tasks."""
    return airflow_home(settings) / "logs"


def passwords_file(settings: Settings) -> Path:
    """Return the JSON file with the passwords of Airflow's users."""
    return airflow_home(settings) / "passwords.json"


def state_file(settings: Settings) -> Path:
    """Return the file that records which servers were started, and on which ports."""
    return settings.home / "servers.json"


def own_mlflow(settings: Settings, ports: Ports) -> str | None:
    """Return the database that our MLflow server serves; None if a server of your own is used."""
    uri = urlsplit(settings.tracking_uri)
    if uri.scheme not in ("http", "https"):
        return settings.tracking_uri
    if uri.hostname in (HOST, "localhost") and uri.port == ports.mlflow:
        return settings.mlflow_database
    return None


def mlflow_address(settings: Settings, ports: Ports) -> str:
    """Return the address of MLflow to open in a browser: without a password."""
    of_server = ports.mlflow_page if own_mlflow(settings, ports) else settings.tracking_uri
    return page(redacted(settings.mlflow_url or of_server))


def airflow_environment(settings: Settings, ports: Ports) -> dict[str, str]:
    """Return the variables of Airflow, its tasks and MLflow; generated secrets stay in files.

    `whole_environment` adds them to the environment of this process.
    """
    home = airflow_home(settings)
    tracking = ports.mlflow_url if own_mlflow(settings, ports) else settings.tracking_uri
    return {
        **replace(settings, tracking_uri=tracking).as_environment(),
        # All workers of this Airflow share this disk, and the remote need not keep what each made.
        "SHOETAGGER_SHARE_RESULTS": os.environ.get("SHOETAGGER_SHARE_RESULTS") or "no",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.repo / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": os.environ.get("AIRFLOW__CORE__PARALLELISM") or "4",
        # Otherwise no night would run until somebody activates the DAG.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(
            f"{name}:{role}" for name, role in people().items()
        ),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file(settings)),
        # Both have to name the port: otherwise every task fails without a message.
        "AIRFLOW__API__BASE_URL": ports.airflow_url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{ports.airflow_url}/execution/",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(ports.airflow),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlite_url(home / "airflow.db"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(task_logs(settings)),
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "10",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **metrics_variables(),
        **process_variables(settings),
        MARK: str(settings.home.resolve()),
    }


def statsd_address(environ: Mapping[str, str] = os.environ) -> tuple[str, int] | None:
    """Return host and port of SHOETAGGER_STATSD; None where it is not set."""
    address = environ.get("SHOETAGGER_STATSD") or None
    if address is None:
        return None
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ServersError(
            f"SHOETAGGER_STATSD={address!r} is no address: write host:port, as in 127.0.0.1:8125"
        )
    return host, int(port)


def metrics_variables() -> dict[str, str]:
    """Return the variables with which Airflow and its tasks send metrics, where that is wanted."""
    address = statsd_address()
    if address is None:
        return {}
    host, port = address
    return {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": host,
        "AIRFLOW__METRICS__STATSD_PORT": str(port),
    }


def process_variables(settings: Settings) -> dict[str, str]:
    """Return what every process of the servers needs, whatever it does."""
    return {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        "SCARF_ANALYTICS": "false",
        # The code of this repo comes first, whatever else is installed.
        "PYTHONPATH": _joined(str(settings.repo / "src"), os.environ.get("PYTHONPATH")),
        "PATH": _joined(str(Path(sys.executable).parent), os.environ.get("PATH")),
        "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait starve each other where servers share the cores:
        # measured on 2 busy cores, training took six times as long and eight times the CPU.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY") or "PASSIVE",
        # Titles of processes must not overwrite the environment that carries our mark.
        "SPT_NOENV": "1",
    }


def whole_environment(settings: Settings, ports: Ports) -> dict[str, str]:
    """Return the environment of this process with the variables of the servers.

    Its own `AIRFLOW__*` variables are left out: they may be those of another Airflow.
    """
    outer = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__")}
    return outer | airflow_environment(settings, ports)


def _joined(first: str, rest: str | None) -> str:
    return first if not rest else f"{first}{os.pathsep}{rest}"


def script_path(tool: str) -> str:
    """Return the path of a program that is installed with this Python."""
    return str(Path(sys.executable).with_name(tool))


def last_lines(path: Path, count: int = 15) -> str:
    """Return the end of a log, indented, for an error message."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  | {line}" for line in lines[-count:])
