"""What the tasks of the two DAGs call: places from the environment in, small dicts out.

The one module that knows Airflow's exceptions: a fault that trying again cannot mend fails its
task at once, with the sentence that says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from . import pipeline, promotion, publish, tagging
from .errors import ShoetaggerError
from .params import Params
from .params import load as load_params
from .settings import Settings
from .tracking import SilentError

_WORTH_ANOTHER_TRY = (pipeline.TryAgainError, SilentError)
_KINDS: Mapping[str, tagging.Kind] = {"scheduled": "night", "asset_triggered": "retag"}


def params_of_repo() -> Params:
    """Return params.yaml as it is in the repo; reading it is quick enough for parsing a DAG."""
    return load_params(Settings.from_environment().params_file)


@contextmanager
def _final() -> Iterator[None]:
    """Let errors that a retry cannot mend fail the task for good, as one sentence."""
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield
    except _WORTH_ANOTHER_TRY:
        raise
    except ShoetaggerError as error:
        raise AirflowFailException(str(error)) from error


# --- training -----------------------------------------------------------------------------------


def checkout(revision: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Resolve what to train from and check it out here."""
    settings = Settings.from_environment()
    with _final():
        plan = pipeline.prepare(settings, revision, overrides)
        pipeline.checkout(settings, plan)
        return plan.as_dict()


def groups(plan: Mapping[str, Any], asked: Sequence[str]) -> list[str]:
    """Return the groups to train."""
    with _final():
        settings = Settings.from_environment()
        return pipeline.groups_of(settings, pipeline.Plan.from_dict(plan), asked)


def run_stage(plan: Mapping[str, Any], stage: str) -> str:
    """Run one DVC stage of the plan on this worker; says whether it ran or was restored."""
    with _final():
        settings = Settings.from_environment()
        return pipeline.run_stage(settings, pipeline.Plan.from_dict(plan), stage)


def register(plan: Mapping[str, Any], group: str) -> dict[str, str]:
    """Register the finished bundle of a group as its challenger."""
    with _final():
        settings = Settings.from_environment()
        return promotion.register(settings, pipeline.Plan.from_dict(plan), group).as_dict()


def compare(plan: Mapping[str, Any], challenger: Mapping[str, str]) -> dict[str, Any]:
    """Judge a challenger against the champion of its group."""
    with _final():
        settings = Settings.from_environment()
        return promotion.compare(
            settings,
            pipeline.Plan.from_dict(plan),
            challenger["group"],
            challenger["digest"],
        ).as_dict()


def promote(plan: Mapping[str, Any], comparison: Mapping[str, Any], by: str) -> dict[str, str]:
    """Make a challenger that passed the champion; one that did not ends its path as skipped."""
    from airflow.sdk.exceptions import AirflowSkipException

    judged = promotion.Comparison.from_dict(comparison)
    if not judged.passes:
        raise AirflowSkipException("; ".join(judged.reasons))
    with _final():
        settings = Settings.from_environment()
        promotion.promote(settings, pipeline.Plan.from_dict(plan), judged, by=by)
        return {"group": judged.group, "version": judged.version}


# --- tagging ------------------------------------------------------------------------------------


def begin(run_type: str) -> dict[str, Any]:
    """Pin the live bundles and start a tagging run, of the kind that its DAG run is."""
    with _final():
        settings = Settings.from_environment()
        return tagging.begin(settings, _KINDS.get(run_type, "manual")).as_dict()


def find_arrivals(run: Mapping[str, Any]) -> dict[str, int]:
    """Bring the inbox's listing into the store."""
    with _final():
        settings = Settings.from_environment()
        return tagging.find_arrivals(settings, tagging.TaggingRun.from_dict(run))


def shards(run: Mapping[str, Any]) -> list[dict[str, int]]:
    """Return the shards to tag, each with its number and how many there are."""
    with _final():
        settings = Settings.from_environment()
        numbers = tagging.shards(settings, tagging.TaggingRun.from_dict(run))
        return [{"shard": number, "of": len(numbers)} for number in numbers]


def tag_shard(run: Mapping[str, Any], shard: int, of: int) -> dict[str, int]:
    """Tag one shard."""
    with _final():
        settings = Settings.from_environment()
        return tagging.tag_shard(settings, tagging.TaggingRun.from_dict(run), shard, of)


def publish_changes() -> dict[str, int]:
    """Write what changed to the tables and pages."""
    with _final():
        return publish.publish_changes(Settings.from_environment())


def finish(
    run: Mapping[str, Any] | None,
    found: Mapping[str, int] | None,
    shards: Sequence[Mapping[str, int]] | None,
    counted: Iterable[Mapping[str, int]],
    published: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Close a run with what its parts counted; fails where one of them did, with all it has."""
    from airflow.sdk.exceptions import AirflowFailException

    if run is None:
        raise AirflowFailException("the run did not begin: see the log of the task `begin`")
    parts = [part for part in counted if part is not None]
    lacking = len(shards or []) - len(parts)
    whole = found is not None and shards is not None and not lacking and published is not None
    settings = Settings.from_environment()
    summary = tagging.finish(
        settings,
        tagging.TaggingRun.from_dict(run),
        [found or {}, *parts],
        "done" if whole else "failed",
    )
    if not whole:
        raise AirflowFailException(f"{summary}; see the logs of the tasks that failed")
    return summary.as_dict()
