"""A guarded command ends when its caller does, and its exit status is passed on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoetagger.pipeline import guard

WAIT = "trap '{}' INT; echo ready; while :; do sleep 0.05; done"


def guarded(command: str, grace_seconds: float = 20.0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-I", str(guard.__file__), str(grace_seconds), "sh", "-c", command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "the process is still there"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("command", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -KILL $$", 128 + signal.SIGKILL)]
)
def test_the_exit_status_is_that_of_the_command(command: str, status: int) -> None:
    with guarded(f"echo output; {command}") as process:
        assert process.stdout is not None
        assert process.stdout.read() == "output\n"
        assert process.wait() == status


def test_a_command_is_interrupted_when_its_caller_goes() -> None:
    with guarded(WAIT.format("echo interrupted; exit 5")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.close()
        assert process.stdout.read() == "interrupted\n"
        assert process.wait() == 5


def test_a_command_that_ignores_the_interrupt_is_killed() -> None:
    with guarded(WAIT.format(""), grace_seconds=0.1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.close()
        assert process.wait() == 128 + signal.SIGKILL


def test_processes_that_a_command_leaves_behind_are_killed() -> None:
    with guarded("sleep 60 >/dev/null & echo $!") as process:
        assert process.stdout is not None
        left = int(process.stdout.readline())
        assert process.wait() == 0
        until_gone(left)


def test_a_guard_imports_nothing_that_pythonpath_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "signal.py").write_text("raise SystemExit('not the standard library')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with guarded('echo "$PYTHONPATH"') as process:
        assert process.stdout is not None
        assert process.stdout.read() == f"{tmp_path}\n"
        assert process.wait() == 0
