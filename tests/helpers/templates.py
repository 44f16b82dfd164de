"""Folders that take long to make, made once for all workers of a test run and copied from then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from shoetagger.config.settings import Settings
from shoetagger.ops.environment import Ports
from shoetagger.ops.setup import setup
from shoetagger.tracking.connection import prepare


def once(folder: Path, name: str, make: Callable[[Path], None]) -> Path:
    """Return `folder`/`name`; the first process that asks for it fills it with `make`."""
    made, beside = folder / name, folder / f"{name}.new"
    with FileLock(folder / f"{name}.lock"):
        if not made.exists():
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            make(beside)
            beside.rename(made)
    return made


def migrate_mlflow(folder: Path) -> None:
    """Make an empty MLflow database, `mlflow.db`."""
    prepare(f"sqlite:///{folder / 'mlflow.db'}")


def set_up(folder: Path) -> None:
    """Make what `setup` makes in a home: secrets, and the databases of the three services."""
    environment = {"SHOETAGGER_HOME": str(folder)}
    setup(Settings.from_environment(environment), Ports(), report=lambda _: None)
