"""Runs a program with Airflow in it, as tasks of an installation find it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from helpers import fork_server

from shoetagger.config.settings import Settings
from shoetagger.ops import environment as environment_module

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


class Outcome(NamedTuple):
    """The JSON that a program wrote, and all that it printed."""

    report: dict[str, Any]
    log: str


def run_program(
    program: str, settings: Settings, *arguments: str, cwd: Path, **environment: str
) -> Outcome:
    """Run Python code in a process of its own; it writes a report to its last argument.

    The process neither searches what it imports for garbage nor takes it apart at its end: that
    would be half of the CPU time of a program that imports Airflow and torch.
    """
    report = settings.home / "report.json"
    report.unlink(missing_ok=True)
    done = subprocess.run(
        fork_server.python("-c", f"{_BEGIN}{program}{_END}", *arguments, report),
        env=environment_module.whole_environment(settings, environment_module.Ports())
        | {"MLFLOW_TRACKING_URI": settings.tracking_uri}
        | environment,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert report.exists(), done.stdout[-8000:]
    return Outcome(json.loads(report.read_text()), done.stdout)
