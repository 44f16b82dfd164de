"""Pin, find work, tag a shard; knows no Airflow.

A tagging run pins the live bundles first: what is promoted meanwhile waits for the next run. Work
is always read from the store, so a shard can be killed anywhere and run again.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from . import alarms, inbox, params
from .decoding import Decoded, DecodePool
from .errors import ShoetaggerError
from .events import event
from .images import Limits, Transform
from .settings import Settings
from .store import Backlog, FileRow, Prediction, RejectedFile, Store, Tagged, file_id_of

if TYPE_CHECKING:  # torch takes seconds to import, and only shards need it
    from .engine import Engine

logger = logging.getLogger(__name__)

Kind = Literal["night", "retag", "manual"]
Progress = Callable[[int], None]  # hears how many files or pictures were just settled
T = TypeVar("T")
A = TypeVar("A")

_NOTED_AT_ONCE = 5000
_ASKED_AT_ONCE = 2  # batches; the models are never out of work while one is written
_WORTH_A_SHARD = 500  # files; below, starting another task costs more than it saves


class TaggingError(ShoetaggerError):
    """A tagging run cannot begin or cannot go on."""


@dataclass(frozen=True)
class TaggingRun:
    """One run and what it pinned; small enough to be handed from task to task."""

    run_id: str
    kind: Kind
    started_at: str  # ISO 8601, UTC
    pins: Mapping[str, str]  # group -> bundle digest
    versions: Mapping[str, str]  # group -> version in the registry
    left_out: tuple[str, ...]  # groups without a champion

    def as_dict(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "kind": self.kind,
            "started_at": self.started_at,
            "pins": dict(self.pins),
            "versions": dict(self.versions),
            "left_out": list(self.left_out),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TaggingRun:
        return cls(**{**plain, "left_out": tuple(plain["left_out"])})


def begin(settings: Settings, kind: Kind) -> TaggingRun:
    """Settle what promotions left half done, pin the live bundles and start a run in the store.

    Raises TaggingError where no group has a champion. With MLflow down the run goes on with what
    the store calls live and the bundles that are cached here.
    """
    from . import promotion

    groups = params.load(settings.params_file).groups
    with Store(settings.store_url) as store:
        promotion.reconcile(settings, store, list(groups))
        live = store.live()
        pins = {group: live[group] for group in groups if group in live}
        left_out = tuple(group for group in groups if group not in live)
        if not pins:
            raise TaggingError(
                f"no champion yet for {', '.join(left_out)}: train first, by triggering "
                "train_tag_models (or `make demo`), then tag"
            )
        for group in left_out:
            logger.warning(event("left_out", group=group, reason="it has no champion yet"))
        versions = {}
        for group, digest in pins.items():
            promotion.bundle_directory(settings, digest)
            known = store.version_of(digest)
            versions[group] = (known and known.version) or "?"
        now = _now()
        run_id = store.start_run(kind, pins, now)
    return TaggingRun(run_id, kind, now.isoformat(), pins, versions, left_out)


def find_arrivals(settings: Settings, run: TaggingRun) -> dict[str, int]:
    """Stream the inbox's listing into the store; returns the numbers of files seen and new.

    And of the new ones those rejected because they must not even be opened.
    """
    seen = new = refused = 0
    batches = batched(inbox.scan(settings.inbox), _NOTED_AT_ONCE)
    # While the database looks a batch up, the next one is listed.
    with Store(settings.store_url) as store, ThreadPoolExecutor(max_workers=1) as lister:
        coming = lister.submit(next, batches, None)
        while batch := coming.result():
            coming = lister.submit(next, batches, None)
            noted = store.note_arrivals(batch, _now())
            seen, new, refused = seen + len(batch), new + noted.new, refused + noted.refused
    found = {"seen": seen, "new": new, "rejected": refused}
    logger.info(event("listed", run=run.run_id, inbox=settings.inbox, **found))
    return found


def shards(settings: Settings, run: TaggingRun) -> list[int]:
    """Return the shards that the work at hand is worth; none where there is nothing to do."""
    most = params.load(settings.params_file).tag.shards
    with Store(settings.store_url) as store:
        work = store.count_work(run.pins)
    total = work.new_files + max(work.backlog.values(), default=0)
    return list(range(min(most, math.ceil(total / _WORTH_A_SHARD))))


def shard_range(shard: int, of: int) -> tuple[str, str | None]:
    """Return the range [lo, hi) of ids (sha256 in hex) that is a shard's; hi None is the end."""
    if not 0 <= shard < of:
        raise TaggingError(f"shard {shard} of {of}: shards are numbered from 0")
    edges = [format(i * 16**8 // of, "08x") for i in (shard, shard + 1)]
    return edges[0] if shard else "", edges[1] if shard + 1 < of else None


@dataclass(frozen=True)
class Aside:
    """Another view of new pictures, for somebody who would have to decode them again."""

    transform: Transform
    take: Callable[[str, np.ndarray, tuple[int, int]], None]  # image id, (S, S, 3) uint8, size
    drop: Callable[[str], None]  # image id of a picture that was forgotten meanwhile


def tag_shard(
    settings: Settings,
    run: TaggingRun,
    shard: int,
    of: int,
    progress: Progress | None = None,
    aside: Aside | None = None,
) -> dict[str, Any]:
    """Tag what lies in a shard, arrivals first, then the backlog, until the budget is spent.

    Returns the numbers of pictures tagged, rejected, tagged again and left for later, and as
    `positives` how many of those tagged got each tag. A batch is computed first and written in one
    short transaction: killed anywhere, nothing is half-written. `aside` is then given its view of
    every picture just tagged.
    """
    from . import promotion
    from .engine import Engine

    options = params.load(settings.params_file)
    directories = [promotion.bundle_directory(settings, digest) for digest in run.pins.values()]
    engine = Engine(directories, settings.device, options.tag.precision)
    batch = engine.batch_size(options.tag.batch_size)
    deadline = _deadline(run, options.tag.budget_minutes)
    if aside and aside.transform.size > max(transform.size for transform in engine.transforms):
        aside = None  # for its sake pictures would be decoded larger, and tags could change
    with ExitStack() as stack:
        store = stack.enter_context(Store(settings.store_url))
        pool = stack.enter_context(
            decode_pool(
                options,
                [*engine.transforms, *([aside.transform] if aside else [])],
                settings.inbox,
                settle_seconds=options.tag.settle_seconds,
                batch=batch,
            )
        )
        worker = _Shard(
            store=store,
            pool=pool,
            engine=engine,
            run=run,
            range=shard_range(shard, of),
            batch=batch,
            deadline=deadline,
            progress=progress or (lambda _: None),
            aside=aside,
        )
        worker.tag_arrivals()
        worker.tag_backlog()
    counts = dict(worker.counts)
    logger.info(event("shard", run=run.run_id, shard=shard, of=of, **counts))
    return counts | {"positives": dict(worker.positives)}


def decode_pool(
    options: params.Params,
    transforms: Sequence[Transform],
    root: Path,
    *,
    settle_seconds: float,
    batch: int | None = None,
) -> DecodePool:
    """Return the decoding processes as params.yaml bounds them; `root` bounds symbolic links.

    They go ahead of their taker by two batches, of `tag.batch_size` unless told otherwise.
    """
    limits = Limits.of(options.images)
    return DecodePool(
        transforms,
        limits,
        read=partial(inbox.read_picture, max_bytes=limits.max_bytes, root=root),
        workers=options.tag.decode_workers,
        seconds=options.tag.decode_seconds,
        memory_mb=options.tag.decode_memory_mb,
        settle_seconds=settle_seconds,
        ahead=2 * (batch or options.tag.batch_size),
    )


@dataclass
class _Shard:
    """The loop over one shard's files and pictures; `counts` grows as it goes."""

    store: Store
    pool: DecodePool
    engine: Engine
    run: TaggingRun
    range: tuple[str, str | None]
    batch: int
    deadline: float
    progress: Progress
    aside: Aside | None

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter(tagged=0, rejected=0, retagged=0, deferred=0)
        self.positives = Counter({tag: 0 for b in self.engine.bundles for tag in b.tags})

    def tag_arrivals(self) -> None:
        """Decode, score and settle every file that waits."""
        rows: dict[str, FileRow] = {}

        def locators() -> Iterator[str]:
            for row in self._pages(self._new_files):
                rows[row.locator] = row
                yield row.locator

        decoded = batched(self.pool.run(locators()), self.batch)
        batches = ([(rows.pop(d.locator), d) for d in some] for some in decoded)
        for batch, predictions in asked_ahead(batches, self._predict_arrivals):
            self._settle(batch, predictions)

    def tag_backlog(self) -> None:
        """Score again, newest first, the pictures that lack a pinned bundle's prediction."""
        rows: dict[str, list[Backlog]] = {}

        def locators() -> Iterator[str]:
            for row in self._pages(self._backlog):
                if not row.locators:  # lost between two looks: no work any more
                    continue
                rows.setdefault(row.locators[0], []).append(row)
                yield row.locators[0]

        decoded = batched(self.pool.run(locators()), self.batch)
        batches = ([(rows[d.locator].pop(0), d) for d in some] for some in decoded)
        for batch, predictions in asked_ahead(batches, self._predict_backlog):
            self._retag(batch, predictions)

    def _predict_arrivals(self, batch: Sequence[tuple[FileRow, Decoded]]) -> list[Prediction]:
        return self._predict([d for _, d in batch if d.views is not None], self.run.pins.values())

    def _predict_backlog(self, batch: Sequence[tuple[Backlog, Decoded]]) -> list[Prediction]:
        wanting: dict[tuple[str, ...], list[Decoded]] = {}
        for row, d in _unchanged(batch):
            wanting.setdefault(row.groups, []).append(d)
        return [
            prediction
            for groups, pictures in wanting.items()
            for prediction in self._predict(pictures, [self.run.pins[g] for g in groups])
        ]

    def _settle(
        self, batch: Sequence[tuple[FileRow, Decoded]], predictions: Sequence[Prediction]
    ) -> None:
        good = [(row, d) for row, d in batch if d.views is not None]
        bad = [(row, d) for row, d in batch if d.rejected is not None]
        later = [(row, d) for row, d in batch if d.retry]
        self.store.record(
            tagged=[_tagged(row, d) for row, d in good],
            rejected=[
                RejectedFile(row.file_id, d.token or row.token, d.rejected or "", d.image_id)
                for row, d in bad
            ],
            predictions=predictions,
            gone=[row.file_id for row, d in later if _is_gone(d)],
            run_id=self.run.run_id,
            now=_now(),
        )
        for row, d in bad:
            said = event("rejected", picture=d.image_id, file=row.locator, reason=d.rejected)
            logger.warning(said)
        for row, d in later:
            said = event("deferred", picture=d.image_id, file=row.locator, reason=d.why)
            logger.info(said)
        if self.aside:
            self._set_aside([d for _, d in good], self.aside)
        self.positives.update(tag for said in predictions for tag in said.tags)
        self._count(tagged=len(good), rejected=len(bad), deferred=len(later))

    def _set_aside(self, decoded: Sequence[Decoded], aside: Aside) -> None:
        image_ids = [_image_id(d) for d in decoded]
        unwanted = self.store.forgotten(image_ids)
        for d in decoded:
            if d.views and d.size and d.image_id not in unwanted:
                aside.take(_image_id(d), d.views[-1], d.size)
        # Whoever forgets one after this look finds it and takes it away.
        for image_id in self.store.forgotten(image_ids) - unwanted:
            aside.drop(image_id)

    def _retag(
        self, batch: Sequence[tuple[Backlog, Decoded]], predictions: Sequence[Prediction]
    ) -> None:
        gone = [file_id_of(d.locator) for _, d in batch if _is_gone(d)]
        self.store.record(predictions=predictions, gone=gone, run_id=self.run.run_id, now=_now())
        good = len(_unchanged(batch))
        self._count(retagged=good, deferred=len(batch) - good)

    def _predict(self, decoded: Sequence[Decoded], digests: Iterable[str]) -> list[Prediction]:
        if not decoded:
            return []
        views = stack_views(self.engine, decoded)
        answers = self.engine.answer(views, only=set(digests))
        return [
            Prediction(_image_id(d), digest, answer.scores, answer.tags)
            for digest, told in answers.items()
            for d, answer in zip(decoded, told, strict=True)
        ]

    def _pages(self, page: Callable[[T | None], list[T]]) -> Iterator[T]:
        """Walk through pages of work until there is no more, or no more time."""
        last: T | None = None
        while time.time() < self.deadline and (rows := page(last)):
            yield from rows
            last = rows[-1]

    def _new_files(self, last: FileRow | None) -> list[FileRow]:
        after = last.file_id if last else None
        return self.store.new_files(*self.range, limit=4 * self.batch, after=after)

    def _backlog(self, last: Backlog | None) -> list[Backlog]:
        after = (last.first_seen, last.image_id) if last else None
        return self.store.backlog(self.run.pins, *self.range, limit=4 * self.batch, after=after)

    def _count(self, **more: int) -> None:
        self.counts.update(more)
        self.progress(sum(more.values()))


def asked_ahead(
    batches: Iterable[list[T]], ask: Callable[[list[T]], A]
) -> Iterator[tuple[list[T], A]]:
    """Yield each batch with what `ask` answers, in order; the next is asked about meanwhile.

    So models are at work while one batch is written and another one collected. Where collecting
    fails, what is under way is dropped: it is still to be done.
    """
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as asking:
        under_way: deque[tuple[list[T], Future[A]]] = deque()
        for batch in batches:
            under_way.append((batch, asking.submit(ask, batch)))
            if len(under_way) == _ASKED_AT_ONCE:
                asked, answer = under_way.popleft()
                yield asked, answer.result()
        for asked, answer in under_way:
            yield asked, answer.result()


def stack_views(engine: Engine, decoded: Sequence[Decoded]) -> dict[Any, np.ndarray]:
    """Return for each of the engine's transforms the batch (B, S, S, 3) of decoded pictures.

    Their views come in the order of the engine's transforms; what comes after is not its own.
    """
    columns = zip(*(d.views or () for d in decoded), strict=True)
    return {
        transform: np.stack(views)
        for transform, views in zip(engine.transforms, columns, strict=False)
    }


@dataclass(frozen=True)
class Summary:
    """One line a night."""

    run_id: str
    kind: str
    state: str
    counts: Mapping[str, int]
    versions: Mapping[str, str]
    left_out: tuple[str, ...]
    seconds: float
    alarms: tuple[str, ...] = ()  # why a person should look at it

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        versions = ", ".join(f"{group} v{number}" for group, number in self.versions.items())
        without = f"; without a champion: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.kind} {self.state}: {counts}; {self.seconds:.0f} s; by {versions}{without}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "summary": str(self),
            "state": self.state,
            "counts": dict(self.counts),
            "alarms": list(self.alarms),
        }


def finish(
    settings: Settings, run: TaggingRun, counted: Iterable[Mapping[str, Any]], state: str = "done"
) -> Summary:
    """Close the run in the store with the sum of what its parts counted, and say it in one line.

    What is not as usual, by `alarms.judge`, is in the summary and goes to the webhook, and so does
    a run that failed.
    """
    counts: Counter[str] = Counter(seen=0, new=0, tagged=0, rejected=0, retagged=0, deferred=0)
    positives: Counter[str] = Counter()
    for part in counted:
        rest = dict(part)
        positives.update(rest.pop("positives", {}))
        counts.update(rest)
    rates = {tag: (has, counts["tagged"]) for tag, has in positives.items() if counts["tagged"]}
    options = params.load(settings.params_file).tag
    now = _now()
    what = f"{run.kind} run {run.run_id} cannot be closed"
    with alarms.told(settings.notify_url, what), Store(settings.store_url) as store:
        past = store.past_rates(options.drift.nights, run.run_id)
        reasons = alarms.judge(counts, rates, past, options)
        store.finish_run(run.run_id, state, counts, now, rates=rates, alarms=reasons)
    seconds = round((now - datetime.fromisoformat(run.started_at)).total_seconds(), 1)
    summary = Summary(
        run.run_id, run.kind, state, counts, run.versions, run.left_out, seconds, tuple(reasons)
    )
    said = event(run.kind, run=run.run_id, state=state, **counts, seconds=seconds)
    logger.info(said)
    for reason in reasons:
        logger.error(event("alarm", run=run.run_id, reason=reason))
    if reasons or state != "done":
        alarms.notify(settings.notify_url, {"run_id": run.run_id, **summary.as_dict()})
    return summary


def _unchanged(batch: Sequence[tuple[Backlog, Decoded]]) -> list[tuple[Backlog, Decoded]]:
    """Leave out what cannot be read, and files replaced since: the next scan's business."""
    return [(row, d) for row, d in batch if d.views and d.image_id == row.image_id]


def _tagged(row: FileRow, decoded: Decoded) -> Tagged:
    width, height = decoded.size or (0, 0)
    return Tagged(row.file_id, decoded.token or row.token, _image_id(decoded), width, height)


def _image_id(decoded: Decoded) -> str:
    if decoded.image_id is None:
        raise TaggingError(f"{decoded.locator}: decoded without an image id")
    return decoded.image_id


def _is_gone(decoded: Decoded) -> bool:
    return (decoded.why or "").startswith(inbox.GONE)


def _deadline(run: TaggingRun, minutes: float) -> float:
    return (datetime.fromisoformat(run.started_at) + timedelta(minutes=minutes)).timestamp()


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`, the last one maybe shorter."""
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _now() -> datetime:
    return datetime.now(UTC)
