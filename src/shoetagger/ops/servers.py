"""Airflow and MLflow on this machine: set up, start, look at, stop; on 127.0.0.1 only.

Every server is started with a mark in its environment that its children inherit. Stopping ends
every process with the mark of this installation: so nothing is left over if a parent was killed,
a start was interrupted or the record of processes is lost, and no process that has been given an
old pid is ended.
"""

from __future__ import annotations

import argparse
import datetime
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import httpx
import psutil

from ..config.params import load
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..store.overdue import overdue
from ..store.store import Store
from ..tracking.login import login_file, read_login, users_file
from .environment import (
    HOST,
    NAME,
    Ports,
    Report,
    ServersError,
    last_lines,
    log_file,
    mlflow_address,
    own_mlflow,
    passwords_file,
    script_path,
    state_file,
    whole_environment,
)
from .people import ADMIN, passwords, people
from .processes import (
    Started,
    end_processes,
    marked_processes,
    read_state,
    refuse_taken_ports,
    write_state,
)
from .service import write_service
from .setup import only_one_starts, setup, setup_locked

START_SECONDS = 600.0

# First those that start work, then those that they report to.
STOP_ORDER = (("scheduler", "dag-processor"), ("api-server", "mlflow"))


def server_commands(settings: Settings, ports: Ports) -> dict[str, list[str]]:
    """Return the command of each server, in the order of starting."""
    commands = {
        # Without it Airflow would serve its log files on all interfaces; the API server reads
        # the files themselves.
        "scheduler": [script_path("airflow"), "scheduler", "--skip-serve-logs"],
        "dag-processor": [script_path("airflow"), "dag-processor"],
        "api-server": [
            *(script_path("airflow"), "api-server", "--host", HOST, "--port", str(ports.airflow)),
        ],
    }
    database = own_mlflow(settings, ports)
    if database is not None:
        commands["mlflow"] = [
            *(script_path("mlflow"), "server", "--host", HOST, "--port", str(ports.mlflow)),
            *("--backend-store-uri", database),
            *("--default-artifact-root", settings.artifacts.as_uri()),
            *("--no-serve-artifacts", "--workers", "1", "--app-name", "basic-auth"),
        ]
    return commands


def up(settings: Settings, ports: Ports, report: Report = print) -> Ports:
    """Set up and start the servers, wait until they answer, and return the ports in use.

    Servers that run already are left alone. Raises ServersError if a port is taken or a server
    does not answer; then none is left running.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with only_one_starts(settings, report):
        running = read_state(settings)
        if running is not None:
            if _complete(settings, running) and _healthy(running, since=None):
                report(
                    f"already running; `make down` stops it\n{_addresses(settings, running.ports)}"
                )
                return running.ports
            report("an earlier start was cut off or a server has died: stopping what is left of it")
        down(settings, _silent)
        commands = server_commands(settings, ports)
        refuse_taken_ports(ports, commands)
        setup_locked(settings, ports, report)
        try:
            started = _start(settings, ports, commands)
            _wait_until_healthy(settings, started, report)
        except BaseException:
            down(settings, _silent)
            raise
        report(_addresses(settings, ports))
        return ports


def _start(settings: Settings, ports: Ports, commands: Mapping[str, Sequence[str]]) -> Started:
    environment = whole_environment(settings, ports) | _mlflow_login(settings)
    processes: dict[str, tuple[int, float]] = {}
    for name, command in commands.items():
        log = log_file(settings, name)
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                env=environment | {NAME: name},
                cwd=settings.home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the terminal must not reach it
            )
        processes[name] = (process.pid, psutil.Process(process.pid).create_time())
        write_state(settings, Started(ports, processes))
    return Started(ports, processes)


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


def _wait_until_healthy(settings: Settings, started: Started, report: Report) -> None:
    begun = time.time()
    reported = -10.0
    while not _healthy(started, since=begun - 5):
        waited = time.time() - begun
        for name in started.processes:
            if not started.alive(name):
                log = log_file(settings, name)
                raise ServersError(
                    f"the {name} ended while starting; its log is {log}\n{last_lines(log)}"
                )
        if waited > START_SECONDS:
            raise ServersError(
                f"Airflow and MLflow do not answer after {START_SECONDS:.0f} s; their logs are in "
                f"{settings.home / 'logs'}"
            )
        if waited - reported >= 10:
            report(f"starting {', '.join(started.processes)} ... {waited:.0f} s")
            reported = waited
        time.sleep(0.5)
    report(f"Airflow and MLflow answer after {time.time() - begun:.0f} s")


def _healthy(started: Started, since: float | None) -> bool:
    """Tell whether every server answers; heartbeats before `since` (epoch) are of an earlier start.

    They are in the database, where an earlier scheduler wrote them.
    """
    if not all(started.alive(name) for name in started.processes):
        return False
    try:
        health = httpx.get(f"{started.ports.airflow_url}/api/v2/monitor/health", timeout=5).json()
        if "mlflow" in started.processes:
            httpx.get(f"{started.ports.mlflow_url}/health", timeout=5).raise_for_status()
    except (httpx.HTTPError, ValueError):
        return False
    if health["metadatabase"]["status"] != "healthy":
        return False
    for part in ("scheduler", "dag_processor"):
        beat = health[part][f"latest_{part}_heartbeat"]
        if health[part]["status"] != "healthy" or beat is None:
            return False
        if since is not None and datetime.datetime.fromisoformat(beat).timestamp() < since:
            return False
    return True


def _complete(settings: Settings, started: Started) -> bool:
    """Tell whether every server was started that the settings ask for."""
    return set(started.processes) == set(server_commands(settings, started.ports))


def down(settings: Settings, report: Report = print) -> int:
    """End every process of this installation's servers, and return how many there were."""
    ended: set[int] = set()
    for names, patience in ((STOP_ORDER[0], 10.0), (STOP_ORDER[1], 10.0), (None, 0.0)):
        # Several times, as a process may start another while it is being ended.
        for attempt in range(5):
            group = [
                process
                for name, process in marked_processes(settings)
                if names is None or name in names
            ]
            if not group:
                break
            if not ended:
                report("stopping Airflow and MLflow ...")
            ended.update(process.pid for process in group)
            kill = attempt > 0 or names is None
            end_processes(group, kill=kill, patience=5.0 if kill else patience)
    left = marked_processes(settings)
    if left:
        pids = ", ".join(str(process.pid) for _, process in left)
        raise ServersError(f"these processes do not end, even when killed: {pids}")
    state_file(settings).unlink(missing_ok=True)
    report(f"stopped {len(ended)} processes" if ended else "nothing was running")
    return len(ended)


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
    return "\n".join([*lines, _addresses(settings, started.ports)])


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
    known = passwords(passwords_file(settings))
    ports = ports_in_use(settings)
    lines = [
        f"Airflow  {ports.airflow_url}   user {name}, password {known[name]}{_role(role)}"
        for name, role in people().items()
        if name in known
    ]
    mlflow = read_login(settings.artifacts)
    if own_mlflow(settings, ports) is None or mlflow is None:
        who = ""
    else:
        who = f"   user {mlflow.user}, password {mlflow.password}"
    lines.append(f"MLflow   {mlflow_address(settings, ports)}{who}")
    return "\n".join(lines)


def _role(role: str) -> str:
    return "" if role == "admin" else f" ({role})"


def credentials(settings: Settings) -> tuple[str, str]:
    """Return the admin's name and password; raises ServersError before the first set-up."""
    return ADMIN, passwords(passwords_file(settings))[ADMIN]


def ports_in_use(settings: Settings) -> Ports:
    """Return the ports of the running servers, else those that the environment names."""
    started = read_state(settings)
    return started.ports if started else Ports.from_environment()


def _addresses(settings: Settings, ports: Ports) -> str:
    return (
        f"Airflow  {ports.airflow_url}   (`make login` shows the passwords)\n"
        f"MLflow   {mlflow_address(settings, ports)}"
    )


def _silent(_: str) -> None:
    """Report nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `python -m shoetagger.ops.servers`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shoetagger.ops.servers", description=__doc__)
    parser.add_argument("command", choices=["setup", "up", "down", "status", "login", "service"])
    command = parser.parse_args(arguments).command
    try:
        settings = Settings.from_environment()
        if command == "setup":
            setup(settings, Ports.from_environment())
        elif command == "up":
            up(settings, Ports.from_environment())
        elif command == "down":
            down(settings)
        elif command == "status":
            print(status(settings))
            if late := _overdue(settings):
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
