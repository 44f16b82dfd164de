"""Stores to test: on SQLite, and on PostgreSQL where the machine has its binaries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import postgres, stores

from shoetagger.store.store import Store

DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'folder' / 'store.db'}"
    else:
        server, _ = request.getfixturevalue("postgres_server")
        with postgres.database(server) as url:
            yield url


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database."""
    if request.param == "sqlite":
        yield stores.migrated(f"sqlite:///{tmp_path / 'store.db'}")
    else:
        server, template = request.getfixturevalue("postgres_server")
        with postgres.database(server, template) as place:
            yield place


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened
