"""An empty MLflow for each test."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path) -> Path:
    """Return a migrated database of this worker, to be copied for each test."""
    return Path(shutil.copy(empty_mlflow, tmp_path_factory.mktemp("mlflow") / "empty.db"))


@pytest.fixture
def uri(empty_database: Path) -> str:
    """Return an empty MLflow, always at one address: connecting to a new one takes half a second.

    The old contents are overwritten by SQLite's backup, which works beside open connections.
    """
    path = empty_database.with_name("mlflow.db")
    with (
        closing(sqlite3.connect(empty_database)) as empty,
        closing(sqlite3.connect(path)) as database,
    ):
        empty.backup(database)
    return f"sqlite:///{path}"
