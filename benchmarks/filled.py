"""A store with many pictures, written in bulk: what a benchmark of the store begins with.

The rows are written into the tables as migration 0006 left them and are then migrated, so what
later migrations derive is what an older installation would get, and one filled database serves the
code of any later commit.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from unittest import mock

import sqlalchemy as sa

from shoetagger.ingest.inbox import Arrival
from shoetagger.store import database
from shoetagger.store.rows import file_id_of
from shoetagger.store.store import Store

FILLED_AS = "0006"
BEGAN = datetime(2023, 1, 1, 2, tzinfo=UTC)
GROUPS = {
    "color": ("black", "white", "red", "blue", "tan", "grey", "brown"),
    "style": ("boot", "heel", "sneaker", "sandal", "flat", "studded", "loafer"),
    "detail": ("patterned", "above_ankle", "below_ankle", "shiny", "leather"),
}
_TIMES = ("created_at", "done_at")
LEFT = 512  # pictures, the oldest, that the live bundle of `detail` lacks
Value = str | int | bool | datetime | None


def digest_of(group: str, number: int) -> str:
    return sha256(f"{group} {number}".encode()).hexdigest()


@dataclass(frozen=True)
class Filling:
    """What the store holds: `pictures`, as many per day, known and tagged.

    Version 1 of each group has tagged them all, that of `detail` all but the `LEFT` oldest.
    Version 2 of `color` is live and has tagged the newer half; version 3 of it is registered, and
    has tagged none. Of a hundred files two are gone, and there is one rejected file for each two
    hundred.
    """

    pictures: int
    days: int = 1000

    @cached_property
    def image_ids(self) -> list[str]:
        return [sha256(b"picture %d" % i).hexdigest() for i in range(self.pictures)]

    def locator(self, i: int) -> str:
        return f"file:///inbox/{i // 1000:05d}/picture%20{i:07d}.jpg"

    def token(self, i: int) -> str:
        return f"{i}-1700000000000000000"

    def is_gone(self, i: int) -> bool:
        return i % 50 == 7

    def moment(self, i: int) -> datetime:
        """Return when a picture arrived."""
        return BEGAN + timedelta(days=i * self.days // self.pictures, microseconds=i)

    def arrivals(self, numbers: Iterable[int]) -> list[Arrival]:
        return [Arrival(self.locator(i), self.token(i), None) for i in numbers]

    @property
    def pins(self) -> dict[str, str]:
        """The live bundles."""
        return {group: digest_of(group, 2 if group == "color" else 1) for group in GROUPS}


def fill(url: str, filling: Filling) -> None:
    """Make the tables of `FILLED_AS` in an empty database, and write the rows in bulk."""
    with mock.patch.object(database, "REVISION", FILLED_AS), Store(url) as store:
        store.migrate()
    write = _to_sqlite if url.startswith("sqlite") else _to_postgresql
    write(url, _tables(filling))


def _tables(f: Filling) -> Iterator[tuple[str, Sequence[str], Iterable[tuple[Value, ...]]]]:
    """Yield name, columns and rows of each table, the rows in the order of their keys."""
    night = {"run_id": "0" * 32}
    yield "last_seq", ["seq"], [(f.pictures,)]
    yield (
        "versions",
        ["digest", "group_name", "tags", "registry_name", "version", "registered_at"],
        [
            (digest_of(g, n), g, json.dumps(tags), f"shoetagger-{g}", str(n), BEGAN)
            for g, tags in GROUPS.items()
            for n in ((1, 2, 3) if g == "color" else (1,))
        ],
    )
    yield (
        "ledger",
        ["group_name", "to_digest", "from_digest", "kind", "state", "by", "why", *_TIMES],
        [
            (g, digest_of(g, n), digest_of(g, n - 1) if n > 1 else None, "promote", "done")  # noqa: RUF005
            + ("me", "for the benchmark", BEGAN, BEGAN + timedelta(hours=n))
            for g in GROUPS
            for n in ((1, 2) if g == "color" else (1,))
        ],
    )
    yield "files", *_files(f)
    yield "images", *_images(f)
    for group in GROUPS:
        for number, first in ((1, LEFT if group == "detail" else 0), (2, f.pictures // 2)):
            if number == 1 or group == "color":
                yield "predictions", *_predictions(f, group, number, first, night["run_id"])
    complete = [digest_of("color", 1), digest_of("style", 1)]
    yield "coverage", ["bundle_digest", "seq"], [(digest, f.pictures) for digest in complete]
    days = sorted({f.moment(i).date().isoformat() for i in range(f.pictures)})
    yield "days", ["day", "revision", "published"], [(day, 1, 1) for day in days]
    yield (
        "tagging_runs",
        ["run_id", "kind", "started_at", "ended_at", "state", "pins", "counts", "rates"],
        [
            (f"{n:032x}", "night", f.moment(0) + timedelta(days=n), f.moment(0), "done")  # noqa: RUF005
            + (json.dumps(f.pins), json.dumps({"new": 100}), json.dumps({"boot": [3, 9]}))
            for n in range(f.days)
        ],
    )
    yield (
        "corrections",
        ["image_id", "group_name", "tags", "by", "why", "created_at"],
        [
            (f.image_ids[i], "color", json.dumps(["red"]), "me", "seen", BEGAN)
            for i in range(0, f.pictures, max(f.pictures // 1000, 1))
        ],
    )


def _files(f: Filling) -> tuple[list[str], Iterable[tuple[Value, ...]]]:
    columns = ["file_id", "locator", "token", "image_id", "state", "reason", "first_seen"]
    rows: list[tuple[Value, ...]] = []
    for i in range(f.pictures):
        state = "gone" if f.is_gone(i) else "tagged"
        place = f.locator(i)
        token = f"{f.token(i)}-1"  # with an inode, as was the way then
        rows.append((file_id_of(place), place, token, f.image_ids[i], state, None, i))
    for i in range(0, f.pictures, 200):
        place = f"file:///inbox/broken/{i:07d}.jpg"
        rows.append((file_id_of(place), place, "1-1-1", None, "rejected", "no picture", i))
    rows.sort()
    moments = ((*row[:-1], f.moment(row[-1]), f.moment(row[-1])) for row in rows)  # type: ignore[arg-type]
    return [*columns, "changed_at"], moments


def _images(f: Filling) -> tuple[list[str], Iterable[tuple[Value, ...]]]:
    columns = ["image_id", "width", "height", "first_seen", "day", "seq", "replaced"]
    order = sorted(range(f.pictures), key=f.image_ids.__getitem__)
    return columns, (
        (f.image_ids[i], 1200, 900, (t := f.moment(i)), t.date().isoformat(), i + 1, False)
        for i in order
    )


def _predictions(
    f: Filling, group: str, number: int, first: int, run_id: str
) -> tuple[list[str], Iterable[tuple[Value, ...]]]:
    columns = ["bundle_digest", "image_id", "scores", "tags", "run_id", "created_at"]
    digest, tags = digest_of(group, number), GROUPS[group]
    scores = json.dumps([round(0.123456 + 0.1 * n, 6) for n in range(len(tags))])
    chosen = json.dumps([tags[-1]])
    order = sorted(f.image_ids[first:])
    return columns, ((digest, image_id, scores, chosen, run_id, BEGAN) for image_id in order)


def _to_sqlite(
    url: str, tables: Iterable[tuple[str, Sequence[str], Iterable[tuple[Value, ...]]]]
) -> None:
    connection = sqlite3.connect(Path(str(sa.make_url(url).database)))
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("DELETE FROM last_seq")
    for name, columns, rows in tables:
        marks = ", ".join("?" * len(columns))
        names = ", ".join(f'"{column}"' for column in columns)
        connection.executemany(
            f"INSERT INTO {name} ({names}) VALUES ({marks})",
            (tuple(map(_for_sqlite, row)) for row in rows),
        )
        connection.commit()
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _for_sqlite(value: Value) -> Value:
    return value.strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value


def _to_postgresql(
    url: str, tables: Iterable[tuple[str, Sequence[str], Iterable[tuple[Value, ...]]]]
) -> None:
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        connection.execute(sa.text("DELETE FROM last_seq"))
        for name, columns, rows in tables:
            names = ", ".join(f'"{column}"' for column in columns)
            with driver.cursor().copy(f"COPY {name} ({names}) FROM STDIN") as copy:
                for row in rows:
                    copy.write_row(row)
        connection.execute(sa.text("VACUUM ANALYZE"))
    engine.dispose()
