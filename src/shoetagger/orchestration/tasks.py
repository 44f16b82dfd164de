"""The tasks of the DAGs: they take and return small dicts.

DAG files import this while they are parsed, so imports that take time are inside the tasks. An
error that a retry cannot mend fails its task at once, with the sentence that says what to do.
Airflow's UI shows the docstrings as the tasks' descriptions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ..config.settings import Settings
from ..errors import ShoetaggerError, TransientError

if TYPE_CHECKING:
    from ..ops.installation import Installation
    from ..pipeline.plan import Plan
    from ..tagging.run import Kind, TaggingRun

log = logging.getLogger(__name__)

_KINDS: Mapping[str, Kind] = {"scheduled": "night", "asset_triggered": "retag"}


@contextmanager
def installation(*, unattended: bool = False) -> Iterator[Installation]:
    """Open the installation for one task; errors that a retry cannot mend fail it for good.

    What is `unattended` goes on by the last good parameters while params.yaml has a fault: nights,
    and what follows a training that was begun. Only the gate is not applied meanwhile.
    """
    from ..ops.installation import opened

    with failing_for_good(), opened(Settings.from_environment(), unattended=unattended) as found:
        yield found


@contextmanager
def failing_for_good() -> Iterator[None]:
    """Let the task fail without another try where the error is not a passing one."""
    from airflow.sdk.exceptions import AirflowFailException

    try:
        yield
    except TransientError:
        raise
    except ShoetaggerError as error:
        raise AirflowFailException(str(error)) from error


# --- training -----------------------------------------------------------------------------------
# What a run trains goes from task to task as one dict: its plan, the page of the DAG run and, in
# the tasks of one group, that group, to which `register` adds the challenger.
def checkout(
    params: Mapping[str, Any], triggering_asset_events: Mapping[Any, Sequence[Any]], dag_run: Any
) -> dict[str, Any]:
    """Resolve the revision to a commit and check it out, with its data and the overrides.

    A run that a collection of labels started trains from the collection's commit. A group that the
    commit does not have fails the run here.
    """
    from ..pipeline import checkout as checkout_module
    from ..pipeline.plan import groups_of, prepare
    from ..tagging.alerts import alert_if_overdue
    from ..tracking.outbox import trim
    from .dag_parts import LABELS, page_of

    with installation() as here:
        settings = here.settings
        max_hours = here.params.tag.max_hours_without_night
        alert_if_overdue(settings.notify_url, here.store, max_hours)
        trim(settings.outbox, here.params.keep.outbox_mb)
        commits = [event.extra["commit"] for event in triggering_asset_events.get(LABELS, ())]
        revision = commits[-1] if commits else params["revision"].strip()
        plan = prepare(settings.repo, revision, params["overrides"] or [])
        chosen = groups_of(settings.repo, plan, params["groups"] or [])
        checkout_module.checkout(settings, plan)
    log.info("%s is commit %s; it trains %s", revision, plan.commit[:12], ", ".join(chosen))
    return {
        "plan": plan.model_dump(mode="json"),
        "groups": chosen,
        "page": page_of(dag_run),
    }


def run_stage(training: Mapping[str, Any], stage: str) -> dict[str, Any]:
    """Run a DVC stage, or restore its results where none of its dependencies has changed."""
    from ..pipeline import repro

    with failing_for_good():
        settings = Settings.from_environment()
        name = f"{stage}@{training['group']}" if "group" in training else stage
        repro.run_stage(settings, _plan(training), name, dag_run=training["page"])
    return dict(training)


def groups(training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the groups to train: those chosen, or all that the commit has."""
    shared = {key: value for key, value in training.items() if key != "groups"}
    return [{**shared, "group": group} for group in training["groups"]]


def register(training: Mapping[str, Any]) -> dict[str, Any]:
    """Register the group's finished model in MLflow, as its challenger."""
    from ..promotion import register as register_module

    group = training["group"]
    with installation(unattended=True) as here:
        challenger = register_module.register(
            here.settings,
            here.store,
            here.registry,
            _plan(training),
            group,
            dag_run=training["page"],
        )
    log.info("%s: the challenger is version %s", group, challenger.version)
    return {**training, "challenger": challenger.model_dump()}


def compare(training: Mapping[str, Any]) -> dict[str, Any]:
    """Compare the challenger with the live champion on the same pictures; the link shows how."""
    from ..promotion import compare as compare_module

    with installation() as here:
        comparison = compare_module.compare(
            here.settings,
            here.params,
            here.store,
            here.registry,
            _plan(training),
            training["group"],
            training["challenger"]["digest"],
        )
    for sentence in comparison.sentences:
        log.info("%s", sentence)
    return comparison.model_dump(mode="json")


def promote(approved: Mapping[str, Any], dag_run: Any, outlet_events: Mapping[Any, Any]) -> None:
    """Make the challenger champion, if it passed the gate and nobody who was asked refused.

    Where the challenger is the champion already there is nothing to do.
    """
    from airflow.sdk.exceptions import AirflowSkipException

    from ..promotion import moves
    from ..promotion.compare import Comparison
    from ..promotion.moves import Decision
    from .dag_parts import CHAMPIONS, PROMOTED

    compared = Comparison.model_validate(approved["comparison"])
    decided = Decision.model_validate(approved["decision"]) if approved["decision"] else None
    if decided and not decided.approved:  # also where somebody cleared this task to run it again
        raise AirflowSkipException(f"{compared.group}: rejected by {decided.by} ({decided.why})")
    if compared.is_champion:
        log.info("nothing to promote: %s", "; ".join(compared.reasons))
        return
    with installation(unattended=True) as here:
        moves.promote(here.store, here.registry, compared, decided, by=_by(dag_run))
    event = {"group": compared.group, "version": compared.version, "commit": compared.commit}
    outlet_events[PROMOTED].add(CHAMPIONS, extra=event)


def roll_back(params: Mapping[str, Any], dag_run: Any) -> dict[str, str]:
    """Make an earlier version live again: its predictions count at once, no model runs."""
    from . import rollback

    group, to = params["group"], (params["version"] or "").strip() or None
    with installation(unattended=True) as here:
        number = rollback.roll_back(here, group, to=to, by=_by(dag_run), why=params["why"].strip())
    log.info("%s version %s is live again", group, number)
    return {"group": group, "version": number}


def _by(dag_run: Any) -> str:
    """Return who started a run, and which, for the ledger."""
    return f"{dag_run.triggering_user_name or 'airflow'} ({dag_run.dag_id} {dag_run.run_id})"


def _plan(training: Mapping[str, Any]) -> Plan:
    from ..pipeline.plan import Plan

    return Plan.model_validate(training["plan"])


def clean() -> dict[str, str]:
    """Delete what `keep.*` of params.yaml does not keep; what is in use waits for the next time."""
    from ..ops import cleaning

    with installation() as here:
        found = cleaning.clean(here)
    for cleaned in found:
        log.info("%s", cleaned)
    return {cleaned.kind: str(cleaned) for cleaned in found}


# --- labels -------------------------------------------------------------------------------------
def look_at_labels(dag_run: Any) -> dict[str, Any]:
    """Look at what people checked, for whoever has to approve it.

    A scheduled run waits for `labels.batch` pictures, one that a person triggers takes what is
    there. It also looks whether nights still run: nobody else would say so while nothing is
    trained.
    """
    from airflow.sdk.configuration import conf

    from ..collection.approval import body
    from ..collection.collect import preview
    from ..tagging.alerts import alert_if_overdue

    with installation() as here:
        labels = here.params.labels
        max_hours = here.params.tag.max_hours_without_night
        alert_if_overdue(here.settings.notify_url, here.store, max_hours)
        least = labels.batch if dag_run.run_type == "scheduled" else 1
        waiting: dict[str, Any] = {"least": least, "until": None, "body": None}
        if labels.approval == "never":
            return waiting
        waiting["until"] = here.store.corrections.last()
        found = preview(here.settings, here.params, here.store, least=least)
    if found is None or not found.edits:
        return waiting
    answer_by = datetime.now(UTC) + timedelta(hours=labels.approval_hours)
    airflow = conf.get("api", "base_url", fallback="")
    return waiting | {
        "until": found.until,
        "summary": found.edits.summary,
        "body": body(found.edits, answer_by=answer_by, airflow=airflow, title=here.params.title),
        "answer_by": answer_by.isoformat(),
    }


def collect(approved: Mapping[str, Any], outlet_events: Mapping[Any, Any]) -> dict[str, Any]:
    """Commit what people checked on the desk to the label sheet; training starts from the commit.

    What they checked since a person was asked waits for the next time. A run with nothing to do is
    a success, and starts no training.
    """
    from ..collection.collect import collect as run
    from .dag_parts import COLLECTED, LABELS

    with installation() as here:
        collected = run(
            here.settings,
            here.params,
            here.store,
            least=approved["least"],
            until=approved["until"],
            approved_by=approved.get("by"),
        )
    for sentence in (*collected.changes, *collected.doubts):
        log.info("%s", sentence)
    for sentence in (*collected.left_out, *collected.warnings):
        log.warning("%s", sentence)
    if collected.pushed_to is not None:
        log.info("the commit is pushed to %s", collected.pushed_to)
    found = {"commit": collected.commit, "pictures": collected.pictures + collected.removed}
    if collected.commit is not None:
        outlet_events[COLLECTED].add(LABELS, extra=found)
    return found


# --- tagging ------------------------------------------------------------------------------------
def begin(dag_run: Any) -> dict[str, Any]:
    """Pin the live version of every group, and open the run in the store."""
    from . import nightly

    with installation(unattended=True) as here:
        run = nightly.begin(here, _KINDS.get(dag_run.run_type, "manual"))
        return run.model_dump(mode="json")


def find_arrivals(run: Mapping[str, Any]) -> dict[str, int]:
    """Note in the store which files in the inbox are new, without opening any."""
    from . import metrics, nightly

    with installation(unattended=True) as here:
        counts = nightly.find_arrivals(here, _run(run))
        metrics.send_waiting(here.store)
        return counts


def shards(run: Mapping[str, Any]) -> list[dict[str, int]]:
    """Divide the work at hand; nothing to do gives no shard."""
    from . import nightly

    with installation(unattended=True) as here:
        numbers = nightly.shards(here, _run(run))
        return [{"shard": number, "of": len(numbers)} for number in numbers]


def tag_shard(run: Mapping[str, Any], shard: int, of: int) -> dict[str, int]:
    """Tag new pictures, then those that a pinned version has not seen, until the time is up."""
    from . import metrics, nightly

    with installation(unattended=True) as here:
        counts = nightly.tag_shard(here, _run(run), shard, of, metrics.count_pictures)
        metrics.send_counts(counts)
        metrics.send_waiting(here.store)
        return counts


def publish(
    run: Mapping[str, Any] | None = None, outlet_events: Mapping[Any, Any] | None = None
) -> dict[str, int]:
    """Write again the tables and pages of the days whose tags changed, and announce these days."""
    from ..publishing.announcing import take_unannounced
    from . import nightly
    from .dag_parts import PUBLISHED, TABLES

    with installation(unattended=True) as here:
        counts = nightly.publish_run(here, _run(run)) if run else nightly.publish(here)
        if outlet_events is None:
            return counts
        if days := take_unannounced(here.store, here.settings.published):
            outlet_events[PUBLISHED].add(TABLES, extra={"days": days})
        return counts


def finish(
    run: Mapping[str, Any] | None,
    found: Mapping[str, int] | None,
    shards: Sequence[Mapping[str, int]] | None,
    counted: Iterable[Mapping[str, Any]] | None,
    published: Mapping[str, int] | None,
) -> dict[str, Any]:
    """Close the run, whose counts the store has; fail where a part failed or it is unusual."""
    from airflow.sdk.exceptions import AirflowFailException

    from ..notification.message import Message
    from ..notification.send import send
    from . import nightly

    if run is None:
        reason = "the run did not begin: see the log of the task `begin`"
        with failing_for_good():
            send(Settings.from_environment().notify_url, Message("failed", alerts=[reason]))
        raise AirflowFailException(reason)
    lacking = len(shards or ()) - sum(part is not None for part in counted or ())
    whole = found is not None and shards is not None and not lacking and published is not None
    state = "done" if whole else "failed"
    with installation(unattended=True) as here:
        summary = nightly.finish(here, _run(run), state)
    if not whole:
        reasons = "; ".join((*summary.alerts, "see the logs of the tasks that failed"))
        raise AirflowFailException(f"{summary}; {reasons}")
    if summary.alerts:
        raise AirflowFailException(f"{summary}; published, but look: {'; '.join(summary.alerts)}")
    return summary.message()


def _run(plain: Mapping[str, Any]) -> TaggingRun:
    from ..tagging.run import TaggingRun

    return TaggingRun.model_validate(plain)
