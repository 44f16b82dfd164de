"""git and dvc as child processes that end with this one."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config.settings import Settings
from ..errors import ShoetaggerError, TransientError

logger = logging.getLogger(__name__)


LAST_LINES = 20  # of a failed command's output, for the error


class PipelineError(ShoetaggerError):
    """A run cannot be prepared, or a command of it failed; doing it again fails again."""


class TransientPipelineError(PipelineError, TransientError):
    """What failed may pass by itself: DVC is busy, a remote is away, a stage was killed."""


# What DVC says, and what it means.
_PHRASES = {
    "busy": re.compile(r"is busy, it is being blocked by|Unable to acquire lock"),
    "killed": re.compile(r"failed to run: .*exited with (-\d+|1[3-5]\d)\s*$"),
    "ran": re.compile(r"Running stage '"),
    "restored": re.compile(r"is cached - skipping run, checking out outputs"),
}

# --- processes ----------------------------------------------------------------------------------
_OF_ANOTHER_REPO = frozenset(
    ["DVC_ROOT", "DVC_STAGE"]
    + [f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "COMMON_DIR")]
    + ["GIT_OBJECT_DIRECTORY"]
)


def command_environment(base: Mapping[str, str]) -> dict[str, str]:
    environment = {
        name: value
        for name, value in base.items()
        # A git hook or a DVC stage around us speaks of another repo.
        if name not in _OF_ANOTHER_REPO
    }
    binaries = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([binaries, base.get("PATH", os.defpath)])
    environment["DVC_NO_ANALYTICS"] = "1"
    environment["SHELL"] = "/bin/sh"  # DVC would take that of the account, which may be none
    return environment


def stage_environment(settings: Settings, folder: Path) -> dict[str, str]:
    """Return the variables of a stage that runs in a checkout, with the code of that commit."""
    environment = command_environment(os.environ)
    path = [str(folder / "src"), environment.get("PYTHONPATH", "")]
    return (
        environment
        | replace(settings, repo=folder).as_environment()
        | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONUNBUFFERED": "1"}
    )


def run_git(folder: Path, *arguments: str, say: str = "") -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=command_environment(os.environ) | {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"},
        input=say,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    if done.returncode != 0:
        raise PipelineError(f"`git {arguments[0]}` failed in {folder}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class _Ended:
    """How a command ended: exit status, the phrases of _PHRASES it said, its last lines."""

    code: int
    seen: frozenset[str]
    tail: str


# Stands between us and a command, and ends the command's process group when we are gone or hang up
# (its standard input ends): the task of an Airflow that is killed cannot do it any more.
# Interrupt first, as Ctrl-C does, so that a training run closes its log; then kill.
_GUARD = """
import os, signal, subprocess, sys, threading, time
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a server started in the background ignores it
command = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, process_group=0)

def end(number):
    try:
        os.killpg(command.pid, number)
    except ProcessLookupError:
        pass

def watch():
    os.read(0, 1)
    end(signal.SIGINT)
    time.sleep(float(sys.argv[1]))
    end(signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
code = command.wait()
end(signal.SIGKILL)  # what it may have left behind
os._exit(code if code >= 0 else 128 - code)
"""

GRACE_SECONDS = 20.0


def run_dvc(folder: Path, environment: Mapping[str, str], *arguments: str) -> _Ended:
    return _run([sys.executable, "-m", "dvc", "--wait-for-lock", *arguments], folder, environment)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> _Ended:
    """Run a command, its output into the log; it dies with us, whatever ends us."""
    logger.info("%s", " ".join(command[2:]))
    process = subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(GRACE_SECONDS), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    seen: set[str] = set()
    tail: deque[str] = deque(maxlen=LAST_LINES)
    try:
        _follow(process.stdout, seen, tail)
    finally:
        process.stdin.close()
        _follow(process.stdout, seen, tail)  # what it says while it ends
        process.stdout.close()
        code = process.wait()
    return _Ended(code, frozenset(seen), "\n".join(tail))


def _follow(lines: Iterable[str], seen: set[str], tail: deque[str]) -> None:
    for line in lines:
        text = line.rstrip()
        if not text:
            continue
        logger.info("%s", text)
        tail.append(text)
        seen.update(name for name, phrase in _PHRASES.items() if phrase.search(text))
