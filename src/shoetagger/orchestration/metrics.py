"""What tagging runs send through Airflow's own metrics, where these are switched on.

Counters grow in the process of each task; StatsD adds them up. What a killed attempt had not yet
sent is missing from the counters: exact counts of a run are in the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from ..store.store import Store

PICTURES = "shoetagger.pictures"
WAITING = "shoetagger.waiting"
OLDEST_WAITING = "shoetagger.oldest_waiting_seconds"
_SWITCHES = ("statsd_on", "statsd_datadog_enabled", "otel_on")


def are_on() -> bool:
    """Return whether Airflow sends metrics anywhere."""
    from airflow.sdk.configuration import conf

    return any(conf.getboolean("metrics", switch, fallback=False) for switch in _SWITCHES)


def count_pictures(number: int) -> None:
    """Add to the files and pictures that were finished, whatever became of them."""
    from airflow.sdk.observability import stats

    stats.incr(PICTURES, number)


def send_counts(counts: Mapping[str, int]) -> None:
    """Add what a shard did to the counters `shoetagger.tagged`, `shoetagger.rejected` and so on."""
    from airflow.sdk.observability import stats

    for name, number in counts.items():
        if number > 0:
            stats.incr(f"shoetagger.{name}", number)


def send_waiting(store: Store) -> None:
    """Send how many files wait to be tagged, and how many seconds the oldest has waited."""
    if not are_on():  # nobody would receive it: leave the store alone
        return
    from airflow.sdk.observability import stats

    oldest = store.files.oldest_waiting()
    seconds = 0.0 if oldest is None else (datetime.now(UTC) - oldest).total_seconds()
    stats.gauge(WAITING, store.files.count_waiting())
    stats.gauge(OLDEST_WAITING, max(0.0, seconds))
