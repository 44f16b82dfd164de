"""Files: noted, settled, lost, forgotten."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .database import Database
from .days import between, bump, day_bounds, day_of
from .rows import FileRow, Noted, RejectedFile, RejectedRow, StoreError, Tagged, file_id_of
from .sql import GONE, NEW, NOT_REJECTED, PAGE, REJECTED, TAGGED, count, pages
from .tables import corrections, files, forgotten, images, predictions, versions

if TYPE_CHECKING:
    from ..ingest.inbox import Arrival


FORGOTTEN = "forgotten: what was known of it is erased; `shoetagger retry` with its name asks anew"


def file_row(row: sa.Row[Any]) -> FileRow:
    return FileRow(
        row.file_id,
        row.locator,
        row.token,
        row.state,
        row.reason,
        row.image_id,
        row.first_seen,
        row.last_seen,
    )


def file_rows(connection: Connection, file_ids: Collection[str]) -> dict[str, FileRow]:
    """The files of these ids that are known."""
    found: dict[str, FileRow] = {}
    for some in pages(file_ids):
        rows = connection.execute(sa.select(files).where(files.c.file_id.in_(some)))
        found |= {row.file_id: file_row(row) for row in rows}
    return found


# --- arrivals
def unsettled(connection: Connection, seen: Mapping[str, Arrival]) -> list[str]:
    """The file_ids of arrivals that the store does not know as they are."""
    tokens = {file_id: a.token for file_id, a in seen.items() if a.refused is None}
    left = dict.fromkeys(file_id for file_id in seen if file_id not in tokens)
    # All but the refused are known and unchanged, almost always: that costs a count a page.
    for some in pages(tokens):
        if count_settled(connection, {key: tokens[key] for key in some}) < len(some):
            left |= dict.fromkeys(some)
    for some in pages(list(left)):
        query = sa.select(files.c.file_id, files.c.token, files.c.state).where(
            files.c.file_id.in_(some)
        )
        for file_id, token, state in connection.execute(query):
            arrival = seen[file_id]
            refused_anew = arrival.refused is not None and state != "rejected"
            if token == arrival.token and state != "gone" and not refused_anew:
                del left[file_id]
    return list(left)


def count_settled(connection: Connection, tokens: Mapping[str, str]) -> int:
    """How many of these files are known with these tokens; one parameter, whatever the number."""
    pairs = sa.literal(json.dumps(tokens), sa.Text)
    if connection.dialect.name == "sqlite":
        rows = sa.func.json_each(pairs).table_valued("key", "value")
    else:
        rows = sa.func.json_each_text(sa.cast(pairs, sa.JSON)).table_valued("key", "value")
    known = rows.join(files, files.c.file_id == rows.c.key)
    settled = (files.c.token == rows.c.value) & ~GONE
    return count(connection, known, settled)


def note(
    connection: Connection, seen: Mapping[str, Arrival], file_ids: Sequence[str], now: datetime
) -> None:
    """Write down the arrivals of these ids: unknown, changed, back, or refused."""
    known = file_rows(connection, file_ids)
    inserts, updates, back = [], [], set()
    touched, let_go = set(), set()
    for file_id in sorted(file_ids):
        arrival, row = seen[file_id], known.get(file_id)
        state = "new" if arrival.refused is None else "rejected"
        image_id = None
        if row is None:
            values: dict[str, Any] = {"locator": arrival.locator, "first_seen": now}
        else:
            values = {}
            if "rejected" in (state, row.state):
                touched.add(day_of(row.first_seen))
            if state == "rejected":
                let_go.add(row.image_id)
            else:
                image_id = row.image_id if row.state != "rejected" else None
                if row.state == "gone" and row.token == arrival.token and image_id:
                    state = "tagged"
                    back.add(image_id)
        values |= {"token": arrival.token, "state": state, "image_id": image_id}
        values |= {"reason": clean(arrival.refused), "last_seen": now}
        if row is None:
            inserts.append({"file_id": file_id, **values})
            if state == "rejected":
                touched.add(day_of(now))
        else:
            updates.append({"id": file_id, **values})
    if inserts:
        connection.execute(sa.insert(files), inserts)
    update_files(connection, updates)
    renew(connection, sorted(back))
    bump(connection, touched | recheck_replaced(connection, let_go - {None}))


def update_files(connection: Connection, updates: Sequence[Mapping[str, Any]]) -> None:
    """Write the given columns of files; each mapping names its file as `id`."""
    if updates:
        which = files.c.file_id == sa.bindparam("id")
        columns: dict[str, Any] = {name: sa.bindparam(name) for name in updates[0] if name != "id"}
        connection.execute(sa.update(files).where(which).values(columns), list(updates))


def clean(reason: str | None) -> str | None:
    """A reason as text that every database takes: file names put NUL and half letters into it."""
    if reason is None:
        return None
    return reason.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


# --- recording
def settle(
    connection: Connection, tagged: Sequence[Tagged], rejected: Sequence[RejectedFile]
) -> set[str]:
    """Settle the files that still wait as of the token they were read with; return the days."""
    asked: dict[str, Tagged | RejectedFile] = {}
    unwanted = forgotten_of(connection, [file.image_id for file in tagged])
    for settled in (tagged, rejected):
        for file in settled:
            if file.image_id in unwanted:
                file = RejectedFile(file.file_id, file.token, FORGOTTEN, file.image_id)
            asked.setdefault(file.file_id, file)
    known = file_rows(connection, asked)
    updates: list[dict[str, Any]] = []
    pictures: dict[str, dict[str, Any]] = {}
    touched, let_go = set(), set()
    for file_id in sorted(known):
        row, file = known[file_id], asked[file_id]
        if row.state not in ("new", "gone") or row.token != file.token:
            continue
        if row.image_id not in (None, file.image_id) or isinstance(file, RejectedFile):
            let_go.add(row.image_id)
        update = {"id": file_id, "image_id": file.image_id, "state": "tagged", "reason": None}
        if isinstance(file, RejectedFile):
            update |= {"state": "rejected", "reason": clean(file.reason)}
            touched.add(day_of(row.first_seen))
        else:
            picture = {"image_id": file.image_id, "width": file.width, "height": file.height}
            arrived = (
                row.last_seen
            )  # when these bytes were first seen, whatever the file was before
            earlier = pictures.get(file.image_id)
            if earlier is None or arrived < earlier["first_seen"]:
                pictures[file.image_id] = picture | {"first_seen": arrived}
        updates.append(update)
    update_files(connection, updates)
    touched |= keep_pictures(connection, pictures)
    return touched | recheck_replaced(connection, let_go - {None})


def keep_pictures(connection: Connection, pictures: Mapping[str, dict[str, Any]]) -> set[str]:
    """Insert the unknown pictures, renew the known ones; return the days of all."""
    touched, known = set(), set()
    for some in pages(pictures):
        rows = connection.execute(
            sa.select(images.c.image_id, images.c.day).where(images.c.image_id.in_(some))
        )
        for image_id, day in rows:
            known.add(image_id)
            touched.add(day)
    seq = last_seq(connection)
    order = sorted(pictures.values(), key=lambda p: (p["first_seen"], p["image_id"]))
    inserts = []
    for picture in order:
        if picture["image_id"] not in known:
            seq += 1
            day = day_of(picture["first_seen"])
            inserts.append(picture | {"day": day, "seq": seq, "replaced": False})
            touched.add(day)
    if inserts:
        connection.execute(sa.insert(images), inserts)
    renew(connection, [p["image_id"] for p in order if p["image_id"] in known])
    return touched


def last_seq(connection: Connection) -> int:
    return int(connection.execute(sa.select(sa.func.max(images.c.seq))).scalar() or 0)


def renew(connection: Connection, image_ids: Sequence[str]) -> None:
    """Put pictures that can be read (again) above whatever was found complete before."""
    if image_ids:
        first = last_seq(connection) + 1
        which = images.c.image_id == sa.bindparam("id")
        values = {"seq": sa.bindparam("to"), "replaced": False}
        connection.execute(
            sa.update(images).where(which).values(values),
            [{"id": image_id, "to": first + i} for i, image_id in enumerate(image_ids)],
        )


def recheck_replaced(connection: Connection, image_ids: Collection[str | None]) -> set[str]:
    """Mark those of the pictures that no file holds any more; return the days of all."""
    touched: set[str] = set()
    for some in pages(sorted(filter(None, image_ids))):
        held = sa.select(files.c.image_id).where(files.c.image_id.in_(some), NOT_REJECTED)
        free = set(some) - set(connection.execute(held).scalars())
        connection.execute(
            sa.update(images).where(images.c.image_id.in_(free)).values(replaced=True)
        )
        seen = sa.select(images.c.day).where(images.c.image_id.in_(some))
        touched |= set(connection.execute(seen.distinct()).scalars())
    return touched


def lose(connection: Connection, file_ids: Sequence[str]) -> None:
    """Write down that files are not there any more, so that nobody looks for them again."""
    for some in pages(file_ids):
        which = sa.update(files).where(files.c.file_id.in_(some))
        connection.execute(which.where(TAGGED).values(state="gone"))
        # Nobody knows what its last bytes were: whatever comes back under the name is new.
        connection.execute(which.where(NEW).values(state="gone", token=""))


# --- forgetting
def forgotten_of(connection: Connection, image_ids: Collection[str]) -> set[str]:
    """Those of the pictures that a person wanted forgotten."""
    found: set[str] = set()
    for some in pages(image_ids):
        query = sa.select(forgotten.c.image_id).where(forgotten.c.image_id.in_(some))
        found |= set(connection.execute(query).scalars())
    return found


def forget(connection: Connection, image_id: str, now: datetime) -> bool:
    """Erase what is derived from a picture and refuse its bytes from now on; False: unknown."""
    seen = sa.select(images.c.day).where(images.c.image_id == image_id)
    touched = set(connection.execute(seen).scalars())
    of_it = files.c.image_id == image_id
    holders = sa.select(files.c.first_seen).where(of_it)
    touched |= {day_of(moment) for moment in connection.execute(holders).scalars()}
    if not touched:
        return bool(forgotten_of(connection, [image_id]))
    if not forgotten_of(connection, [image_id]):
        row = {"image_id": image_id, "forgotten_at": now}
        connection.execute(sa.insert(forgotten), row)
    for digest in connection.execute(sa.select(versions.c.digest)).scalars().all():
        said = (predictions.c.bundle_digest == digest) & (predictions.c.image_id == image_id)
        connection.execute(sa.delete(predictions).where(said))
    connection.execute(sa.delete(corrections).where(corrections.c.image_id == image_id))
    connection.execute(sa.delete(images).where(images.c.image_id == image_id))
    # What came under the name since is another picture; what went may come back, as an arrival.
    connection.execute(sa.update(files).where(of_it, NEW).values(image_id=None))
    connection.execute(sa.delete(files).where(of_it, GONE))
    connection.execute(sa.update(files).where(of_it).values(state="rejected", reason=FORGOTTEN))
    bump(connection, touched)
    return True


def remember(connection: Connection, which: sa.ColumnElement[bool]) -> None:
    """Let the bytes of rejected files be tagged again, though they were forgotten."""
    asked = sa.select(files.c.image_id).where(which, files.c.image_id.is_not(None))
    connection.execute(sa.delete(forgotten).where(forgotten.c.image_id.in_(asked)))


def not_forgotten() -> sa.ColumnElement[bool]:
    """The file does not hold bytes that were forgotten."""
    return ~sa.exists().where(forgotten.c.image_id == files.c.image_id)


class Files:
    """Files of the inbox, as last noted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, arrivals: Sequence[Arrival], now: datetime) -> Noted:
        """Note one batch of what a scan saw; return how many were unknown, changed or back.

        An unknown or changed file becomes `new`, or `rejected` where it was refused; one that was
        gone and is back as it was is `tagged` again. What is known and unchanged costs no write.
        """
        seen = {file_id_of(arrival.locator): arrival for arrival in arrivals}
        with self._database.reading() as connection:
            suspects = unsettled(connection, seen)
        if not suspects:
            return Noted(0, 0)
        with self._database.writing() as connection:
            changed = unsettled(connection, {key: seen[key] for key in suspects})
            note(connection, seen, changed, now)
        refused = sum(seen[file_id].refused is not None for file_id in changed)
        return Noted(len(changed), refused)

    def new(self, lo: str, hi: str | None, limit: int, after: str | None = None) -> list[FileRow]:
        """Return up to `limit` files to tag with a file_id in [lo, hi) and above `after`.

        In the order of file_id; `hi` None is the end of all, `after` the last file_id of the page
        before.
        """
        query = sa.select(files).where(NEW, files.c.file_id >= lo)
        if hi is not None:
            query = query.where(files.c.file_id < hi)
        if after is not None:
            query = query.where(files.c.file_id > after)
        with self._database.reading() as connection:
            rows = connection.execute(query.order_by(files.c.file_id).limit(limit))
            return [file_row(row) for row in rows]

    def retry(self, locators: Sequence[str] | None = None) -> int:
        """Make rejected files (all, or those named) wait for tagging again; return how many.

        Pictures that were forgotten only where they are named: that takes the forgetting back.
        """
        which: list[Any] = [not_forgotten()]
        if locators is not None:
            ids = [file_id_of(locator) for locator in locators]
            which = [files.c.file_id.in_(some) for some in pages(ids)]
        retried = 0
        with self._database.writing() as connection:
            touched: set[str] = set()
            for condition in which:
                condition = REJECTED & condition
                times = sa.select(files.c.first_seen).where(condition).distinct()
                touched |= {day_of(seen) for seen in connection.execute(times).scalars()}
                if locators is not None:
                    remember(connection, condition)
                update = sa.update(files).where(condition).values(state="new", reason=None)
                retried += connection.execute(update).rowcount
            bump(connection, touched)
        return retried

    def forgotten(self, image_ids: Sequence[str]) -> set[str]:
        """Return those of the pictures that a person wanted forgotten."""
        with self._database.reading() as connection:
            return forgotten_of(connection, image_ids)

    def forget(self, image_id: str, now: datetime) -> None:
        """Erase what is derived from a picture; its bytes are refused until retried by name.

        Predictions, corrections and the picture's row go; files that hold it are rejected; its
        days count as changed. Raises StoreError for a picture nobody knows.
        """
        with self._database.writing() as connection:
            if not forget(connection, image_id, now):
                raise StoreError(
                    f"no picture {image_id} in the store: `shoetagger export` lists the image ids"
                )

    def rejected(
        self, *, day: str | None = None, limit: int | None = None
    ) -> Iterator[RejectedRow]:
        """Yield the rejected files, latest first; `day` (YYYY-MM-DD) is of their first_seen."""
        after, before = day_bounds(day)
        query = sa.select(files).where(REJECTED)
        query = query.order_by(files.c.first_seen.desc(), files.c.file_id.desc())
        left = math.inf if limit is None else limit
        while left > 0:
            bounds = between(files.c.first_seen, files.c.file_id, after, before)
            page = query.where(*bounds).limit(int(min(left, PAGE)))
            with self._database.reading() as connection:
                rows = [file_row(row) for row in connection.execute(page)]
            for row in rows:
                yield RejectedRow(
                    row.file_id, row.locator, row.reason or "", row.first_seen, row.last_seen
                )
            if len(rows) < PAGE:
                return
            before, left = (rows[-1].first_seen, rows[-1].file_id), left - len(rows)

    def find(self, locator: str) -> FileRow | None:
        """Return what is known of a file; None if it was never noted."""
        with self._database.reading() as connection:
            row = connection.execute(
                sa.select(files).where(files.c.file_id == file_id_of(locator))
            ).first()
        return None if row is None else file_row(row)
