"""The nightly job in one process: what the DAG `tag_new_images` does, without Airflow."""

from __future__ import annotations

from typing import Any

from ..config.settings import Settings
from ..publishing import publication, thumbnails
from ..tagging import alerts
from ..tagging.run import Kind, Summary, begin, find_arrivals, finish, shards
from ..tagging.shard import Progress, tag_shard


def night(settings: Settings, kind: Kind, progress: Progress | None = None) -> Summary:
    """Pin, find what arrived, tag it, publish; returns what was done, in the store as well.

    A run that is not as usual is done all the same: the summary's `alarms` say what is odd.
    """
    with alerts.told(settings.notify_url, f"a {kind} run cannot begin"):
        run = begin(settings, kind)
    counted: list[dict[str, Any]] = []
    state = "failed"
    try:
        counted.append(find_arrivals(settings, run))
        if shards(settings, run):
            extra_view = thumbnails.of_shard(settings)
            counted.append(tag_shard(settings, run, 0, 1, progress, extra_view))
        publication.publish_changes(settings)
        state = "done"
    finally:
        summary = finish(settings, run, counted, state)
    return summary
