"""Files of the inbox: noted, listed, retried, forgotten."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa
from more_itertools import chunked
from sqlalchemy.engine import Connection

from .arrivals import note, reopen, unsettled
from .blocks import count_files, files_by_state
from .database import Database
from .days import between, bump, day_bounds, day_of
from .file_rows import FILE_ROWS, mark_gone
from .forgetting import forget, forgotten_among, not_forgotten, remember
from .rows import FileRow, Noted, RejectedRow, StoreError, file_id_of, short_id
from .sql import GONE, NEW, PAGE, REJECTED, move_place, place_in
from .tables import files, handed_out
from .tally import Tally, add_to_run

if TYPE_CHECKING:
    from ..ingest.inbox import Arrival


class Files:
    """Files of the inbox, as last noted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def note(self, arrivals: Sequence[Arrival], now: datetime, run_id: str | None = None) -> Noted:
        """Note one batch of a scan; return how many files were unknown, changed or back.

        They are added to the counts of the run that is named.

        An unknown or changed file becomes `new`, or `rejected` where it was refused; a file that
        was gone and is back as it was is `tagged` again. A known file that is unchanged, or whose
        status cannot be read, costs no write.
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
            if run_id is not None:
                add_to_run(connection, run_id, now, Tally(new=len(changed), rejected=refused))
        return Noted(len(changed), refused)

    def unseen(
        self, seen: Collection[int], before: datetime, unlisted: Sequence[str] = ()
    ) -> list[str]:
        """Return the file_ids of files that a whole scan did not show, though they were there.

        `seen` holds the `short_id` of every file that it showed, `unlisted` the locators of folders
        that it could not list. Files noted at `before` or later are left out: another scan may have
        come across them since. Where all are accounted for, that costs no more than counting.
        """
        blind = tuple(f"{folder}/" for folder in unlisted)
        unseen: list[str] = []
        with self._database.reading() as connection:
            known = files_by_state(connection)
            if known.total() - known["gone"] <= len(seen):
                return unseen
            query = sa.select(files.c.file_id, files.c.locator).where(
                ~GONE, files.c.changed_at < before
            )
            query = query.order_by(files.c.file_id).limit(10 * PAGE)
            last = ""
            while page := connection.execute(query.where(files.c.file_id > last)).all():
                unseen += [
                    file_id
                    for file_id, locator in page
                    if short_id(file_id) not in seen and not locator.startswith(blind)
                ]
                last = page[-1].file_id
        return unseen

    def lose(self, file_ids: Sequence[str]) -> None:
        """Record that files are not there any more: no work, and no names of their images."""
        for some in chunked(file_ids, 5 * PAGE):
            with self._database.writing() as connection:
                bump(connection, mark_gone(connection, some))

    def count_waiting(self) -> int:
        """Return the number of files to tag."""
        with self._database.reading() as connection:
            return files_by_state(connection)["new"]

    def oldest_waiting(self) -> datetime | None:
        """Return when the file to tag that has waited longest was noted; None where none waits.

        It is noted again when it is replaced. All that wait are looked at.
        """
        with self._database.reading() as connection:
            query = sa.select(sa.func.min(files.c.changed_at)).where(NEW)
            oldest: datetime | None = connection.execute(query).scalar_one()
            return oldest

    def find(self, locator: str) -> FileRow | None:
        """Return a file as last noted; None where it never was."""
        query = FILE_ROWS.where(files.c.file_id == file_id_of(locator))
        with self._database.reading() as connection:
            row = connection.execute(query).first()
        return None if row is None else FileRow(*row)

    def waiting(
        self, start: str, stop: str | None, limit: int, after: str | None = None
    ) -> list[FileRow]:
        """Return up to `limit` files to tag whose file_id is in [start, stop), in its order.

        `stop` None sets no upper end. `after` is the last file_id of the page before.
        """
        with self._database.reading() as connection:
            return _waiting(connection, start, stop, limit, after)

    def hand_out(self, run_id: str, limit: int) -> list[FileRow]:
        """Return the next files to tag, up to `limit`: each to one of a run's shards only."""
        with self._database.writing() as connection:
            after = place_in(connection, run_id, handed_out.c.files_after)
            found = _waiting(connection, "", None, limit, after)
            if found:
                move_place(connection, run_id, files_after=found[-1].file_id)
        return found

    def reopen(self, read: Mapping[str, tuple[str, str]], now: datetime) -> list[FileRow]:
        """Let tagged files wait again whose bytes are not those of their image; return them.

        `read` is file_id -> the token and the image id that were read. Where the token is another
        one as well, that is for the next listing to see.
        """
        with self._database.writing() as connection:
            return reopen(connection, read, now)

    def rejected(
        self, *, day: str | None = None, limit: int | None = None
    ) -> Iterator[RejectedRow]:
        """Yield the rejected files, latest first; `day` (YYYY-MM-DD) is that of their first_seen.

        Raises StoreError where `day` is not written so.
        """
        after, before = day_bounds(day)
        query = FILE_ROWS.where(REJECTED)
        query = query.order_by(files.c.first_seen.desc(), files.c.file_id.desc())
        left = math.inf if limit is None else limit
        while left > 0:
            bounds = between(files.c.first_seen, files.c.file_id, after, before)
            page = query.where(*bounds).limit(int(min(left, PAGE)))
            with self._database.reading() as connection:
                rows = [FileRow(*row) for row in connection.execute(page)]
            for row in rows:
                yield RejectedRow(
                    row.file_id, row.locator, row.reason or "", row.first_seen, row.changed_at
                )
            if len(rows) < PAGE:
                return
            before, left = (rows[-1].first_seen, rows[-1].file_id), left - len(rows)

    def retry(self, locators: Sequence[str] | None = None) -> int:
        """Make rejected files (all, or those named) wait for tagging again; return how many.

        Forgotten images are retried only where their files are named, which ends the forgetting.
        """
        with self._database.writing() as connection:
            if locators is None:
                return _retry(connection, REJECTED & not_forgotten())
            retried = 0
            for some in chunked(map(file_id_of, locators), PAGE):
                named = REJECTED & files.c.file_id.in_(some)
                remember(connection, named)
                retried += _retry(connection, named)
            return retried

    def forget(self, image_id: str, now: datetime) -> None:
        """Erase what is derived from an image; its bytes are refused until retried by name.

        This removes predictions, corrections and the image's row, rejects the files that hold it,
        and marks their days as changed. Raises StoreError for an unknown image.
        """
        with self._database.writing() as connection:
            if not forget(connection, image_id, now):
                raise StoreError(
                    f"no picture {image_id} in the store: `shoetagger export` lists the image ids"
                )

    def forgotten(self, image_ids: Sequence[str]) -> set[str]:
        """Return the images among these that a person had erased."""
        with self._database.reading() as connection:
            return forgotten_among(connection, image_ids)


def _retry(connection: Connection, which: sa.ColumnElement[bool]) -> int:
    first_seen = sa.select(files.c.first_seen).where(which).distinct()
    touched = {day_of(moment) for moment in connection.execute(first_seen).scalars()}
    update = sa.update(files).where(which).values(state="new", reason=None, image_id=None)
    retried = connection.execute(update).rowcount
    count_files(connection, {"rejected": -retried, "new": retried})
    bump(connection, touched)
    return retried


def _waiting(
    connection: Connection, start: str, stop: str | None, limit: int, after: str | None
) -> list[FileRow]:
    query = FILE_ROWS.where(NEW, files.c.file_id >= start)
    if stop is not None:
        query = query.where(files.c.file_id < stop)
    if after is not None:
        query = query.where(files.c.file_id > after)
    rows = connection.execute(query.order_by(files.c.file_id).limit(limit)).all()
    return [FileRow(*row) for row in rows]
