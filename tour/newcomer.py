"""A newcomer's clone: the README's commands run in it, and each step is measured."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shoetagger.config.settings import Settings
from shoetagger.errors import ShoetaggerError
from shoetagger.ops.environment import HOST, Ports, passwords_file

from .plan import STEPS

# What a newcomer has not set, and what would lead to another installation than the clone's.
_FOREIGN = ("SHOETAGGER_", "AIRFLOW_", "MLFLOW_", "DVC_", "VIRTUAL_ENV", "PYTHONPATH", "MAKE")


class TourError(ShoetaggerError):
    """The tour cannot go on; the message says where, and what was seen there."""


@dataclass
class Newcomer:
    """Somebody who clones a repo into a folder, with ports and caches that nothing else uses."""

    folder: Path
    ports: Ports
    say: Callable[[str], None]

    @property
    def clone(self) -> Path:
        return self.folder / "shoetagger"

    @property
    def settings(self) -> Settings:
        """The places of the installation, which are all within the clone."""
        return Settings.from_environment({"SHOETAGGER_REPO": str(self.clone)})

    @property
    def passwords(self) -> dict[str, str]:
        """The passwords of Airflow's users."""
        found: dict[str, str] = json.loads(passwords_file(self.settings).read_text())
        return found

    @property
    def seconds(self) -> dict[str, float]:
        """How long each step took that was done."""
        found: dict[str, float] = {}
        if self._done.is_file():
            found = json.loads(self._done.read_text())
        return found

    def step(self, name: str, do: Callable[[], object]) -> None:
        """Do one of STEPS and measure it, unless it was done here before."""
        if name in self.seconds:
            return
        self.say(f"{name}: {STEPS[name]}")
        begun = time.monotonic()
        do()
        took = time.monotonic() - begun
        self._done.write_text(json.dumps(self.seconds | {name: took}))
        self.say(f"      done after {took:.0f} s")

    @property
    def _done(self) -> Path:
        return self.folder / "seconds.json"

    def run(self, *command: str, cwd: Path | None = None) -> str:
        """Run a command in the clone; return what it prints. Raises TourError with its end."""
        done = subprocess.run(
            command,
            cwd=cwd or self.clone,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise TourError(f"`{' '.join(command)}` failed:\n{done.stdout[-3000:]}")
        return done.stdout

    def program(self, name: str) -> str:
        """Return the path of a program of the clone's .venv."""
        return str(self.clone / ".venv" / "bin" / name)

    def _environment(self) -> dict[str, str]:
        own = {k: v for k, v in os.environ.items() if not k.startswith(_FOREIGN)}
        caches = self.folder / "caches"
        return own | {
            "AIRFLOW_PORT": str(self.ports.airflow),
            "MLFLOW_PORT": str(self.ports.mlflow),
            "SHOETAGGER_USERS": "ann:user",
            "PATH": f"{self.clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
            # Downloads are real, and nothing stays in the caches of whoever takes the tour.
            "XDG_CACHE_HOME": str(caches),
            "UV_CACHE_DIR": str(caches / "uv"),
            "PIP_CACHE_DIR": str(caches / "pip"),
            "DVC_SITE_CACHE_DIR": str(caches / "dvc"),
            "DVC_NO_ANALYTICS": "1",
        }


def free_ports() -> Ports:
    """Return two ports of this machine that nothing listens on."""
    with socket.socket() as one, socket.socket() as other:
        one.bind((HOST, 0))
        other.bind((HOST, 0))
        return Ports(one.getsockname()[1], other.getsockname()[1])


def bytes_of(folder: Path) -> int:
    """Return what a folder takes on disk; a file of several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        seen[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(seen.values())
