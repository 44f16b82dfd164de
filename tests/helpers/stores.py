"""What tests put into a store, and how they read it."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from shoetagger.ingest.folder import locator_of
from shoetagger.ingest.inbox import Arrival
from shoetagger.store import tables
from shoetagger.store.rows import (
    CurrentRow,
    Prediction,
    Tagged,
    file_id_of,
)
from shoetagger.store.store import Store

NIGHT = datetime(2026, 11, 1, 2, tzinfo=UTC)
LATER = NIGHT + timedelta(days=1)
RED, BLUE, TEAL, BOOT = "1" * 64, "2" * 64, "3" * 64, "4" * 64


def migrated(store_url: str) -> str:
    """Make a store, on SQLite by a copy of one that was migrated; return its URL."""
    url = sa.make_url(store_url)
    if url.drivername == "sqlite":
        file = Path(url.database or "")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_template())
    else:
        with Store(store_url) as store:
            store.migrate()
    return store_url


@functools.cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory(prefix="shoetagger-") as folder:
        file = Path(folder) / "store.db"
        with Store(f"sqlite:///{file}") as store:
            store.migrate()
        return file.read_bytes()


def arrival(name: str, token: str = "1-1-1", refused: str | None = None) -> Arrival:
    return Arrival(locator_of(f"/inbox/{name}"), token, refused)


def image(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def file_id(name: str) -> str:
    return file_id_of(locator_of(f"/inbox/{name}"))


def tagged(name: str, content: str | None = None, token: str = "1-1-1") -> Tagged:
    return Tagged(file_id(name), token, image(content or name), 640, 480)


def red(content: str, tag: str = "red", digest: str = RED) -> Prediction:
    return Prediction(image(content), digest, (0.75, 0.25), (tag,))


def add_bundles(store: Store) -> None:
    for number, digest in enumerate((RED, BLUE), 1):
        store.ledger.add_version(
            digest=digest,
            group="color",
            tags=["red", "blue"],
            registry_name="shoetagger-color",
            version=str(number),
            now=NIGHT,
        )
    kinds = {"registry_name": None, "version": None, "now": NIGHT}
    store.ledger.add_version(digest=TEAL, group="color", tags=["red", "blue", "teal"], **kinds)
    store.ledger.add_version(digest=BOOT, group="style", tags=["boot", "flat"], **kinds)


def make_live(
    store: Store,
    group: str,
    digest: str | None,
    kind: str = "promote",
    *,
    by: str = "test",
    why: str = "test",
    now: datetime = NIGHT,
) -> None:
    live = store.ledger.live().get(group)
    move = store.ledger.begin(group, digest, expect_from=live, kind=kind, by=by, why=why, now=now)
    store.ledger.finish(move, now)


def tag(store: Store, *names: str, digest: str | None = RED, now: datetime = NIGHT) -> None:
    """Let files of these names arrive and be tagged."""
    store.files.note([arrival(name) for name in names], now)
    store.predictions.record(
        tagged=[tagged(name) for name in names],
        predictions=[red(name, digest=digest) for name in names] if digest else [],
        run_id="run",
        now=now,
    )


def set_rates(store: Store, run_id: str, rates: dict[str, tuple[int, int]]) -> None:
    """Let a run have seen so many of each tag, without the pictures."""
    table = tables.tagging_runs
    with store._database.writing() as connection:
        connection.execute(sa.update(table).where(table.c.run_id == run_id).values(rates=rates))


def stored_predictions() -> sa.Select[Any]:
    """Return the query of all predictions, with digest and image id in place of their keys."""
    made, versions, images = tables.predictions, tables.versions, tables.images
    return (
        sa.select(versions.c.digest, images.c.image_id, *made.c)
        .join(versions, versions.c.bundle_key == made.c.bundle_key)
        .join(images, images.c.image_key == made.c.image_key)
    )


def rows_of(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything in the store."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {
            name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for name, table in tables.metadata.tables.items()
        }
    engine.dispose()
    return found


def current(store: Store, *groups: str, **narrowed: object) -> dict[str, CurrentRow]:
    rows = list(store.current.rows(groups or ("color", "style"), **narrowed))
    assert len({row.image_id for row in rows}) == len(rows)
    return {row.image_id: row for row in rows}
