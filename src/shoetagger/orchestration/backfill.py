"""`shoetagger backfill` on an installation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ..ingest.batches import decode_pool
from ..ops.installation import Installation
from ..store.rows import BacklogRange
from ..tagging.backfill import RANGES, Filled, fill
from ..tagging.run import TaggingRun
from . import nightly


@contextmanager
def begun(installation: Installation) -> Iterator[TaggingRun]:
    """Open a run that counts what a backfill does, and close it; its end notifies nobody."""
    store = installation.store
    run = nightly.begin(installation, "backfill")
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


def worked_through(
    installation: Installation,
    run: TaggingRun,
    parts: Iterable[BacklogRange],
    since: datetime | None,
    progress: Callable[[int], None],
) -> Iterator[Filled]:
    """Work through the ranges in this process; models and decoding processes are started once."""
    params = installation.params
    engine = nightly.load_models(installation, run)
    batch = engine.batch_size(params.tag.batch_size)
    pool = decode_pool(
        params,
        engine.transforms,
        installation.settings.inbox,
        settle_seconds=params.tag.settle_seconds,
        batch=batch,
    )
    with pool:
        for part in parts:
            yield fill(
                installation.store,
                engine,
                pool,
                run,
                part,
                batch=batch,
                since=since,
                progress=progress,
            )
