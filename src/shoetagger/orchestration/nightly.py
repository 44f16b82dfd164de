"""The steps of a tagging run on an installation; `night` runs all of them in one process.

The DAG `tag_new_images` runs each step as a task; `shoetagger night` needs no Airflow.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..config.settings import Settings
from ..ops.installation import Installation, opened
from ..publishing import publication, thumbnails
from ..tagging import run as tagging
from ..tagging import shard as tagging_shard
from ..tagging.alerts import alert_on_failure
from ..tagging.run import Kind, Summary, TaggingRun
from ..tagging.shard import Progress

if TYPE_CHECKING:
    from ..inference.engine import Engine


def begin(installation: Installation, kind: Kind) -> TaggingRun:
    run = tagging.begin(
        installation.store,
        installation.registry,
        groups=list(installation.params.groups),
        bundles=installation.settings.bundles,
        kind=kind,
    )
    return _with_fault(installation, run)


def _with_fault(installation: Installation, run: TaggingRun) -> TaggingRun:
    """Add to a run's alerts that params.yaml has a fault, which may come in the middle of it."""
    fault = installation.params_fault
    if fault is None or fault in run.alerts:
        return run
    return run.model_copy(update={"alerts": (*run.alerts, fault)})


def find_arrivals(installation: Installation, run: TaggingRun) -> dict[str, int]:
    with tagging.part(installation.store, run, "listing the inbox"):
        return tagging.find_arrivals(
            installation.store,
            installation.settings.inbox,
            run,
            options=installation.params.tag,
            state=installation.settings.home,
        )


def shards(installation: Installation, run: TaggingRun) -> list[int]:
    with tagging.part(installation.store, run, "counting the work"):
        return tagging.shards(installation.store, run, most=installation.params.tag.shards)


def tag_shard(
    installation: Installation,
    run: TaggingRun,
    shard: int,
    of: int,
    progress: Progress | None = None,
) -> dict[str, int]:
    settings, params = installation.settings, installation.params
    with tagging.part(installation.store, run, f"tagging (shard {shard + 1} of {of})"):
        return tagging_shard.tag_shard(
            installation.store,
            load_models(installation, run),
            run,
            shard,
            of,
            params=params,
            inbox=settings.inbox,
            progress=progress,
            kept=thumbnails.of_shard(settings.published, params.publish),
        )


def load_models(installation: Installation, run: TaggingRun) -> Engine:
    """Return the models that a run pinned, on the installation's device."""
    return tagging_shard.load_pinned(
        installation.store,
        installation.registry,
        run,
        bundles=installation.settings.bundles,
        device=installation.settings.device,
        precision=installation.params.tag.precision,
    )


def publish_run(installation: Installation, run: TaggingRun) -> dict[str, int]:
    with tagging.part(installation.store, run, "publishing"):
        return publish(installation)


def publish(installation: Installation, *, every_day: bool = False) -> dict[str, int]:
    return publication.publish_changes(
        installation.store,
        installation.params,
        published=installation.settings.published,
        inbox=installation.settings.inbox,
        every_day=every_day,
    )


def finish(
    installation: Installation,
    run: TaggingRun,
    state: str = "done",
) -> Summary:
    return tagging.finish(
        installation.store,
        _with_fault(installation, run),
        state,
        options=installation.params.tag,
        notify_url=installation.settings.notify_url,
    )


def night(settings: Settings, kind: Kind, progress: Progress | None = None) -> Summary:
    """Pin, find what arrived, tag it, publish; the summary is in the store as well.

    An unusual night is published all the same: the summary's `alerts` say what is odd.
    """
    with ExitStack() as stack:
        with alert_on_failure(settings.notify_url, f"a {kind} run cannot begin"):
            installation = stack.enter_context(opened(settings, unattended=True))
            run = begin(installation, kind)
        state = "failed"
        try:
            find_arrivals(installation, run)
            if shards(installation, run):
                tag_shard(installation, run, 0, 1, progress)
            publish_run(installation, run)
            state = "done"
        finally:
            summary = finish(installation, run, state)
        return summary
