"""The nightly job in one process: what the DAG `tag_new_images` does, without Airflow."""

from __future__ import annotations

from . import publish, tagging
from .settings import Settings


def night(
    settings: Settings, kind: tagging.Kind, progress: tagging.Progress | None = None
) -> tagging.Summary:
    """Pin, find what arrived, tag it, publish; returns what was done, in the store as well."""
    run = tagging.begin(settings, kind)
    counted = []
    state = "failed"
    try:
        counted.append(tagging.find_arrivals(settings, run))
        if tagging.shards(settings, run):
            counted.append(tagging.tag_shard(settings, run, 0, 1, progress))
        publish.publish_changes(settings)
        state = "done"
    finally:
        summary = tagging.finish(settings, run, counted, state)
    return summary
