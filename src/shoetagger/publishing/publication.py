"""Publishes tables and pages of the current tags; only what changed is written again."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

from ..config.params import Params
from ..config.places import Place
from ..config.settings import PUBLISHED_FORMAT
from ..errors import TransientError
from ..storage.folder import FolderStorage
from ..storage.places import published_at
from ..storage.storage import Storage, of_day
from ..store.rows import StoreUnavailable
from ..store.store import Store
from ..store.turns import Check
from .announcing import Unannounced
from .articles import are_behind, remove_tables, stage_tables
from .csv_lines import csv_line, is_whole
from .lock import alone
from .pages import (
    Day,
    LiveGroup,
    Refusal,
    day_page,
    fingerprint,
    index_page,
    page_name,
    rejected_page,
    style,
)
from .rows import Tally, rows, shown_name
from .tables import (
    CsvTable,
    ParquetTable,
    fill,
    image_ids,
    parquet_schema,
    read_parquet,
    read_tally,
    timestamp,
)
from .thumbnails import Thumbnails, remove, thumbnail_name

log = logging.getLogger(__name__)

# Rejected files on their page; the table beside it has them all.
REJECTED_SHOWN = 2000

# Days that the index shows with a row of thumbnails; the others are links.
DAYS_PICTURED = 30

_DAMAGED = "the tables of %s are missing or damaged: they are written again"

# Called after every page with the day, its pictures done, and its pictures that will be.
Progress = Callable[[str, int, int], None]


class PublishError(TransientError):
    """A table or a page cannot be written, or a format of export does not exist."""


def publish_changes(
    store: Store,
    params: Params,
    *,
    published: Place,
    inbox: Place,
    every_day: bool = False,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Bring the tables and pages at the place `published` up to date with the store.

    Rewrites the days whose rows changed since they were last published, whose tables are missing or
    damaged or that lack pages, the list of rejected files and the index; all days with `every_day`,
    or where groups, page sizes or the look of the pages changed. A day counts as published when all
    its files are in their places. Concurrent calls, on any machine, take turns. Files are named
    relative to `inbox`.

    Returns counts: days and pages rewritten, pictures on the days rewritten, thumbnails made,
    pictures without a thumbnail (their files are gone), rejected files listed.
    Raises PublishError where the disk refuses a write, StorageError where a bucket does, and
    StoreUnavailable where the turn was lost; what was published before is then intact, and what was
    not is published by the next call.
    """
    storage = published_at(published)
    try:
        with alone(store) as check, storage.staging() as staging:
            publication = _Publication(
                store,
                params,
                check=check,
                storage=storage,
                inbox=inbox,
                staging=staging,
                progress=progress,
            )
            return publication.run(every_day)
    except OSError as error:
        raise PublishError(
            f"cannot publish into {published}: {error.strerror or error}: mend that and publish "
            "again; what was published before is intact"
        ) from error


def forget(
    store: Store, params: Params, image_id: str, *, published: Place, inbox: Place
) -> dict[str, int]:
    """Erase a picture from the store and from all that is published; returns as publish_changes.

    Its tags, corrections, thumbnail, preview and rows go, and its bytes are refused from now on,
    until `Files.retry` is given a file that holds them. Raises StoreError for an unknown image id.
    """
    store.files.forget(image_id, datetime.now(UTC))
    with alone(store):  # another publisher may be making it just now
        remove(published_at(published), image_id)
    return publish_changes(store, params, published=published, inbox=inbox)


class _Publication:
    """One publication, while no other runs; `check` raises StoreUnavailable if it lost its turn."""

    def __init__(
        self,
        store: Store,
        params: Params,
        *,
        check: Check,
        storage: Storage,
        inbox: Place,
        staging: Path,
        progress: Progress | None,
    ) -> None:
        self._check = check
        self._storage = storage
        self._inbox = inbox
        self._params = params
        self._groups = params.groups
        self._store = store
        self._staging = staging
        self._staged: set[str] = set()
        self._progress = progress
        self._paged: set[str] = set()
        self._tallies: dict[str, Tally] = {}  # of the days that have tables
        self._counts = dict.fromkeys(("days", "pictures", "pages", "without_thumbnail"), 0)

    def run(self, every_day: bool) -> dict[str, int]:
        look = _look(self._params, self._inbox)
        same = self._storage.read(PUBLISHED_FORMAT) == look.encode()
        # Revisions are read before rows: a row that changes meanwhile leaves its day changed.
        changed = dict(self._store.days.changed())
        lost = dict.fromkeys(self._read_tallies() - changed.keys())
        days = lost | (changed if same and not every_day else self._all_days())
        self._paged = self._latest_days(days)
        days |= dict.fromkeys(self._without_pages() - days.keys())
        with Thumbnails(self._storage, self._inbox, self._params, self._sources) as thumbnails:
            unannounced = Unannounced(self._storage)

            def publish(day: str) -> None:
                self._publish_day(day, thumbnails)
                self._check_after(day)
                unannounced.add(day)

            for day, revision in sorted(days.items()):
                publish(day)
                if revision is not None:
                    self._check()
                    self._store.days.mark_published(day, revision)
            self._stage_articles(publish, changed=bool(days))
        self._remove_old_pages()
        self._storage.tidy()
        rejected = self._publish_rejected()
        self._publish_index(rejected)
        self._stage(PUBLISHED_FORMAT).write_text(look)
        self._put_in_place()
        self._check()
        counts = self._counts | {"thumbnails": thumbnails.made, "rejected": rejected}
        log.info("published: %s", ", ".join(f"{key} {value}" for key, value in counts.items()))
        return counts

    def _check_after(self, day: str) -> None:
        """Check the turn once a day is in its place; where it is lost, the day is written again.

        Another publisher may have written the day meanwhile, and this one over it, from older rows.
        """
        try:
            self._check()
        except StoreUnavailable:
            self._store.days.mark_changed(day)
            raise

    def _all_days(self) -> dict[str, int | None]:
        """Return the days that have pictures or files here, with their revisions."""
        return dict.fromkeys(self._tallies) | dict(self._store.days.all())

    def _latest_days(self, changed: Collection[str]) -> set[str]:
        """Return the days that are to have pages: the latest `keep.page_days` with pictures."""
        days = sorted({*self._tallies, *changed}, reverse=True)
        pictured = (day for day in days if day not in changed or self._has_pictures(day))
        return set(islice(pictured, self._params.keep.page_days))

    def _without_pages(self) -> set[str]:
        """Return the days that lack pages, such as one that is again among the latest."""
        first_pages = {day: f"pages/{day}/{page_name(1)}" for day in self._paged}
        there = self._storage.stamps(first_pages.values())
        return {day for day, page in first_pages.items() if page not in there}

    def _has_pictures(self, day: str) -> bool:
        return any(True for _ in self._store.current.rows([], day=day))

    def _read_tallies(self) -> set[str]:
        """Read the tallies of the days with tables; return the days whose tables are lost."""
        found = of_day(self._storage.listed("parquet"))
        with ThreadPoolExecutor(self._storage.at_once) as threads:
            tallies = list(threads.map(partial(read_tally, self._storage), found.values()))
            whole = list(threads.map(partial(is_whole, self._storage), map(_csv_of, found)))
        self._tallies = {d: tally for d, tally in zip(found, tallies, strict=True) if tally}
        lost = found.keys() - self._tallies.keys()
        lost |= {day for day, is_there in zip(found, whole, strict=True) if not is_there}
        lost |= {
            day
            for day in self._store.days.published()
            if day not in found and self._has_pictures(day)
        }
        for day in sorted(lost):
            log.warning(_DAMAGED, day)
        return lost

    def _sources(self, image_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
        found = self._store.current.rows([], image_ids=image_ids)
        return {picture.image_id: picture.locators for picture in found}

    def _publish_day(self, day: str, thumbnails: Thumbnails) -> None:
        parquet, table = self._stage(_parquet_of(day)), self._stage(_csv_of(day))
        with parquet.open("wb") as columns, table.open("wb") as lines:
            tally = fill(
                [ParquetTable(columns, self._groups), CsvTable(lines, self._groups)],
                rows(
                    self._store.current.rows(list(self._groups), day=day),
                    self._groups,
                    self._inbox,
                    self._params.articles,
                ),
                self._groups,
            )
        self._remove_thumbnails_of_gone(day)
        if tally.pictures:
            # The pages are made from the table just written, so they agree with it even where the
            # store has changed meanwhile.
            pages = self._stage_pages(day, parquet, tally, thumbnails)
            self._put_in_place()
            self._tallies[day] = tally
        else:
            pages = 0
            self._discard()
            self._check()
            self._tallies.pop(day, None)
            self._storage.remove_folder(f"parquet/day={day}")
            self._storage.remove([_csv_of(day)])
        if pages or not tally.pictures:  # else it is left to `_remove_old_pages`, with thumbnails
            self._remove_pages_after(day, pages)
        self._counts["days"] += 1
        self._counts["pictures"] += tally.pictures
        self._counts["pages"] += pages

    def _stage_pages(self, day: str, parquet: Path, tally: Tally, thumbnails: Thumbnails) -> int:
        if day not in self._paged:
            return 0
        size, most = self._params.publish.page_size, self._params.publish.max_pages
        pages = min(-(-tally.pictures // size), most)
        chunks = islice(read_parquet(parquet, self._groups, size), pages)
        for number, chunk in enumerate(chunks, start=1):
            gone = thumbnails.make(row.image_id for row in chunk)
            page = day_page(
                day,
                chunk,
                groups=self._groups,
                titles=self._params.titles,
                gone=gone,
                number=number,
                pages=pages,
                page_size=size,
                pictures=tally.pictures,
            )
            self._stage(f"pages/{day}/{page_name(number)}").write_text(page, encoding="utf-8")
            self._counts["without_thumbnail"] += len(gone)
            if self._progress:
                self._progress(day, min(number * size, tally.pictures), pages * size)
        return pages

    def _remove_thumbnails_of_gone(self, day: str) -> None:
        """Remove the thumbnails and previews of pictures that the day has lost, as replaced ones.

        Before their tables are: what is cut off here is done by the next publication.
        """
        table = _parquet_of(day)
        gone = image_ids(self._storage, table) - image_ids(FolderStorage(self._staging), table)
        elsewhere = {r.image_id for r in self._store.current.rows([], image_ids=sorted(gone))}
        for image_id in gone - elsewhere:
            remove(self._storage, image_id)

    def _remove_pages_after(self, day: str, pages: int) -> None:
        if not pages:
            self._storage.remove_folder(f"pages/{day}")
            return
        there = self._storage.listed(f"pages/{day}")
        self._storage.remove([name for name in there if _number_of(name) > pages])

    def _remove_old_pages(self) -> None:
        """Remove the pages, thumbnails and previews of days older than `keep.page_days`."""
        old = {f"pages/{day}/{page_name(1)}": day for day in self._tallies.keys() - self._paged}
        for first_page in self._storage.stamps(old):
            for picture in self._store.current.rows([], day=old[first_page]):
                remove(self._storage, picture.image_id)
            self._remove_pages_after(old[first_page], 0)

    def _stage_articles(self, publish: Callable[[str], None], *, changed: bool) -> None:
        days = {_parquet_of(day): day for day in sorted(self._tallies)}

        def write_again(table: str) -> None:  # whose footer alone was read before
            log.warning(_DAMAGED, days[table])
            publish(days[table])

        if self._params.articles.pattern is None:
            remove_tables(self._storage)
        elif changed or are_behind(self._storage, list(days)):
            stage_tables(self._stage, self._storage, list(days), self._groups, write_again)

    def _publish_rejected(self) -> int:
        total = 0
        shown: list[Refusal] = []
        with self._stage("rejected.csv").open("wb") as lines:
            lines.write(csv_line(["file", "reason", "first_seen", "locator"]))
            for row in self._store.files.rejected():
                file = shown_name(row.locator, self._inbox)
                lines.write(csv_line([file, row.reason, timestamp(row.first_seen), row.locator]))
                total += 1
                if len(shown) < REJECTED_SHOWN:
                    shown.append(Refusal(file, row.reason, row.first_seen))
        page = self._stage("pages/rejected.html")
        page.write_text(rejected_page(shown, total), encoding="utf-8")
        self._put_in_place()
        return total

    def _publish_index(self, rejected: int) -> None:
        tallies = sorted(self._tallies.items(), reverse=True)
        total = Tally()
        for _, tally in tallies:
            total.merge(tally)
        pictured = {day: tally.first for day, tally in tallies[:DAYS_PICTURED]}
        names = (thumbnail_name(i) for first in pictured.values() for i in first)
        there = self._storage.stamps(names)
        days = []
        for day, tally in tallies:
            shown = tuple(i for i in pictured.get(day, ()) if thumbnail_name(i) in there)
            days.append(Day(day, tally, shown, paged=day in self._paged))
        page = index_page(
            days,
            [self._live(name, total) for name in self._groups],
            groups=self._groups,
            titles=self._params.titles,
            tally=total,
            waiting=self._store.files.count_waiting(),
            rejected=rejected,
            now=datetime.now(UTC),
        )
        self._stage("pages/style.css").write_text(style(self._groups), encoding="utf-8")
        self._stage("pages/index.html").write_text(page, encoding="utf-8")
        self._put_in_place()

    def _live(self, group: str, total: Tally) -> LiveGroup:
        digest = self._store.ledger.live().get(group)
        version = self._store.ledger.version_of(digest) if digest else None
        moves = self._store.ledger.history(group) if digest else []
        since = [move.done_at for move in moves if move.to_digest == digest and move.done_at]
        return LiveGroup(
            name=group,
            version=version.version if version else None,
            since=max(since, default=None),
            tagged=total.pictures - total.untagged[group],
            stale=total.stale[group],
            untagged=total.untagged[group],
        )

    def _stage(self, name: str) -> Path:
        path = self._staging / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._staged.add(name)
        return path

    def _put_in_place(self) -> None:
        """Put all staged files into their places, the tables after the pages."""
        self._check()
        # By name, not by what is there: a missing one is an error, and its day stays unpublished.
        files = [(self._staging / name, name) for name in sorted(self._staged)]
        self._storage.put([file for file in files if file[1].endswith(".html")])
        self._storage.put([file for file in files if not file[1].endswith(".html")])
        self._discard()

    def _discard(self) -> None:
        shutil.rmtree(self._staging)
        self._staging.mkdir()
        self._staged.clear()


def _look(params: Params, inbox: Place) -> str:
    """Return a digest of everything besides rows that every day's files depend on."""
    depends = {
        "tables": str(parquet_schema(params.groups)),
        "pages": fingerprint(),
        "groups": {name: group.tags for name, group in params.groups.items()},
        "titles": dict(params.titles),
        "page_size": params.publish.page_size,
        "max_pages": params.publish.max_pages,
        "page_days": params.keep.page_days,
        "inbox": os.fsencode(str(inbox)).hex(),
        "articles": params.articles.pattern,
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _parquet_of(day: str) -> str:
    return f"parquet/day={day}/tags.parquet"


def _csv_of(day: str) -> str:
    return f"csv/{day}.csv"


def _number_of(page: str) -> int:
    """Return the number in the name of a day's page; 0 where it is none of ours."""
    name = PurePosixPath(page)
    return int(name.stem) if name.suffix == ".html" and name.stem.isdecimal() else 0
