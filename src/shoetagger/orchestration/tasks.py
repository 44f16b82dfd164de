"""The tasks of the DAGs: places from the environment in, small dicts out.

A DAG file imports this while it is parsed, so whatever takes time to import waits for its task.
The one module that knows Airflow's exceptions: a fault that trying again cannot mend fails its
task at once, with the sentence that says what to do. Docstrings are what the UI shows of a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..config.settings import Settings
from ..errors import ShoetaggerError, TransientError

if TYPE_CHECKING:
    from ..pipeline.plan import Plan
    from ..tagging.run import Kind, TaggingRun


_KINDS: Mapping[str, Kind] = {"scheduled": "night", "asset_triggered": "retag"}


@contextmanager
def final() -> Iterator[Settings]:
    """Give the places, and fail the task for good by errors that a retry cannot mend."""
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield Settings.from_environment()
    except TransientError:
        raise
    except ShoetaggerError as error:
        raise AirflowFailException(str(error)) from error


# --- training -----------------------------------------------------------------------------------
def checkout(params: Mapping[str, Any]) -> dict[str, Any]:
    """Resolve the revision to a commit and check it out, with its data and the overrides."""
    from ..config.params import load
    from ..pipeline import checkout as checkout_module
    from ..pipeline.plan import prepare
    from ..tracking.outbox import trim

    with final() as settings:
        trim(settings.outbox, load(settings.params_file).keep.outbox_mb)
        plan = prepare(settings.repo, params["revision"].strip(), params["overrides"] or [])
        checkout_module.checkout(settings, plan)
        return plan.model_dump(mode="json")


def groups(plan: Mapping[str, Any], params: Mapping[str, Any]) -> list[str]:
    """List the groups to train: those chosen, or all that the commit has."""
    from ..pipeline import plan as plan_module

    with final() as settings:
        return plan_module.groups_of(settings.repo, _plan(plan), params["groups"] or [])


def run_stage(plan: Mapping[str, Any], stage: str, group: str = "") -> str:
    """Run a DVC stage, or restore its results where nothing that it rests on has changed."""
    from ..pipeline import repro

    with final() as settings:
        name = f"{stage}@{group}" if group else stage
        return repro.run_stage(settings, _plan(plan), name)


def register(plan: Mapping[str, Any], group: str) -> dict[str, str]:
    """Register the group's finished model in MLflow, as its challenger."""
    from ..promotion import register as register_module

    with final() as settings:
        return register_module.register(settings, _plan(plan), group).as_dict()


def compare(plan: Mapping[str, Any], group: str, challenger: Mapping[str, str]) -> dict[str, Any]:
    """Judge the challenger and the live champion by the same pictures; the link shows how."""
    from ..promotion import compare as compare_module

    with final() as settings:
        return compare_module.compare(settings, _plan(plan), group, challenger["digest"]).as_dict()


def promote(
    group: str, comparison: Mapping[str, Any], decision: Mapping[str, Any], dag_run: Any
) -> dict[str, str]:
    """Make the challenger champion, if it passed the gate and whoever was asked approved."""
    from airflow.sdk.exceptions import AirflowSkipException

    from ..promotion import moves
    from ..promotion.compare import Comparison
    from ..promotion.moves import Decision

    judged = Comparison.from_dict(comparison)
    said = Decision.from_dict(decision) if decision else None
    if said and not said.approved:  # also where somebody cleared this task, to run it again
        raise AirflowSkipException(f"{judged.group}: rejected by {said.by} ({said.why})")
    with final() as settings:
        moves.promote(settings, judged, said, by=_by(dag_run))
        return {"group": group, "version": judged.version}


def roll_back(params: Mapping[str, Any], dag_run: Any) -> dict[str, str]:
    """Make an earlier version live again: its predictions count at once, no model runs."""
    from ..promotion import moves

    group, to = params["group"], (params["version"] or "").strip() or None
    with final() as settings:
        why = params["why"].strip()
        number = moves.rollback(settings, group, to=to, by=_by(dag_run), why=why)
        return {"group": group, "version": number}


def _by(dag_run: Any) -> str:
    """Return who started a run, and which, for the ledger."""
    return f"{dag_run.triggering_user_name or 'airflow'} ({dag_run.dag_id} {dag_run.run_id})"


def _plan(plain: Mapping[str, Any]) -> Plan:
    from ..pipeline.plan import Plan

    return Plan.model_validate(plain)


# --- tagging ------------------------------------------------------------------------------------
def begin(dag_run: Any) -> dict[str, Any]:
    """Pin the live version of every group, and open the run in the store."""
    from ..tagging import run

    with final() as settings:
        return run.begin(settings, _KINDS.get(dag_run.run_type, "manual")).as_dict()


def find_arrivals(run: Mapping[str, Any]) -> dict[str, int]:
    """Note in the store which files in the inbox are new, without opening any."""
    from ..tagging import run as run_module

    with final() as settings:
        return run_module.find_arrivals(settings, _run(run))


def shards(run: Mapping[str, Any]) -> list[dict[str, int]]:
    """Divide the work at hand; nothing to do gives no shard."""
    from ..tagging import run as run_module

    with final() as settings:
        numbers = run_module.shards(settings, _run(run))
        return [{"shard": number, "of": len(numbers)} for number in numbers]


def tag_shard(run: Mapping[str, Any], shard: int, of: int) -> dict[str, Any]:
    """Tag new pictures, then those that a pinned version has not seen, until the time is up."""
    from ..publishing import thumbnails
    from ..tagging import shard as shard_module

    with final() as settings:
        extra_view = thumbnails.of_shard(settings)
        return shard_module.tag_shard(settings, _run(run), shard, of, extra_view=extra_view)


def publish() -> dict[str, int]:
    """Write anew the tables and pages of the days whose tags changed."""
    from ..publishing.publication import publish_changes

    with final() as settings:
        return publish_changes(settings)


def finish(
    run: Mapping[str, Any] | None,
    found: Mapping[str, int] | None,
    shards: Sequence[Mapping[str, int]] | None,
    counted: Iterable[Mapping[str, Any]] | None,
    published: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Close the run with what its parts counted; fail where one of them did, or it is odd."""
    from airflow.sdk.exceptions import AirflowFailException

    from ..tagging import alerts
    from ..tagging import run as run_module

    if run is None:
        reason = "the run did not begin: see the log of the task `begin`"
        with final() as settings:
            alerts.notify(settings.notify_url, {"state": "failed", "alarms": [reason]})
        raise AirflowFailException(reason)
    parts = [part for part in counted or () if part is not None]
    lacking = len(shards or ()) - len(parts)
    whole = found is not None and shards is not None and not lacking and published is not None
    state = "done" if whole else "failed"
    with final() as settings:
        summary = run_module.finish(settings, _run(run), [found or {}, *parts], state)
    if not whole:
        raise AirflowFailException(f"{summary}; see the logs of the tasks that failed")
    if summary.alarms:
        raise AirflowFailException(f"{summary}; published, but look: {'; '.join(summary.alarms)}")
    return summary.as_dict()


def _run(plain: Mapping[str, Any]) -> TaggingRun:
    from ..tagging.run import TaggingRun

    return TaggingRun.from_dict(plain)
