"""src/stage.sh, which dvc.yaml runs, finds a Python with this package, or says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "src" / "stage.sh"


@pytest.fixture
def environment() -> dict[str, str]:
    """Variables under which no environment is activated and no package is on the path."""
    outer = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    venv = str(Path(sys.executable).parent)
    path = [folder for folder in outer["PATH"].split(os.pathsep) if folder != venv]
    return outer | {"PATH": os.pathsep.join(path)}


def run_stage(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(SCRIPT), "split", "--help"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def unusable_python(folder: Path) -> str:
    folder.mkdir()
    (folder / "python").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    (folder / "python").chmod(0o755)
    return str(folder)


@pytest.mark.slow
@pytest.mark.parametrize("first", ["no python", "an unusable python"])
def test_a_stage_runs_by_the_venv_of_the_folder(
    tmp_path: Path, environment: dict[str, str], first: str
) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    if first == "an unusable python":
        broken = unusable_python(tmp_path / "bin")
        environment["PATH"] = os.pathsep.join([broken, environment["PATH"]])
    done = run_stage(tmp_path, environment)
    assert done.returncode == 0, done.stderr
    assert "shoetagger.stages.split" in done.stdout or "usage" in done.stdout.lower()


@pytest.mark.slow
def test_an_activated_environment_comes_first(tmp_path: Path, environment: dict[str, str]) -> None:
    """As in a checkout, which has no .venv, and beside a .venv that is another's."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    broken = unusable_python(tmp_path / "other")
    (tmp_path / ".venv" / "bin" / "python").symlink_to(Path(broken) / "python")
    venv = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([venv, environment["PATH"]])
    done = run_stage(tmp_path, environment)
    assert done.returncode == 0, done.stderr


def test_without_any_python_the_message_says_in_one_line_what_to_do(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    environment["PATH"] = os.pathsep.join([unusable_python(tmp_path / "bin"), environment["PATH"]])
    done = run_stage(tmp_path, environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "shoetagger is not installed here: run `make setup`, then `. .venv/bin/activate`\n"
    )
