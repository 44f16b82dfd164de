"""Begin a tagging run, find its work, and finish it; knows no Airflow.

A run pins the live bundles first: a promotion during the run has no effect on it. Work is always
read from the store, so a shard can be killed anywhere and run again.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from more_itertools import chunked
from pydantic import BaseModel, computed_field

from ..config import operations
from ..config.places import Place
from ..errors import ShoetaggerError
from ..ingest.inbox import InboxError
from ..ingest.places import inbox_at
from ..logfmt import event
from ..notification.message import Message
from ..notification.send import send
from ..store.rows import StoreError, file_id_of, short_id
from ..store.store import Store
from ..store.tally import COUNTED
from .alerts import alert_on_failure
from .drift import unusual
from .pins import pin

if TYPE_CHECKING:
    from ..tracking.registry import Registry

logger = logging.getLogger(__name__)
Kind = Literal["night", "retag", "manual", "backfill"]
_NOTED_AT_ONCE = 5000
_WORTH_A_SHARD = 500  # files; below, starting another task costs more than it saves


class TaggingRun(BaseModel, frozen=True, extra="forbid"):
    """One run and what it pinned; small enough to be handed from task to task."""

    run_id: str
    kind: Kind
    started_at: str  # ISO 8601, UTC
    pins: Mapping[str, str]  # group -> bundle digest
    versions: Mapping[str, str]  # group -> version in the registry
    left_out: tuple[str, ...]  # groups without a champion, or whose bundle cannot be had
    alerts: tuple[str, ...] = ()  # what was found wrong before it began


def begin(
    store: Store, registry: Registry, *, groups: Sequence[str], bundles: Path, kind: Kind
) -> TaggingRun:
    """Pin the live bundles, as `pins.pin` does, and start a run in the store.

    `bundles` is the local cache of bundles. Raises TaggingError where no group can be tagged.
    """
    pins = pin(store, registry, groups, bundles=bundles)
    now = datetime.now(UTC)
    return TaggingRun(
        run_id=store.runs.start(kind, pins.digests, now),
        kind=kind,
        started_at=now.isoformat(),
        pins=pins.digests,
        versions=pins.versions,
        left_out=tuple(pins.left_out),
        alerts=tuple(pins.alerts),
    )


@contextmanager
def part(store: Store, run: TaggingRun, name: str) -> Iterator[None]:
    """Show in the store that a run goes on; where the block fails, keep the reason for `finish`.

    `name` says in words what the block does. A time limit is a failure as well.
    """
    store.runs.go_on(run.run_id, datetime.now(UTC))
    try:
        yield
    except BaseException as error:
        known = isinstance(error, ShoetaggerError)
        reason = str(error) if known else f"{name}: {type(error).__name__}: {error}"
        with suppress(StoreError):
            store.runs.fail(run.run_id, reason)
        raise


def find_arrivals(
    store: Store, inbox: Place, run: TaggingRun, *, options: operations.Tag, state: Path
) -> dict[str, int]:
    """Stream the inbox's listing into the store; return the numbers of files seen and new.

    `rejected` counts the new ones that must not even be opened. The run's counts have them, too.
    The folder `state` is left out. What was there and is not in the listing is gone; but a listing
    that lacks nearly all, by `options`, is taken for an inbox that is not mounted: it raises
    InboxError and marks nothing.
    """
    began = datetime.now(UTC)
    seen: set[int] = set()
    unlisted: list[str] = []
    new = refused = 0
    batches = chunked(inbox_at(inbox).scan(state=state), _NOTED_AT_ONCE)
    # While the database looks a batch up, the next one is listed.
    lister = ThreadPoolExecutor(max_workers=1)
    try:
        upcoming = lister.submit(next, batches, None)
        while batch := upcoming.result():
            upcoming = lister.submit(next, batches, None)
            noted = store.files.note(batch, datetime.now(UTC), run.run_id)
            seen |= {short_id(file_id_of(arrival.locator)) for arrival in batch}
            unlisted += [arrival.locator for arrival in batch if arrival.is_folder]
            new, refused = new + noted.new, refused + noted.refused
    finally:
        lister.shutdown(wait=False)  # a listing that hangs must not keep an error from being raised
    unseen = store.files.unseen(seen, began, unlisted)
    there = len(seen) + len(unseen)
    # A few files may well be removed on purpose, but not all of them at once.
    many = not seen or len(unseen) >= options.alert_from
    doubt = "is its disk or share mounted?" if isinstance(inbox, Path) else "is that its address?"
    if many and len(unseen) > options.max_missing * there:
        raise InboxError(
            f"the inbox {inbox} lacks {len(unseen)} of {there} known files, more than a share of "
            f"{options.max_missing} (tag.max_missing): {doubt} Nothing was "
            "marked as gone; where the files were removed on purpose, set tag.max_missing to 1.0 "
            "for one run"
        )
    store.files.lose(unseen)
    store.runs.listed(run.run_id, len(seen))
    counts = {"seen": len(seen), "new": new, "rejected": refused}
    logger.info(event("listed", run=run.run_id, inbox=inbox, **counts))
    return counts


def shards(store: Store, run: TaggingRun, *, most: int) -> list[int]:
    """Return the shards that the work at hand is worth, at most `most`; no work gives none."""
    work = store.predictions.count_work(run.pins)
    total = work.new_files + max(work.backlog.values(), default=0)
    return list(range(min(most, math.ceil(total / _WORTH_A_SHARD))))


class Summary(BaseModel, frozen=True, extra="forbid"):
    """What a run did."""

    run_id: str
    kind: str
    state: str
    counts: Mapping[str, int]
    versions: Mapping[str, str]
    left_out: tuple[str, ...]
    seconds: float
    alerts: tuple[str, ...] = ()  # why a person should look at it

    @computed_field  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """The run in one line."""
        counts = ", ".join(f"{number} {name}" for name, number in self.counts.items())
        versions = ", ".join(f"{group} v{number}" for group, number in self.versions.items())
        without = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.kind} {self.state}: {counts}; {self.seconds:.0f} s; by {versions}{without}"

    def __str__(self) -> str:
        return self.summary

    def message(self) -> dict[str, Any]:
        """Return what the DAG's last task shows, as plain values."""
        return self.model_dump(mode="json", include={"summary", "state", "counts", "alerts"})


def finish(
    store: Store,
    run: TaggingRun,
    state: str = "done",
    *,
    options: operations.Tag,
    notify_url: str | None,
) -> Summary:
    """Close the run in the store, and log in one line what it did.

    The store has counted that as it was done. What is left to do is counted here: `waiting` files,
    and a `backlog` of pictures to tag again. What is unusual, by `drift.unusual`, is in the
    summary, and people are told of it, as they are of a run that failed, with the reasons that its
    parts gave.
    """
    now = datetime.now(UTC)
    with alert_on_failure(notify_url, f"{run.kind} run {run.run_id} cannot be closed"):
        work = store.predictions.count_work(run.pins)
        left = {"waiting": work.new_files, "backlog": max(work.backlog.values(), default=0)}
        done = store.runs.find(run.run_id)
        # A run that older code began has counted nothing before.
        counts = {**dict.fromkeys(COUNTED, 0), **done.counts, **left}
        past = store.runs.past_rates(options.drift.nights, run.run_id)
        failures = store.runs.failures(run.run_id) if state != "done" else []
        spent = store.runs.spent(run.run_id)  # nothing where no shard ran, or all was closed before
        had_time = state == "done" and 0 < spent < 60 * options.budget_minutes
        odd = unusual(
            counts,
            done.rates or {},
            past,
            options,
            known=store.predictions.count_images(),
            had_time=had_time,
        )
        reasons = [*run.alerts, *failures, *odd]
        store.runs.finish(run.run_id, state, left, now, alerts=reasons)
    summary = Summary(
        run_id=run.run_id,
        kind=run.kind,
        state=state,
        counts=counts,
        versions=run.versions,
        left_out=run.left_out,
        seconds=round((now - datetime.fromisoformat(run.started_at)).total_seconds(), 1),
        alerts=tuple(reasons),
    )
    line = event(run.kind, run=run.run_id, state=state, **counts, seconds=summary.seconds)
    logger.info(line)
    for reason in reasons:
        logger.error(event("alert", run=run.run_id, reason=reason))
    if reasons or state != "done":
        more = {"run_id": run.run_id, "counts": counts}
        happened: Literal["done", "failed"] = "done" if state == "done" else "failed"
        send(notify_url, Message(happened, summary.summary, reasons, more=more))
    return summary
