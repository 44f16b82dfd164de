"""Airflow and MLflow on this machine: set up, start, look at, stop; on 127.0.0.1 only.

Every server is started with a mark in its environment that all its children inherit. Stopping
ends whatever carries the mark of this installation: so nothing is left when a parent was killed,
a start was cut off half way or the pid file is gone, and a recycled pid is never touched.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime
import fcntl
import importlib.metadata
import json
import os
import secrets
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from .errors import ShoetaggerError
from .settings import Settings, sqlite_url, without_password

HOST = "127.0.0.1"
USER = "admin"
POOL = "gpu"
MARK = "SHOETAGGER_SERVERS_OF"
NAME = "SHOETAGGER_SERVER"
START_SECONDS = 600.0
# First those that start work, then those that they report to.
STOP_ORDER = (("scheduler", "dag-processor"), ("api-server", "mlflow"))

Say = Callable[[str], None]


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
        return f"http://{HOST}:{self.mlflow}"


def _port(environ: Mapping[str, str], name: str, default: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ServersError(f"{name}={text!r} is not a port: use a number in 1..65535")
    return int(text)


@dataclass(frozen=True)
class Started:
    """What one `up` started: its ports, and for each server its pid and when that was born."""

    ports: Ports
    processes: Mapping[str, tuple[int, float]]

    def alive(self, name: str) -> bool:
        pid, born = self.processes[name]
        try:
            process = psutil.Process(pid)
            # The clock may be set by a little while it runs, which moves every birth.
            same = abs(process.create_time() - born) < 2
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


# --- places ---------------------------------------------------------------------------------


def airflow_home(settings: Settings) -> Path:
    """Airflow's own folder: its database, secrets and the logs of tasks."""
    return settings.home / "airflow"


def log_file(settings: Settings, server: str) -> Path:
    """Where one server's output goes; the last start's only."""
    return settings.home / "logs" / f"{server}.log"


def task_logs(settings: Settings) -> Path:
    """Root of the logs of Airflow's tasks."""
    return airflow_home(settings) / "logs"


def _passwords(settings: Settings) -> Path:
    return airflow_home(settings) / "passwords.json"


def _state_file(settings: Settings) -> Path:
    return settings.home / "servers.json"


# --- environment ----------------------------------------------------------------------------


def own_mlflow(settings: Settings, ports: Ports) -> str | None:
    """Return the database our MLflow server serves; None where the tracking URI names another's."""
    uri = urlsplit(settings.tracking_uri)
    if uri.scheme not in ("http", "https"):
        return settings.tracking_uri
    if uri.hostname in (HOST, "localhost") and uri.port == ports.mlflow:
        return settings.mlflow_database
    return None


def airflow_environment(settings: Settings, ports: Ports) -> dict[str, str]:
    """Return every variable that Airflow, its tasks and MLflow need; secrets stay in files.

    Meant to be laid over an environment from which foreign `AIRFLOW__*` variables were taken
    (see `whole_environment`): the settings of another Airflow must not reach this one.
    """
    home = airflow_home(settings)
    tracking = ports.mlflow_url if own_mlflow(settings, ports) else settings.tracking_uri
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(settings.repo / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": os.environ.get("AIRFLOW__CORE__PARALLELISM") or "4",
        # The night must come by itself after the first start.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(_passwords(settings)),
        # The next two belong together: with the port alone, every task fails without a word.
        "AIRFLOW__API__BASE_URL": ports.airflow_url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{ports.airflow_url}/execution/",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(ports.airflow),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": sqlite_url(home / "airflow.db"),
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(task_logs(settings)),
        "AIRFLOW__WORKERS__EXECUTION_API_RETRIES": "10",
        "MLFLOW_TRACKING_URI": tracking,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
        "SCARF_ANALYTICS": "false",
        "SHOETAGGER_REPO": str(settings.repo),
        "SHOETAGGER_HOME": str(settings.home),
        "SHOETAGGER_INBOX": str(settings.inbox),
        "SHOETAGGER_STORE_URL": settings.store_url,
        "SHOETAGGER_DEVICE": settings.device,
        # The code of the repo that is served, whatever else is installed.
        "PYTHONPATH": _joined(str(settings.repo / "src"), os.environ.get("PYTHONPATH")),
        "PATH": _joined(str(Path(sys.executable).parent), os.environ.get("PATH")),
        "PYTHONUNBUFFERED": "1",
        # Threads that spin while they wait starve each other where servers share the cores:
        # measured on 2 busy cores, training took six times as long and eight times the CPU.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY") or "PASSIVE",
        # Titles of processes must not overwrite the environment that carries our mark.
        "SPT_NOENV": "1",
        MARK: str(settings.home.resolve()),
    }


def whole_environment(settings: Settings, ports: Ports) -> dict[str, str]:
    """Return the caller's environment, without another Airflow's settings, under our own."""
    outer = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW__")}
    return outer | airflow_environment(settings, ports)


def _joined(first: str, rest: str | None) -> str:
    return first if not rest else f"{first}{os.pathsep}{rest}"


# --- set up ---------------------------------------------------------------------------------


def setup(settings: Settings, ports: Ports, say: Say = print) -> None:
    """Make folders and secrets, migrate store, MLflow and Airflow, create the pool; idempotent."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_one_starts(settings, say):
        _setup(settings, ports, say)


def _setup(settings: Settings, ports: Ports, say: Say) -> None:
    for folder in (airflow_home(settings), settings.home / "logs"):
        folder.mkdir(exist_ok=True)
    airflow_home(settings).chmod(0o700)
    if settings.inbox.is_relative_to(settings.home):
        settings.inbox.mkdir(parents=True, exist_ok=True)
    _write_secrets(settings)
    _migrate_store(settings)
    _migrate_mlflow(settings, ports, say)
    _migrate_airflow(settings, ports, say)


def _write_secrets(settings: Settings) -> None:
    """Write password and keys once, readable by their owner alone."""
    config = airflow_home(settings) / "airflow.cfg"
    if not config.exists():
        fernet = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
        _write_private(
            config,
            "# Generated secrets; everything else comes from the environment.\n"
            f"[core]\nfernet_key = {fernet}\n\n"
            f"[api]\nsecret_key = {secrets.token_urlsafe(48)}\n\n"
            f"[api_auth]\njwt_secret = {secrets.token_urlsafe(96)}\n",
        )
    if not _passwords(settings).exists():
        _write_private(_passwords(settings), json.dumps({USER: secrets.token_urlsafe(12)}) + "\n")


def _write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600 whole or not at all."""
    beside = path.with_name(path.name + ".new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


def _migrate_store(settings: Settings) -> None:
    from .store import Store

    store = Store(settings.store_url)
    try:
        store.migrate()
    finally:
        store.close()


def _migrate_mlflow(settings: Settings, ports: Ports, say: Say) -> None:
    """Bring our MLflow database up to date before anything touches it in parallel."""
    database = own_mlflow(settings, ports)
    if database is None:
        return
    say("setting up MLflow's database")
    settings.artifacts.mkdir(parents=True, exist_ok=True)
    from . import tracking

    tracking.prepare(database)


def _migrate_airflow(settings: Settings, ports: Ports, say: Say) -> None:
    """Migrate Airflow's database and make sure of the pool, once a version of Airflow."""
    slots = os.environ.get("SHOETAGGER_GPU_SLOTS") or ""
    if slots and not slots.isdecimal():
        raise ServersError(f"SHOETAGGER_GPU_SLOTS={slots!r} is not a number of slots")
    version = importlib.metadata.version("apache-airflow")
    stamp = airflow_home(settings) / f"migrated-{version}{'-' + slots if slots else ''}"
    database = airflow_home(settings) / "airflow.db"
    if stamp.exists() and database.exists():
        return
    say("setting up Airflow's database")
    with _migrated_beside(database) as beside:

        def airflow(*arguments: str) -> str:
            there = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{beside}"}
            purpose = "set up Airflow's database"
            return _run_once(settings, ports, "airflow", arguments, purpose, there)

        airflow("db", "migrate")
        # Slots that somebody changed in the UI are left alone, unless the environment says so.
        if slots or f'"{POOL}"' not in airflow("pools", "list", "-o", "json"):
            airflow("pools", "set", POOL, slots or "1", "tasks that fill the GPU, or all cores")
    for old in airflow_home(settings).glob("migrated-*"):
        old.unlink()
    stamp.touch()


@contextlib.contextmanager
def _migrated_beside(path: Path) -> Iterator[Path]:
    """Yield a copy of an SQLite database to migrate, which then takes the place of `path`.

    A migration that is cut off leaves its database half made, which no later one mends.
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


def _run_once(
    settings: Settings,
    ports: Ports,
    tool: str,
    arguments: Sequence[str],
    purpose: str,
    changes: Mapping[str, str] | None = None,
) -> str:
    """Run one command of a tool to its end and return its output."""
    environment = whole_environment(settings, ports) | dict(changes or {})
    del environment[MARK]  # not a server: `down` in another terminal must not end it
    done = subprocess.run(
        [_script(tool), *arguments],
        env=environment,
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
            f"its log is {log}\n{_last_lines(log)}"
        )
    return done.stdout


def _script(tool: str) -> str:
    return str(Path(sys.executable).with_name(tool))


# --- up -------------------------------------------------------------------------------------


def server_commands(settings: Settings, ports: Ports) -> dict[str, list[str]]:
    """Return the command of each server, in the order of starting."""
    commands = {
        # Without it Airflow would serve its log files on all interfaces; the API server reads
        # the files themselves.
        "scheduler": [_script("airflow"), "scheduler", "--skip-serve-logs"],
        "dag-processor": [_script("airflow"), "dag-processor"],
        "api-server": [
            *(_script("airflow"), "api-server", "--host", HOST, "--port", str(ports.airflow)),
        ],
    }
    database = own_mlflow(settings, ports)
    if database is not None:
        commands["mlflow"] = [
            *(_script("mlflow"), "server", "--host", HOST, "--port", str(ports.mlflow)),
            *("--backend-store-uri", database),
            *("--default-artifact-root", settings.artifacts.as_uri()),
            *("--no-serve-artifacts", "--workers", "1"),
        ]
    return commands


def up(settings: Settings, ports: Ports, say: Say = print) -> Ports:
    """Set up and start what is not running and wait until it answers; returns the ports in use.

    Raises ServersError when a port is taken or a server does not come up: then none is left.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_one_starts(settings, say):
        running = _read_state(settings)
        if running is not None:
            if _complete(settings, running) and _healthy(running, since=None):
                say(f"already running; `make down` stops it\n{_addresses(settings, running.ports)}")
                return running.ports
            say("an earlier start was cut off or a server has died: stopping what is left of it")
        down(settings, _silent)
        commands = server_commands(settings, ports)
        _refuse_taken_ports(ports, commands)
        _setup(settings, ports, say)
        try:
            started = _start(settings, ports, commands)
            _wait_until_healthy(settings, started, say)
        except BaseException:
            down(settings, _silent)
            raise
        say(_addresses(settings, ports))
        return ports


@contextlib.contextmanager
def _only_one_starts(settings: Settings, say: Say) -> Iterator[None]:
    """Hold the lock of `up`; the system drops it when this process dies in whatever way."""
    with (settings.home / "servers.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("the servers are being started elsewhere: waiting for that")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _start(settings: Settings, ports: Ports, commands: Mapping[str, Sequence[str]]) -> Started:
    environment = whole_environment(settings, ports)
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
        _write_state(settings, Started(ports, processes))
    return Started(ports, processes)


def _wait_until_healthy(settings: Settings, started: Started, say: Say) -> None:
    begun = time.time()
    reported = -10.0
    while not _healthy(started, since=begun - 5):
        waited = time.time() - begun
        for name in started.processes:
            if not started.alive(name):
                log = log_file(settings, name)
                raise ServersError(
                    f"the {name} ended while starting; its log is {log}\n{_last_lines(log)}"
                )
        if waited > START_SECONDS:
            raise ServersError(
                f"Airflow and MLflow do not answer after {START_SECONDS:.0f} s; their logs are in "
                f"{settings.home / 'logs'}"
            )
        if waited - reported >= 10:
            say(f"starting {', '.join(started.processes)} ... {waited:.0f} s")
            reported = waited
        time.sleep(0.5)
    say(f"Airflow and MLflow answer after {time.time() - begun:.0f} s")


def _healthy(started: Started, since: float | None) -> bool:
    """Whether every server answers; heartbeats older than `since` (epoch) are another's."""
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
    return set(started.processes) == set(server_commands(settings, started.ports))


def _refuse_taken_ports(ports: Ports, commands: Mapping[str, Sequence[str]]) -> None:
    wanted = {"AIRFLOW_PORT": ("Airflow", ports.airflow, 8081)}
    if "mlflow" in commands:
        wanted["MLFLOW_PORT"] = ("MLflow", ports.mlflow, 5001)
    for variable, (title, port, other) in wanted.items():
        with socket.socket() as probe:
            # Connections that were closed a moment ago do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except PermissionError:
                raise ServersError(
                    f"port {port} for {title} needs rights that you lack: take one above 1023, "
                    f"as in `make up {variable}={other}`"
                ) from None
            except OSError:
                raise ServersError(
                    f"port {port} for {title} is taken by {_owner(port)}: stop that, or choose "
                    f"other ports, as in `make up AIRFLOW_PORT={_free_port_near(ports.airflow)} "
                    f"MLFLOW_PORT={_free_port_near(ports.mlflow)}`"
                ) from None


def _owner(port: int) -> str:
    """Describe the process that listens on a port, as far as we may see it."""
    try:
        for connection in psutil.net_connections("tcp"):
            here = connection.laddr
            if connection.status == psutil.CONN_LISTEN and here and here.port == port:
                if connection.pid is None:
                    break
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"process {connection.pid} ({command[:80]})"
    except psutil.Error:
        pass
    return "another user's process"


def _free_port_near(port: int) -> int:
    """Return the first port from `port` upwards on which nothing listens."""
    for candidate in range(port, 65536):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, candidate))
                return candidate
    return port


# --- down, status, login --------------------------------------------------------------------


def down(settings: Settings, say: Say = print) -> int:
    """End every process of this installation's servers; returns how many there were."""
    ended: set[int] = set()
    for names, patience in ((STOP_ORDER[0], 10.0), (STOP_ORDER[1], 10.0), (None, 0.0)):
        # Again and again, for a process may be born while others are being ended.
        for attempt in range(5):
            group = [
                process
                for name, process in marked_processes(settings)
                if names is None or name in names
            ]
            if not group:
                break
            if not ended:
                say("stopping Airflow and MLflow ...")
            ended.update(process.pid for process in group)
            kill = attempt > 0 or names is None
            _end(group, kill=kill, patience=5.0 if kill else patience)
    left = marked_processes(settings)
    if left:
        pids = ", ".join(str(process.pid) for _, process in left)
        raise ServersError(f"these processes do not end, even when killed: {pids}")
    _state_file(settings).unlink(missing_ok=True)
    say(f"stopped {len(ended)} processes" if ended else "nothing was running")
    return len(ended)


def marked_processes(settings: Settings) -> list[tuple[str, psutil.Process]]:
    """Return (server, process) of everything that this installation's servers started."""
    home = str(settings.home.resolve())
    spared = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in spared:
            continue
        try:
            environment = process.environ()
            if environment.get(MARK) == home and process.status() != psutil.STATUS_ZOMBIE:
                found.append((environment.get(NAME, ""), process))
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
    return found


def _end(processes: Sequence[psutil.Process], *, kill: bool, patience: float) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if kill:
                process.kill()
            else:
                process.terminate()
    psutil.wait_procs(processes, timeout=patience)


def status(settings: Settings) -> str:
    """Describe in a few lines what runs and where."""
    started = _read_state(settings)
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


def login(settings: Settings) -> str:
    """Say where to browse, as whom, and with which password."""
    user, password = credentials(settings)
    return f"user {user}, password {password}\n{_addresses(settings, ports_in_use(settings))}"


def credentials(settings: Settings) -> tuple[str, str]:
    """Return user and password of Airflow; raises ServersError before the first set-up."""
    try:
        return USER, json.loads(_passwords(settings).read_text(encoding="utf-8"))[USER]
    except FileNotFoundError:
        raise ServersError("Airflow is not set up yet: run `make up`") from None


def ports_in_use(settings: Settings) -> Ports:
    """Return the ports of the running servers, else those that the environment names."""
    started = _read_state(settings)
    return started.ports if started else Ports.from_environment()


def _addresses(settings: Settings, ports: Ports) -> str:
    theirs = without_password(settings.tracking_uri)
    mlflow = ports.mlflow_url if own_mlflow(settings, ports) else theirs
    return f"Airflow  {ports.airflow_url}   (`make login` shows the password)\nMLflow   {mlflow}"


def _write_state(settings: Settings, started: Started) -> None:
    path = _state_file(settings)
    beside = path.with_name(path.name + ".new")
    document = {
        "airflow_port": started.ports.airflow,
        "mlflow_port": started.ports.mlflow,
        "processes": started.processes,
    }
    beside.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    beside.replace(path)


def _read_state(settings: Settings) -> Started | None:
    try:
        document = json.loads(_state_file(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Started(
        Ports(document["airflow_port"], document["mlflow_port"]),
        {name: (pid, born) for name, (pid, born) in document["processes"].items()},
    )


def _last_lines(path: Path, count: int = 15) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(f"  | {line}" for line in lines[-count:])


def _silent(_: str) -> None:
    """Say nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command of `python -m shoetagger.servers`; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shoetagger.servers", description=__doc__)
    parser.add_argument("command", choices=["setup", "up", "down", "status", "login"])
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
