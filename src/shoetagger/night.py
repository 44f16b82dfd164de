"""The nightly job in one process: what the DAG `tag_new_images` does, without Airflow."""

from __future__ import annotations

from typing import Any

from . import alarms, publish, tagging, thumbnails
from .settings import Settings


def night(
    settings: Settings, kind: tagging.Kind, progress: tagging.Progress | None = None
) -> tagging.Summary:
    """Pin, find what arrived, tag it, publish; returns what was done, in the store as well.

    A run that is not as usual is done all the same: the summary's `alarms` say what is odd.
    """
    with alarms.told(settings.notify_url, f"a {kind} run cannot begin"):
        run = tagging.begin(settings, kind)
    counted: list[dict[str, Any]] = []
    state = "failed"
    try:
        counted.append(tagging.find_arrivals(settings, run))
        if tagging.shards(settings, run):
            aside = thumbnails.of_shard(settings)
            counted.append(tagging.tag_shard(settings, run, 0, 1, progress, aside))
        publish.publish_changes(settings)
        state = "done"
    finally:
        summary = tagging.finish(settings, run, counted, state)
    return summary
