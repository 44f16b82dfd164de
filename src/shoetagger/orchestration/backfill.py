"""`shoetagger backfill` on an installation: in this process, or by actors on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

from ..config.settings import Settings
from ..ingest.batches import decode_pool
from ..ops.installation import Installation, opened
from ..store.rows import BacklogRange
from ..tagging import backfill as tagging_backfill
from ..tagging import run as tagging
from ..tagging import shard as tagging_shard
from ..tagging.backfill import RANGES, Filled
from ..tagging.run import TaggingRun
from ..tagging.shard import Progress


class Backfiller:
    """What works through ranges: store, models and decoding processes, opened once.

    A process of its own opens all of it from the same environment.
    """

    def __init__(
        self, settings: Settings, run: TaggingRun, since: datetime | None, progress: Progress | None
    ) -> None:
        self._run, self._since, self._progress = run, since, progress
        self._stack = ExitStack()
        here = self._stack.enter_context(opened(settings, unattended=True))
        params = here.params
        self._store = here.store
        self._engine = tagging_shard.load_pinned(
            here.store,
            here.registry,
            run,
            bundles=settings.bundles,
            device=settings.device,
            precision=params.tag.precision,
        )
        self._batch = self._engine.batch_size(params.tag.batch_size)
        self._pool = self._stack.enter_context(
            decode_pool(
                params,
                self._engine.transforms,
                settings.inbox,
                settle_seconds=params.tag.settle_seconds,
                batch=self._batch,
            )
        )

    def fill(self, part: BacklogRange) -> Filled:
        return tagging_backfill.fill(
            self._store,
            self._engine,
            self._pool,
            self._run,
            part,
            batch=self._batch,
            since=self._since,
            progress=self._progress,
        )

    def close(self) -> None:
        self._stack.close()


@contextmanager
def begun(installation: Installation) -> Iterator[TaggingRun]:
    """Open a run that counts what a backfill does, and close it; nobody is told of its end."""
    store, params = installation.store, installation.params
    run = tagging.begin(
        store,
        installation.registry,
        groups=list(params.groups),
        bundles=installation.settings.bundles,
        kind="backfill",
    )
    state = "failed"
    try:
        yield run
        state = "done"
    finally:
        work = store.predictions.count_work(run.pins)
        left = {"waiting": work.new_files, "backlog": max(work.backlog.values(), default=0)}
        store.runs.finish(run.run_id, state, left, datetime.now(UTC), alerts=run.alerts)


def ranges(
    installation: Installation, run: TaggingRun, since: datetime | None
) -> list[BacklogRange]:
    """Return the ranges in which pictures lack a pinned bundle's tags, the newest first."""
    return installation.store.predictions.backlog_ranges(run.pins, RANGES, since=since)


def locally(
    settings: Settings,
    run: TaggingRun,
    parts: Sequence[BacklogRange],
    since: datetime | None,
    progress: Callable[[int], None],
) -> Iterator[Filled]:
    """Work through the ranges in this process."""
    backfiller = Backfiller(settings, run, since, progress)
    try:
        for part in parts:
            yield backfiller.fill(part)
    finally:
        backfiller.close()
