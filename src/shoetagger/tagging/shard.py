"""One shard of a tagging run."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from more_itertools import chunked

from ..config.params import Params
from ..config.places import Place
from ..ingest import batches
from ..ingest.batches import KeptViews, T, decode_pool, prefetched, stack_views
from ..ingest.pool import Decoded, DecodePool
from ..logfmt import event
from ..store.rows import Backlog, FileRow, Prediction, Recorded, RejectedFile, Tagged, file_id_of
from ..store.store import Store
from .pins import TaggingError
from .run import TaggingRun

if TYPE_CHECKING:
    from ..inference.engine import Engine
    from ..tracking.registry import Registry

logger = logging.getLogger(__name__)


Progress = Callable[[int], None]  # called with the number of files or pictures just finished


def shard_range(shard: int, of: int) -> tuple[str, str | None]:
    """Return the range [lo, hi) of ids (sha256 in hex) of a shard; hi None is the end."""
    if not 0 <= shard < of:
        raise TaggingError(f"shard {shard} of {of}: shards are numbered from 0")
    edges = [format(i * 16**8 // of, "08x") for i in (shard, shard + 1)]
    return edges[0] if shard else "", edges[1] if shard + 1 < of else None


def load_pinned(
    store: Store,
    registry: Registry,
    run: TaggingRun,
    *,
    bundles: Path,
    device: str,
    precision: Literal["auto", "float32"],
) -> Engine:
    """Return the models that a run pinned, on a device; `bundles` is the local cache."""
    from ..inference.engine import Engine
    from ..promotion.versions import bundle_directory

    directories = [
        bundle_directory(store, registry, bundles, digest) for digest in run.pins.values()
    ]
    return Engine(directories, device, precision)


def tag_shard(
    store: Store,
    engine: Engine,
    run: TaggingRun,
    shard: int,
    of: int,
    *,
    params: Params,
    inbox: Place,
    progress: Progress | None = None,
    kept: KeptViews | None = None,
) -> dict[str, int]:
    """Tag new files, then the backlog, newest first, until the run's time is spent.

    `tag.budget_minutes` counts the time in which shards work: a wait for a slot is not counted, and
    shards that run one after the other share it. Shards draw from the run's one queue, page by
    page, so that all arrivals come before any backlog and the newest before the rest, whether they
    run side by side or one after the other. In the end each looks through its own range of ids for
    what a killed shard had drawn and not written.

    Returns what this call added to the run's counts: the numbers of files tagged, rejected and
    deferred (read, and left to the next run), and of pictures tagged again. A batch is computed
    first and written in one short transaction: killed anywhere, nothing is half-written.
    `kept` is then given its view, and a preview, of every new picture just tagged.
    """
    began, spent = time.monotonic(), store.runs.spent(run.run_id)
    batch = engine.batch_size(params.tag.batch_size)
    further = []
    # A larger view than the models' would need pictures decoded larger, and tags could change.
    if kept and kept.transform.longest <= max(t.longest for t in engine.transforms):
        further = [kept.transform]
    pool = decode_pool(
        params,
        [*engine.transforms, *further],
        inbox,
        settle_seconds=params.tag.settle_seconds,
        batch=batch,
        derived=len(further),
        preview=kept.preview if kept else 0,
    )
    with _spending(store, run, began, spent), pool:
        worker = Tagger(
            store=store,
            pool=pool,
            engine=engine,
            run=run,
            range=shard_range(shard, of),
            batch=batch,
            deadline=began - spent + 60 * params.tag.budget_minutes,
            progress=progress or (lambda _: None),
            kept=kept,
        )
        worker.tag_arrivals()
        worker.tag_backlog()
    counts = dict(worker.counts)
    logger.info(event("shard", run=run.run_id, shard=shard, of=of, **counts))
    return counts


@contextmanager
def _spending(store: Store, run: TaggingRun, began: float, spent: float) -> Iterator[None]:
    """Add the time until the block ends to that of the run, of which `spent` seconds were spent."""
    try:
        yield
    finally:
        store.runs.spend(run.run_id, spent + time.monotonic() - began)


class _Arrival(NamedTuple):
    """A file that waited, what was read of it, and the tags predicted before, by digest."""

    row: FileRow
    decoded: Decoded
    known: Mapping[str, tuple[str, ...]]

    @property
    def deferred(self) -> str | None:
        """Why the next run must read it again; None where this one can settle it."""
        if self.decoded.retry:
            return self.decoded.why or "not read"
        changed = self.decoded.token not in (None, self.row.token)
        return "it changed after it was listed" if changed else None

    @property
    def is_good(self) -> bool:
        return self.deferred is None and self.decoded.views is not None


@dataclass
class Tagger:
    """The loop over the files and pictures of a shard, or of a range; `counts` grows as it goes."""

    store: Store
    pool: DecodePool
    engine: Engine
    run: TaggingRun
    range: tuple[str, str | None]
    batch: int
    deadline: float
    progress: Progress
    kept: KeptViews | None

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter(tagged=0, rejected=0, retagged=0, deferred=0)
        self.deferred: set[str] = set()  # ids of files and images that the next run tries again
        self.reopened: list[FileRow] = []

    def tag_arrivals(self) -> None:
        """Decode, score and settle every file that waits."""
        self._tag(self._pages(self._drawn_files))
        # And what a shard was handed that was killed before this one ran in its place.
        self._tag(self._pages(self._left_files))

    def _tag(self, files: Iterator[FileRow]) -> None:
        rows: dict[str, FileRow] = {}

        def locators() -> Iterator[str]:
            for row in files:
                if row.file_id in self.deferred:
                    continue
                rows[row.locator] = row
                yield row.locator

        decoded = chunked(self.pool.run(locators(), previews=self.kept is not None), self.batch)
        batches = (self._look_up([(rows.pop(d.locator), d) for d in some]) for some in decoded)
        for batch, predictions in prefetched(batches, self._predict_arrivals):
            self._settle(batch, predictions)

    def tag_backlog(self) -> None:
        """Score again, newest first, the pictures that lack a pinned bundle's prediction."""
        self.tag_again(self._pages(self._drawn_backlog))
        self.tag_again(self._pages(self._left_backlog))
        # Files that turned out to hold other bytes, although their size and time are the same.
        self._tag(row for row in self.reopened if time.monotonic() < self.deadline)

    def tag_again(self, images: Iterable[Backlog]) -> None:
        """Score the pictures by the bundles that they lack, from the first file that can be read.

        A picture none of whose files can be read is left to the next run.
        """
        while unread := self._tag_again(images):
            images = (row for row in unread if time.monotonic() < self.deadline)

    def _tag_again(self, images: Iterable[Backlog]) -> list[Backlog]:
        """Score the pictures, each from its first file; return the unread ones with further files.

        These are returned without the file that was tried.
        """
        unread: list[Backlog] = []
        rows: dict[str, list[Backlog]] = {}

        def locators() -> Iterator[str]:
            for row in images:
                if row.image_id in self.deferred:
                    continue
                if not row.locators:  # its files went after it was listed: no work any more
                    continue
                rows.setdefault(row.locators[0], []).append(row)
                yield row.locators[0]

        decoded = chunked(self.pool.run(locators()), self.batch)
        batches = ([(rows[d.locator].pop(0), d) for d in some] for some in decoded)
        for batch, predictions in prefetched(batches, self._predict_backlog):
            unread += self._retag(batch, predictions)
        return unread

    def _look_up(self, batch: Sequence[tuple[FileRow, Decoded]]) -> list[_Arrival]:
        """Find out what was predicted before: a renamed file, or a copy, costs no model run."""
        images = {_image_id(d) for _, d in batch if d.views is not None}
        digests = self.run.pins.values()
        tags = self.store.predictions.tags_known(digests, images) if images else {}
        known: dict[str | None, dict[str, tuple[str, ...]]] = {}
        for (digest, image_id), predicted in tags.items():
            known.setdefault(image_id, {})[digest] = predicted
        return [_Arrival(row, d, known.get(d.image_id, {})) for row, d in batch]

    def _predict_arrivals(self, batch: Sequence[_Arrival]) -> list[Prediction]:
        digests = self.run.pins.values()
        return self._predict_lacking(
            (tuple(digest for digest in digests if digest not in arrival.known), arrival.decoded)
            for arrival in batch
            if arrival.is_good
        )

    def _predict_backlog(self, batch: Sequence[tuple[Backlog, Decoded]]) -> list[Prediction]:
        return self._predict_lacking(
            (tuple(self.run.pins[group] for group in row.groups), d) for row, d in _unchanged(batch)
        )

    def _predict_lacking(
        self, images: Iterable[tuple[tuple[str, ...], Decoded]]
    ) -> list[Prediction]:
        """Predict each image by the bundles it lacks; images that lack the same go together."""
        lacking: dict[tuple[str, ...], list[Decoded]] = {}
        for digests, d in images:
            lacking.setdefault(digests, []).append(d)
        return [
            prediction
            for digests, some in lacking.items()
            if digests
            for prediction in self._predict(some, digests)
        ]

    def _settle(self, batch: Sequence[_Arrival], predictions: Sequence[Prediction]) -> None:
        good = [arrival for arrival in batch if arrival.is_good]
        bad = [(a.row, a.decoded) for a in batch if a.deferred is None and a.decoded.rejected]
        gone = [arrival.row.file_id for arrival in batch if _is_gone(arrival.decoded)]
        later = [arrival for arrival in batch if arrival.deferred]
        recorded = self.store.predictions.record(
            tagged=_tagged(good, predictions),
            rejected=[
                RejectedFile(row.file_id, d.token or row.token, d.rejected or "", d.image_id)
                for row, d in bad
            ],
            predictions=predictions,
            gone=gone,
            deferred=[a.row.file_id for a in later if not _is_gone(a.decoded)],
            run_id=self.run.run_id,
            now=datetime.now(UTC),
        )
        for row, d in bad:
            line = event("rejected", picture=d.image_id, file=row.locator, reason=d.rejected)
            logger.warning(line)
        for arrival in later:
            row, reason = arrival.row, arrival.deferred
            self.deferred.add(row.file_id)
            logger.info(event("deferred", file=row.locator, reason=reason))
        if self.kept:
            self._hand_on([arrival.decoded for arrival in good], self.kept)
        self._count(len(batch), recorded)

    def _hand_on(self, decoded: Sequence[Decoded], kept: KeptViews) -> None:
        image_ids = [_image_id(d) for d in decoded]
        unwanted = self.store.files.forgotten(image_ids)
        for d in decoded:
            if d.views and d.size and d.image_id not in unwanted:
                # The further view comes after those of the models, if it is there.
                view = next(iter(d.views[len(self.engine.transforms) :]), None)
                kept.take(_image_id(d), view, d.preview, d.size)
        # What is kept of a picture that is erased after this look is removed by the eraser.
        for image_id in self.store.files.forgotten(image_ids) - unwanted:
            kept.drop(image_id)

    def _retag(
        self, batch: Sequence[tuple[Backlog, Decoded]], predictions: Sequence[Prediction]
    ) -> list[Backlog]:
        gone = [file_id_of(d.locator) for _, d in batch if _is_gone(d)]
        recorded = self.store.predictions.record(
            predictions=predictions, gone=gone, run_id=self.run.run_id, now=datetime.now(UTC)
        )
        tagged = {prediction.image_id for prediction in predictions}
        unread = []
        for row, d in batch:
            if row.image_id in tagged:
                continue
            logger.info(event("deferred", file=d.locator, reason=_why_unread(row, d)))
            if further := row.locators[1:]:
                unread.append(replace(row, locators=further))
            else:
                self.deferred.add(row.image_id)
        other = {
            file_id_of(d.locator): (d.token, d.image_id)
            for row, d in batch
            if d.token and d.image_id and d.image_id != row.image_id
        }
        if other:
            self.reopened += self.store.files.reopen(other, datetime.now(UTC))
        self._count(len(batch) - len(unread), recorded)
        return unread

    def _predict(self, decoded: Sequence[Decoded], digests: Iterable[str]) -> list[Prediction]:
        if not decoded:
            return []
        views = stack_views(self.engine, decoded)
        by_digest, described = self.engine.predict_and_describe(views, only=set(digests))
        vectors: list[bytes | None] = [*described] or [None] * len(decoded)
        return [
            Prediction(
                _image_id(d),
                digest,
                prediction.scores,
                prediction.tags,
                vector,
                prediction.unsure,
            )
            for digest, predictions in by_digest.items()
            for d, prediction, vector in zip(decoded, predictions, vectors, strict=True)
        ]

    def _pages(self, page: Callable[[T | None], list[T]]) -> Iterator[T]:
        """Walk through pages of work until there is no more, or no more time."""
        last: T | None = None
        while time.monotonic() < self.deadline and (rows := page(last)):
            yield from rows
            last = rows[-1]

    def _drawn_files(self, _: FileRow | None) -> list[FileRow]:
        return self.store.files.hand_out(self.run.run_id, limit=4 * self.batch)

    def _drawn_backlog(self, _: Backlog | None) -> list[Backlog]:
        limit = 4 * self.batch
        return self.store.predictions.hand_out(self.run.run_id, self.run.pins, limit)

    def _left_files(self, last: FileRow | None) -> list[FileRow]:
        after = last.file_id if last else None
        return self.store.files.waiting(*self.range, limit=4 * self.batch, after=after)

    def _left_backlog(self, last: Backlog | None) -> list[Backlog]:
        after = (last.first_seen, last.image_id) if last else None
        return self.store.predictions.backlog(
            self.run.pins, *self.range, limit=4 * self.batch, after=after
        )

    def _count(self, finished: int, recorded: Recorded) -> None:
        self.counts.update(recorded._asdict())
        self.progress(finished)


def _unchanged(batch: Sequence[tuple[Backlog, Decoded]]) -> list[tuple[Backlog, Decoded]]:
    """Leave out files that cannot be read or were replaced since: the next scan handles them."""
    return [(row, d) for row, d in batch if d.views and d.image_id == row.image_id]


def _why_unread(row: Backlog, decoded: Decoded) -> str:
    if decoded.image_id not in (None, row.image_id):
        return "it holds another picture"
    return decoded.rejected or decoded.why or "not read"


def _tagged(good: Sequence[_Arrival], predictions: Sequence[Prediction]) -> list[Tagged]:
    predicted: dict[str, dict[str, tuple[str, ...]]] = {}
    for p in predictions:
        predicted.setdefault(p.image_id, {})[p.digest] = p.tags
    tagged = []
    for row, decoded, known in good:
        image_id, (width, height) = _image_id(decoded), decoded.size or (0, 0)
        by_digest = {**known, **predicted.get(image_id, {})}
        tags = tuple(tag for some in by_digest.values() for tag in some)
        token = decoded.token or row.token
        tagged.append(Tagged(row.file_id, token, image_id, width, height, tags))
    return tagged


def _image_id(decoded: Decoded) -> str:
    if decoded.image_id is None:
        raise TaggingError(f"{decoded.locator}: decoded without an image id")
    return decoded.image_id


def _is_gone(decoded: Decoded) -> bool:
    return (decoded.why or "").startswith(batches.GONE)
