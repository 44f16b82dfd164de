"""The servers' programs: started with this installation's mark, waited for, and ended.

Every server is started with a mark in its environment that its children inherit. Stopping ends
every process with the mark of this installation: so nothing is left over if a parent was killed,
a start was interrupted or the record of processes is lost, and no process that has been given an
old pid is ended.
"""

from __future__ import annotations

import datetime
import pwd
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil

from ..config.settings import Settings
from .environment import MARK, NAME, Report, ServersError, last_lines, log_file, state_file
from .processes import Started, end_processes, marked_processes, read_state, write_state

START_SECONDS = 600.0

# What starts work, or does it, ends first: all that is not named here. Then what that reports to,
# and then what keeps all of it.
LAST_TO_STOP = (("api-server", "mlflow"), ("redis", "seaweedfs"), ("postgres",))


@dataclass(frozen=True)
class Program:
    """How a server is started; `user` is whose process it is to be, None for ours."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(repr=False)
    folder: Path
    user: str | None = None


def already_running(
    settings: Settings, complete: Callable[[Started], bool], report: Report, *, cluster: bool
) -> Started | None:
    """Return what runs, if all of it answers; None where it has to be started.

    Raises ServersError where servers of the other kind run.
    """
    running = read_state(settings)
    if running is None:
        return None
    if running.cluster != cluster and any(map(running.alive, running.processes)):
        other = "make cluster" if running.cluster else "make up"
        raise ServersError(f"what `{other}` started is running here: `make down` ends it")
    if complete(running) and healthy(running, since=None):
        return running
    report("an earlier start was cut off or a server has died: stopping what is left of it")
    return None


@contextmanager
def nothing_left_on_failure(settings: Settings) -> Iterator[None]:
    """End whatever was started if the block fails."""
    try:
        yield
    except BaseException:
        down(settings, silent)
        raise


def silent(_: str) -> None:
    """Report nothing."""


def as_user(name: str | None) -> dict[str, Any]:
    """Return the arguments with which `subprocess` runs a program as a user; None is ourselves."""
    if name is None:
        return {}
    account = pwd.getpwnam(name)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def start(settings: Settings, started: Started, programs: Mapping[str, Program]) -> Started:
    """Start programs, in their order, and return what has been started with them."""
    for name, program in programs.items():
        mark = {MARK: str(settings.home.resolve()), NAME: name}
        with log_file(settings, name).open("wb") as output:
            process = subprocess.Popen(
                program.command,
                env={**program.environment, **mark},
                cwd=program.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C at the terminal must not reach it
                **as_user(program.user),
            )
        known = (process.pid, psutil.Process(process.pid).create_time())
        started = replace(started, processes={**started.processes, name: known})
        write_state(settings, started)
    return started


def wait_until(
    ready: Callable[[], bool], settings: Settings, started: Started, what: str, report: Report
) -> None:
    """Wait until servers are ready; raises ServersError where one ends or they take too long."""
    began = time.time()
    reported = -10.0
    while not ready():
        waited = time.time() - began
        for name in started.processes:
            if not started.alive(name):
                log = log_file(settings, name)
                raise ServersError(
                    f"the {name} ended while starting; its log is {log}\n{last_lines(log)}"
                )
        if waited > START_SECONDS:
            raise ServersError(
                f"{what} do not answer after {START_SECONDS:.0f} s; their logs are in "
                f"{settings.home / 'logs'}"
            )
        if waited - reported >= 10:
            report(f"starting {', '.join(started.processes)} ... {waited:.0f} s")
            reported = waited
        time.sleep(0.5)
    report(f"{what} answer after {time.time() - began:.0f} s")


def healthy(started: Started, since: float | None) -> bool:
    """Tell whether Airflow and MLflow answer; heartbeats before `since` (epoch) are of others.

    They are in the database, where the servers of an earlier start wrote them.
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
    for name in ("scheduler", "dag-processor", "triggerer"):
        if name not in started.processes:
            continue
        part = name.replace("-", "_")
        beat = health[part][f"latest_{part}_heartbeat"]
        if health[part]["status"] != "healthy" or beat is None:
            return False
        if since is not None and datetime.datetime.fromisoformat(beat).timestamp() < since:
            return False
    return True


def down(settings: Settings, report: Report = print) -> int:
    """End every process of this installation's servers, and return how many there were."""
    ended: set[int] = set()
    later = {name for names in LAST_TO_STOP for name in names}
    groups: list[Callable[[str], bool]] = [
        lambda name: bool(name) and name not in later,
        *(names.__contains__ for names in LAST_TO_STOP),
    ]
    everything = len(groups)
    groups.append(lambda _: True)
    for step, belongs in enumerate(groups):
        # Several times, as a process may start another while it is being ended.
        for attempt in range(5):
            group = [process for name, process in marked_processes(settings) if belongs(name)]
            if not group:
                break
            if not ended:
                report("stopping the servers ...")
            ended.update(process.pid for process in group)
            kill = attempt > 0 or step == everything
            end_processes(group, kill=kill, patience=5.0 if kill else 10.0)
    left = marked_processes(settings)
    if left:
        pids = ", ".join(str(process.pid) for _, process in left)
        raise ServersError(f"these processes do not end, even when killed: {pids}")
    state_file(settings).unlink(missing_ok=True)
    report(f"stopped {len(ended)} processes" if ended else "nothing was running")
    return len(ended)
