"""The servers' processes: recorded, found again and ended."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from ..atomic import atomic_write
from ..config.settings import Settings, redacted
from .environment import HOST, MARK, NAME, Ports, ServersError, state_file


@dataclass(frozen=True)
class Started:
    """What was started: the ports, and the pid and creation time (epoch) of each server."""

    ports: Ports
    processes: Mapping[str, tuple[int, float]]
    cluster: bool = False  # by `make cluster`; else by `make up`

    def alive(self, name: str) -> bool:
        """Return whether a server still runs, and is not another process with its pid."""
        pid, created = self.processes[name]
        try:
            process = psutil.Process(pid)
            # A correction of the clock moves the creation times of all processes a little.
            same = abs(process.create_time() - created) < 2
            return bool(same and process.status() != psutil.STATUS_ZOMBIE)
        except psutil.Error:
            return False


def refuse_taken_ports(ports: Ports, servers: Collection[str]) -> None:
    """Raise ServersError, naming the process and free ports, where a server's port is in use."""
    wanted = {"AIRFLOW_PORT": ("Airflow", ports.airflow, 8081)}
    if "mlflow" in servers:
        wanted["MLFLOW_PORT"] = ("MLflow", ports.mlflow, 5001)
    for variable, (title, port, other) in wanted.items():
        with socket.socket() as probe:
            # A port with connections that were closed a moment ago is free.
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
                    f"other ports, as in `make up AIRFLOW_PORT={free_port_near(ports.airflow)} "
                    f"MLFLOW_PORT={free_port_near(ports.mlflow)}`"
                ) from None


def _owner(port: int) -> str:
    """Describe the process that listens on a port, where its user is ours."""
    try:
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status == psutil.CONN_LISTEN and local and local.port == port:
                if connection.pid is None:
                    break
                command = " ".join(psutil.Process(connection.pid).cmdline())
                return f"process {connection.pid} ({command[:80]})"
    except psutil.Error:
        pass
    return "another user's process"


def free_port_near(port: int, also: int = 0) -> int:
    """Return the first port from `port` upwards on which nothing listens.

    Nothing listens on the port `also` numbers above it, either.
    """
    for candidate in range(port, 65536 - also):
        with socket.socket() as probe, socket.socket() as other:
            for each in (probe, other):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((HOST, candidate))
                if also:
                    other.bind((HOST, candidate + also))
                return candidate
    return port


def marked_processes(settings: Settings) -> list[tuple[str, psutil.Process]]:
    """Return (server, process) of everything that this installation's servers started."""
    home = str(settings.home.resolve())
    ourselves = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in ourselves:
            continue
        try:
            environment = process.environ()
            if environment.get(MARK) == home and process.status() != psutil.STATUS_ZOMBIE:
                found.append((environment.get(NAME, ""), process))
        except (psutil.Error, OSError):
            continue  # it has ended since, or is another user's
    return found


def processes_with_open(files: Sequence[Path]) -> list[str]:
    """Describe the other processes that have one of these files open, as far as we may see it."""
    wanted = {str(file.resolve()) for file in files}
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(f.path in wanted for f in process.open_files()):
                command = redacted(" ".join(" ".join(process.cmdline()).split()))
                found.append(f"process {process.pid} ({command[:80]})")
        except (psutil.Error, OSError):
            continue  # it has ended since, or is another user's
    return found


def end_processes(processes: Sequence[psutil.Process], *, kill: bool, patience: float) -> None:
    """Terminate processes, or kill them, and wait up to `patience` seconds for their end."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if kill:
                process.kill()
            else:
                process.terminate()
    psutil.wait_procs(processes, timeout=patience)


def write_state(settings: Settings, started: Started) -> None:
    """Record what was started, for `read_state`."""
    document = {
        "airflow_port": started.ports.airflow,
        "mlflow_port": started.ports.mlflow,
        "processes": started.processes,
        "cluster": started.cluster,
    }
    with atomic_write(state_file(settings)) as file:
        file.write(json.dumps(document, indent=2).encode() + b"\n")


def read_state(settings: Settings) -> Started | None:
    """Return what was started last; None where nothing was started, or all was ended."""
    try:
        document = json.loads(state_file(settings).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Started(
        Ports(document["airflow_port"], document["mlflow_port"]),
        {name: (pid, created) for name, (pid, created) in document["processes"].items()},
        document.get("cluster", False),  # a file of before has none
    )
