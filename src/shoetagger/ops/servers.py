"""Airflow and MLflow on this machine: set up, start, look at, stop; on 127.0.0.1 only."""

from __future__ import annotations

import argparse
import datetime
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ..config.params import load
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..store.overdue import overdue
from ..store.store import Store
from ..tracking.login import login_file, read_login, users_file
from .cluster.site import filled, read_site
from .cluster.start import cluster
from .commands import addresses, airflow_commands, mlflow_command
from .environment import (
    Ports,
    Report,
    log_file,
    mlflow_address,
    own_mlflow,
    passwords_file,
    whole_environment,
)
from .people import ADMIN, passwords, people
from .processes import Started, marked_processes, read_state, refuse_taken_ports
from .programs import (
    Program,
    already_running,
    down,
    healthy,
    nothing_left_on_failure,
    silent,
    start,
    wait_until,
)
from .service import write_service
from .setup import only_one_starts, setup, setup_locked

_COMMANDS = ("setup", "up", "cluster", "down", "status", "login", "service")


def server_commands(settings: Settings, ports: Ports) -> dict[str, list[str]]:
    """Return the command of each server, in the order of starting."""
    commands = airflow_commands(ports)
    database = own_mlflow(settings, ports)
    if database is not None:
        commands["mlflow"] = mlflow_command(
            *(ports, "--backend-store-uri", database, "--no-serve-artifacts"),
            *("--default-artifact-root", settings.artifacts.as_uri()),
        )
    return commands


def up(settings: Settings, ports: Ports, report: Report = print) -> Ports:
    """Set up and start the servers, wait until they answer, and return the ports in use.

    Servers that run already are left alone. Raises ServersError if a port is taken or a server
    does not answer; then none is left running.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with only_one_starts(settings, report):
        running = already_running(
            settings, lambda started: _complete(settings, started), report, cluster=False
        )
        if running is not None:
            report(f"already running; `make down` stops it\n{_addresses(settings, running.ports)}")
            return running.ports
        down(settings, silent)
        commands = server_commands(settings, ports)
        refuse_taken_ports(ports, commands)
        setup_locked(settings, ports, report)
        environment = whole_environment(settings, ports) | _mlflow_login(settings)
        programs = {
            name: Program(command, environment, settings.home) for name, command in commands.items()
        }
        with nothing_left_on_failure(settings):
            began = time.time()
            started = start(settings, Started(ports, {}), programs)
            wait_until(
                lambda: healthy(started, since=began - 5),
                *(settings, started, "Airflow and MLflow", report),
            )
        report(_addresses(settings, ports))
        return ports


def _mlflow_login(settings: Settings) -> dict[str, str]:
    """Return the variables with which MLflow's server asks for the login.

    The server makes its users from the login at its start; what a killed start left half-made, or
    an earlier password made, is removed first.
    """
    for suffix in ("", "-journal"):
        path = users_file(settings.artifacts)
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(login_file(settings.artifacts)),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
    }


def _complete(settings: Settings, started: Started) -> bool:
    """Tell whether every server was started that the settings ask for."""
    return set(started.processes) == set(server_commands(settings, started.ports))


def status(settings: Settings) -> str:
    """Describe in a few lines what runs and where."""
    started = read_state(settings)
    if started is None:
        left = marked_processes(settings)
        return (
            f"not running, but {len(left)} processes are left of a cut-off start: `make down`"
            if left
            else "not running: `make up` starts Airflow and MLflow"
        )
    lines = [
        f"{name}: {'running, pid ' + str(pid) if started.alive(name) else 'has ended'}, "
        f"log {log_file(settings, name)}"
        for name, (pid, _) in started.processes.items()
    ]
    return "\n".join([*lines, _addresses(of_running(settings), started.ports)])


def of_running(settings: Settings) -> Settings:
    """Return the settings of the servers that run: those of a cluster have other places."""
    site = _site_of_running(settings)
    if site is None:
        return settings
    return Settings.from_environment(filled(settings, site, "workers"))


def _site_of_running(settings: Settings) -> dict[str, str] | None:
    """Return the addresses and secrets of the cluster that runs; None where none does."""
    started = read_state(settings)
    return read_site(settings) if started is not None and started.cluster else None


def _overdue(settings: Settings) -> str | None:
    """Return that no night has run for too long, in words; None where nobody can say."""
    try:
        max_hours = load(settings.params_file).tag.max_hours_without_night
        with Store(settings.store_url) as store:
            return overdue(store, max_hours, datetime.datetime.now(datetime.UTC))
    except ShoetaggerError:
        return None


def login(settings: Settings) -> str:
    """Return the addresses to browse, each with the user and the password."""
    known = passwords(_passwords_file(settings))
    ports = ports_in_use(settings)
    lines = [
        f"Airflow  {ports.airflow_url}   user {name}, password {known[name]}{_role(role)}"
        for name, role in people().items()
        if name in known
    ]
    address = mlflow_address(of_running(settings), ports)
    return "\n".join([*lines, f"MLflow   {address}{_mlflow_user(settings, ports)}"])


def _mlflow_user(settings: Settings, ports: Ports) -> str:
    """Return who may log in to the MLflow server that runs here, in words; "" for another one."""
    site = _site_of_running(settings)
    if site is not None:
        worker = filled(settings, site, "workers")
        user, password = (worker[f"MLFLOW_TRACKING_{part}"] for part in ("USERNAME", "PASSWORD"))
        return f"   user {user}, password {password}"
    ours = read_login(settings.artifacts)
    if own_mlflow(settings, ports) is None or ours is None:
        return ""
    return f"   user {ours.user}, password {ours.password}"


def _passwords_file(settings: Settings) -> Path:
    site = _site_of_running(settings)
    return passwords_file(settings) if site is None else Path(site["PASSWORDS_FILE"])


def _role(role: str) -> str:
    return "" if role == "admin" else f" ({role})"


def credentials(settings: Settings) -> tuple[str, str]:
    """Return the admin's name and password; raises ServersError before the first set-up."""
    return ADMIN, passwords(_passwords_file(settings))[ADMIN]


def ports_in_use(settings: Settings) -> Ports:
    """Return the ports of the running servers, else those that the environment names."""
    started = read_state(settings)
    return started.ports if started else Ports.from_environment()


def _addresses(settings: Settings, ports: Ports) -> str:
    return addresses(ports, mlflow_address(settings, ports))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `python -m shoetagger.ops.servers`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shoetagger.ops.servers", description=__doc__)
    parser.add_argument("command", choices=_COMMANDS)
    command = parser.parse_args(arguments).command
    try:
        settings = Settings.from_environment()
        if command == "setup":
            setup(settings, Ports.from_environment())
        elif command == "up":
            up(settings, Ports.from_environment())
        elif command == "cluster":
            cluster(settings, Ports.from_environment())
        elif command == "down":
            down(settings)
        elif command == "status":
            print(status(settings))
            if late := _overdue(of_running(settings)):
                print(late)
        elif command == "service":
            print(write_service(settings, Ports.from_environment()))
        else:
            print(login(settings))
    except ShoetaggerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing is left running", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
