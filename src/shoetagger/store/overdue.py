"""Whether nights have stopped: nothing reports that by itself, so whatever looks has to say it."""

from __future__ import annotations

from datetime import datetime

from .store import Store


def overdue(store: Store, max_hours: float | None, now: datetime) -> str | None:
    """Return why no run has tagged for longer than `max_hours`, in words, or None.

    Runs of every kind count, but not backfills and those that were killed. Before the first run,
    the time since the first champion counts. `max_hours` None switches this off. Raises StoreError.
    """
    if max_hours is None:
        return None
    champions = (move.done_at for move in store.ledger.history() if move.done_at)
    since = store.runs.latest_start() or min(champions, default=None)
    if since is None or (now - since).total_seconds() <= max_hours * 3600:
        return None
    hours = (now - since).total_seconds() / 3600
    return (
        f"no night has run for {hours:.0f} hours, since {since:%Y-%m-%d %H:%M} UTC "
        f"(tag.max_hours_without_night: {max_hours:g}): `make status` says whether the servers "
        "run, `make up` starts them, and `make service` lets them start after a reboot"
    )
