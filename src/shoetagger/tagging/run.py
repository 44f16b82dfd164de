"""Pin, find work, tag a shard; knows no Airflow.

A tagging run pins the live bundles first: what is promoted meanwhile waits for the next run. Work
is always read from the store, so a shard can be killed anywhere and run again.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ..config import params
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..ingest import inbox
from ..ingest.batches import batched
from ..store.store import Store
from .alerts import notify, told
from .drift import judge
from .logfmt import event

logger = logging.getLogger(__name__)
Kind = Literal["night", "retag", "manual"]
_NOTED_AT_ONCE = 5000
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
    from ..promotion.moves import reconcile
    from ..promotion.versions import bundle_directory

    groups = params.load(settings.params_file).groups
    with Store(settings.store_url) as store:
        reconcile(settings, store, list(groups))
        live = store.ledger.live()
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
            bundle_directory(settings, digest)
            known = store.ledger.version_of(digest)
            versions[group] = (known and known.version) or "?"
        now = datetime.now(UTC)
        run_id = store.runs.start(kind, pins, now)
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
            noted = store.files.note(batch, datetime.now(UTC))
            seen, new, refused = seen + len(batch), new + noted.new, refused + noted.refused
    found = {"seen": seen, "new": new, "rejected": refused}
    logger.info(event("listed", run=run.run_id, inbox=settings.inbox, **found))
    return found


def shards(settings: Settings, run: TaggingRun) -> list[int]:
    """Return the shards that the work at hand is worth; none where there is nothing to do."""
    most = params.load(settings.params_file).tag.shards
    with Store(settings.store_url) as store:
        work = store.predictions.count_work(run.pins)
    total = work.new_files + max(work.backlog.values(), default=0)
    return list(range(min(most, math.ceil(total / _WORTH_A_SHARD))))


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
    now = datetime.now(UTC)
    what = f"{run.kind} run {run.run_id} cannot be closed"
    with told(settings.notify_url, what), Store(settings.store_url) as store:
        past = store.runs.past_rates(options.drift.nights, run.run_id)
        reasons = judge(counts, rates, past, options)
        store.runs.finish(run.run_id, state, counts, now, rates=rates, alerts=reasons)
    seconds = round((now - datetime.fromisoformat(run.started_at)).total_seconds(), 1)
    summary = Summary(
        run.run_id, run.kind, state, counts, run.versions, run.left_out, seconds, tuple(reasons)
    )
    said = event(run.kind, run=run.run_id, state=state, **counts, seconds=seconds)
    logger.info(said)
    for reason in reasons:
        logger.error(event("alarm", run=run.run_id, reason=reason))
    if reasons or state != "done":
        notify(settings.notify_url, {"run_id": run.run_id, **summary.as_dict()})
    return summary
