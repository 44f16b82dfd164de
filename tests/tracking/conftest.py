"""An empty MLflow for each test, migrated once per worker."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from shoetagger.tracking.connection import prepare


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a migrated database, to be copied: the migration takes a second or more."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    prepare(f"sqlite:///{path}")
    return path


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
