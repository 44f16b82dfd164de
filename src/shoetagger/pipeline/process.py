"""git and dvc as child processes; dvc ends with this one."""

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

from ..config.settings import Settings, redacted
from ..errors import ShoetaggerError, TransientError

logger = logging.getLogger(__name__)


LAST_LINES = 20  # of a failed command's output, for the error
GRACE_SECONDS = 20.0  # between the interrupt and the kill of a command whose caller is gone
_GUARD, _DVC = (Path(__file__).with_name(name) for name in ("guard.py", "dvc_program.py"))


class PipelineError(ShoetaggerError):
    """A run cannot be prepared, or a command of it failed; a retry would fail as well."""


class TransientPipelineError(PipelineError, TransientError):
    """A retry may succeed: DVC was busy, a remote did not answer, a stage was killed."""


# Lines of DVC's output, and what they mean.
_PHRASES = {
    "busy": re.compile(r"is busy, it is being blocked by|Unable to acquire lock"),
    "killed": re.compile(r"failed to run: .*exited with (-\d+|1[3-5]\d)\s*$"),
    "ran": re.compile(r"Running stage '"),
    "restored": re.compile(r"is cached - skipping run, checking out outputs"),
}

# What DVC advises after a stage is for a workspace; a checkout is thrown away.
_ADVICE = re.compile(
    r"To track the changes with git, run:|\s*git add |To enable auto staging, run:"
    r"|\s*dvc config core\.autostage true|Use `dvc push` to send your updates"
)

# A git hook or a DVC stage around us sets these for another repo.
_OF_ANOTHER_REPO = frozenset(
    ["DVC_ROOT", "DVC_STAGE"]
    + [f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "COMMON_DIR")]
    + ["GIT_OBJECT_DIRECTORY"]
)


def command_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a git or dvc command: this Python's programs, no other repo."""
    environment = {name: value for name, value in base.items() if name not in _OF_ANOTHER_REPO}
    binaries = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([binaries, base.get("PATH", os.defpath)])
    environment["DVC_NO_ANALYTICS"] = "1"
    environment["SHELL"] = "/bin/sh"  # DVC would take the account's shell, which may not exist
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


def run_git(folder: Path, *arguments: str, stdin: str = "") -> str:
    """Return the output of a git command; PipelineError with its error output if it fails."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=command_environment(os.environ) | {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"},
        input=stdin,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    if done.returncode != 0:
        reason = redacted(done.stderr.strip())
        raise PipelineError(f"`git {arguments[0]}` failed in {folder}: {reason}")
    return done.stdout


@dataclass(frozen=True)
class CommandResult:
    """How a command ended: exit status, the phrases of _PHRASES in its output, its last lines."""

    code: int
    seen: frozenset[str]
    tail: str


def run_dvc(folder: Path, environment: Mapping[str, str], *arguments: str) -> CommandResult:
    """Run a DVC command; how it ended is for the caller to judge."""
    logger.info("dvc %s", " ".join(arguments))
    command = [sys.executable, "-P", str(_DVC), "--wait-for-lock", *arguments]
    return _run(command, folder, environment)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> CommandResult:
    """Run a command and log its output; it ends with this process, however that ends."""
    process = subprocess.Popen(
        [sys.executable, "-I", str(_GUARD), str(GRACE_SECONDS), *command],
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
        _follow(process.stdout, seen, tail)  # its output while it ends
        process.stdout.close()
        code = process.wait()
    return CommandResult(code, frozenset(seen), "\n".join(tail))


def _follow(lines: Iterable[str], seen: set[str], tail: deque[str]) -> None:
    for line in lines:
        text = redacted(line.rstrip())  # DVC and git show addresses of remotes as they are
        if not text or _ADVICE.match(text):
            continue
        logger.info("%s", text)
        tail.append(text)
        seen.update(name for name, phrase in _PHRASES.items() if phrase.search(text))
