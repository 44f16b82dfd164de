"""Starts the cluster: its services, Airflow's servers with MLflow's, and two workers."""

from __future__ import annotations

import importlib.metadata
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from string import Template

from ...config.settings import Settings
from ...store.store import Store
from ..commands import addresses, airflow_commands, mlflow_command
from ..environment import Ports, Report, script_path
from ..people import passwords, with_new_passwords
from ..processes import Started, refuse_taken_ports
from ..programs import (
    Program,
    already_running,
    down,
    healthy,
    nothing_left_on_failure,
    silent,
    start,
    wait_until,
)
from ..setup import (
    SET_UP_AIRFLOW,
    gpu_slots,
    only_one_starts,
    run_once,
    set_pool_arguments,
    write_private,
)
from . import services as running_services
from .site import (
    ServicePorts,
    filled,
    folder,
    mlflow_environment,
    server_environment,
    worker_environment,
    write_site,
)

WORKERS = ("a", "b")
_SERVICES = ("postgres", "redis", "seaweedfs")
_SERVERS = ("mlflow", "api-server", "scheduler", "dag-processor", "triggerer")
_WHAT_RUNS = {*_SERVICES, *_SERVERS, *(f"worker-{name}" for name in WORKERS)}


def cluster(settings: Settings, ports: Ports, report: Report = print) -> Ports:
    """Set up and start the whole cluster, wait until it answers, and return the ports in use.

    What runs already is left alone. Raises ServersError if a program is missing, a port is taken
    or a server does not answer; then nothing is left running.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with only_one_starts(settings, report):
        running = already_running(
            settings, lambda started: set(started.processes) == _WHAT_RUNS, report, cluster=True
        )
        if running is not None:
            report(f"already running; `make down` stops it\n{_addresses(running.ports)}")
            return running.ports
        down(settings, silent)
        refuse_taken_ports(ports, _SERVERS)
        _make_folders(settings)
        services = ServicePorts.free()
        values = write_site(settings, ports, services)
        with nothing_left_on_failure(settings):
            programs = running_services.programs(settings, values, services)
            started = start(settings, Started(ports, {}, cluster=True), programs)
            wait_until(
                lambda: running_services.answer(values, services),
                *(settings, started, "PostgreSQL, Redis and SeaweedFS", report),
            )
            _set_up(settings, values, services, report)
            began = time.time()
            started = start(settings, started, _servers(settings, values, ports))
            workers = {f"worker-{name}": worker(settings, values, name) for name in WORKERS}
            started = start(settings, started, workers)
            wait_until(
                lambda: healthy(started, since=began - 5),
                *(settings, started, "Airflow and MLflow", report),
            )
        report(_addresses(ports))
        return ports


def _make_folders(settings: Settings) -> None:
    """Make the folders; PostgreSQL's user may pass through the outer one, and see nothing."""
    for outer in (settings.home / "logs", folder(settings)):
        outer.mkdir(exist_ok=True)
    folder(settings).chmod(0o711)
    for name in ("airflow", "redis", "seaweedfs", "task-logs"):
        (folder(settings) / name).mkdir(mode=0o700, exist_ok=True)


def _addresses(ports: Ports) -> str:
    return addresses(ports, ports.mlflow_page)


# --- set-up -----------------------------------------------------------------------------------
def _set_up(
    settings: Settings, values: Mapping[str, str], services: ServicePorts, report: Report
) -> None:
    """Make databases, buckets, users and the pool, and bring what there is up to date."""
    running_services.make_databases(values)
    running_services.make_buckets(services)
    _write_logins(settings, values)
    environment = server_environment(settings, values, "setup")
    with Store(environment["SHOETAGGER_STORE_URL"]) as store:
        store.migrate()
    # Airflow's migration is a process of its own: meanwhile this one migrates MLflow.
    with ThreadPoolExecutor(max_workers=1) as executor:
        airflow = executor.submit(_migrate_airflow, settings, environment, report)
        _migrate_mlflow(settings, values, report)
        airflow.result()


def _write_logins(settings: Settings, values: Mapping[str, str]) -> None:
    """Generate passwords for everybody who has none, and write what MLflow's server asks for."""
    file = Path(values["PASSWORDS_FILE"])
    known = passwords(file) if file.exists() else {}
    write_private(file, json.dumps(with_new_passwords(known)) + "\n")
    template = (settings.repo / "deploy" / "mlflow-auth.ini").read_text(encoding="utf-8")
    write_private(Path(values["MLFLOW_AUTH_FILE"]), Template(template).substitute(values))


def _migrate_airflow(settings: Settings, environment: Mapping[str, str], report: Report) -> None:
    """Migrate Airflow's database and make the pool, once per version of Airflow."""
    slots = gpu_slots() or str(len(WORKERS))
    version = importlib.metadata.version("apache-airflow")
    stamp = folder(settings) / f"airflow-{version}-{slots}"
    if stamp.exists():
        return
    report("setting up Airflow's database")
    for arguments in (["db", "migrate"], set_pool_arguments(slots)):
        run_once(settings, environment, "airflow", arguments, SET_UP_AIRFLOW)
    for old in folder(settings).glob("airflow-*"):
        old.unlink()
    stamp.touch()


def _migrate_mlflow(settings: Settings, values: Mapping[str, str], report: Report) -> None:
    from ...tracking import connection

    stamp = folder(settings) / f"mlflow-{importlib.metadata.version('mlflow')}"
    if stamp.exists():
        return
    report("setting up MLflow's database")
    connection.upgrade(filled(settings, values, "mlflow")["MLFLOW_BACKEND_STORE_URI"])
    stamp.touch()


# --- what runs --------------------------------------------------------------------------------
def _servers(settings: Settings, values: Mapping[str, str], ports: Ports) -> dict[str, Program]:
    home = folder(settings)
    programs = {
        "mlflow": Program(mlflow_command(ports), mlflow_environment(settings, values), home)
    }
    triggerer = [script_path("airflow"), "triggerer", "--skip-serve-logs"]
    for name, command in {**airflow_commands(ports), "triggerer": triggerer}.items():
        programs[name] = Program(command, server_environment(settings, values, name), home)
    return programs


def worker(settings: Settings, values: Mapping[str, str], name: str) -> Program:
    """Return how a worker starts that takes every task, one at a time.

    Its environment is the whole of what it knows; `REPO` and `STATE` of `values` may be its own.
    """
    environment = worker_environment(settings, values, f"worker-{name}")
    queues = f"{environment['SHOETAGGER_GPU_QUEUE']},default"
    command = [
        *(script_path("airflow"), "celery", "worker", "--queues", queues),
        *("--concurrency", "1", "--celery-hostname", f"{name}@%h", "--skip-serve-logs"),
        *("--pid", str(folder(settings) / f"worker-{name}.pid")),
    ]
    return Program(command, environment, folder(settings))
