"""Backfill: known pictures that lack a live version's tags get them, in ranges and beside nights.

The store is both the work list and the checkpoint: what was written is lacking no more, so a
backfill that was killed goes on where it was, and ranges may be worked through twice or at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from ..ingest.pool import DecodePool
from ..store.rows import Backlog, BacklogRange
from ..store.store import Store
from .run import TaggingRun
from .shard import Progress, Tagger

if TYPE_CHECKING:
    from ..inference.engine import Engine

RANGES = 256  # at least, where there are enough pictures


class Filled(NamedTuple):
    """What became of a range: pictures that were tagged, and those that could not be read."""

    tagged: int
    left: int


def fill(
    store: Store,
    engine: Engine,
    pool: DecodePool,
    run: TaggingRun,
    part: BacklogRange,
    *,
    batch: int,
    since: datetime | None = None,
    progress: Progress | None = None,
) -> Filled:
    """Tag the pictures of a range that lack a prediction of a pinned bundle, newest first.

    Pictures whose file cannot be read, or holds other bytes by now, are left to the next night.
    """
    tagger = Tagger(
        store=store,
        pool=pool,
        engine=engine,
        run=run,
        range=("", None),
        batch=batch,
        deadline=math.inf,
        progress=progress or (lambda _: None),
        kept=None,
    )
    tagger.tag_again(_pages(store, run, part, since, 4 * batch))
    return Filled(tagger.counts["retagged"], len(tagger.deferred))


def _pages(
    store: Store, run: TaggingRun, part: BacklogRange, since: datetime | None, size: int
) -> Iterator[Backlog]:
    below: int | None = part.below
    while below is not None:
        page, below = store.predictions.backlog_within(
            run.pins, part._replace(below=below), since=since, limit=size
        )
        yield from page
