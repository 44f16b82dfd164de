"""Runs programs with Airflow in them, as tasks of an installation find it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from helpers import fork_server

from shoetagger.config.settings import Settings
from shoetagger.ops.environment import Ports, whole_environment

_BEGIN = """
import gc
gc.disable()
"""
_END = """
import os, sys
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""

# Runs each program that it is asked for in a fork, which dies with it.
_SERVE = """
import ctypes, json, os, signal, sys
from airflow.api_fastapi import app
from airflow.dag_processing import dagbag
from airflow.sdk.execution_time.supervisor import in_process_api_server
# The tasks of a `dag.test` ask it. Its first request would make the routes: two seconds.
in_process_api_server().app._cadwyn_initialize()
if sys.argv[1:] == ["with-app"]:
    app.cached_app()
print("ready", flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    forked = os.fork()
    if not forked:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(asked["variables"])
        sys.argv[1:] = asked["arguments"]
        try:
            exec(asked["program"], {"__name__": "__main__"})
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.waitpid(forked, 0)
    print("done", flush=True)
"""


class Outcome(NamedTuple):
    """The JSON that a program wrote, and all that it printed."""

    report: dict[str, Any]
    log: str


@dataclass(frozen=True)
class Airflow:
    """A process that has imported Airflow, of one installation."""

    settings: Settings
    process: subprocess.Popen[str]

    def run(self, program: str, *arguments: str, **variables: str) -> Outcome:
        """Run Python code in a fork of it; the code writes a report to its last argument."""
        report, log = self.settings.home / "report.json", self.settings.home / "report.log"
        report.unlink(missing_ok=True)
        asked = {"program": program, "variables": variables, "log": str(log)}
        asked["arguments"] = [*arguments, str(report)]
        print(json.dumps(asked), file=self.process.stdin, flush=True)
        _wait_for("done", self.process.stdout)
        printed = log.read_text(errors="replace")
        assert report.exists(), printed[-8000:]
        return Outcome(json.loads(report.read_text()), printed)


@contextmanager
def airflow(settings: Settings, *, with_app: bool = False) -> Iterator[Airflow]:
    """Import Airflow once, for all programs that a module's tests run in the installation's repo.

    Importing it takes longer than most of them; so does making the app of its API, which programs
    find as `cached_app()` where it is asked for.
    """
    process = subprocess.Popen(
        fork_server.python("-c", f"{_BEGIN}{_SERVE}", *(["with-app"] if with_app else [])),
        env=_environment(settings),
        cwd=settings.repo,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            _wait_for("ready", process.stdout)
            yield Airflow(settings, process)
        finally:
            with suppress(subprocess.TimeoutExpired):  # a program that hangs
                process.communicate(timeout=30)
            process.kill()


def _wait_for(word: str, lines: IO[str] | None) -> None:
    """Read what Airflow says until this word."""
    assert lines is not None
    assert any(line == f"{word}\n" for line in lines), f"it ended before it said {word!r}"


def run_program(
    program: str, settings: Settings, *arguments: str, cwd: Path, **variables: str
) -> Outcome:
    """Run Python code in a process of its own; it writes a report to its last argument.

    The process neither searches what it imports for garbage nor takes it apart at its end: that
    would be half of the CPU time of a program that imports Airflow and torch.
    """
    report = settings.home / "report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        fork_server.python("-c", f"{_BEGIN}{program}{_END}", *arguments, report),
        env=_environment(settings) | variables,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert report.exists(), done.stdout[-8000:]
    return Outcome(json.loads(report.read_text()), done.stdout)


def _environment(settings: Settings) -> dict[str, str]:
    return whole_environment(settings, Ports()) | {"MLFLOW_TRACKING_URI": settings.tracking_uri}
