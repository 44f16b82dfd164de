"""What the DAG files share."""

from __future__ import annotations

import faulthandler
import gc
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from airflow.sdk import Asset, AssetAlias, task

from ..config.last_good import load_or_last_good
from ..config.params import Params
from ..config.settings import GPU_POOL, Settings
from .notifiers import TaskFailed

TAGS = ("shoetagger",)
# Options of tasks that may be run again; `tasks.failing_for_good` is the exception.
RETRIED: dict[str, Any] = {"retries": 2, "retry_delay": timedelta(seconds=20)}
# Options of tasks of whose failure nobody else tells; a tagging run's last task tells of its run.
NOTIFIED: dict[str, Any] = {"on_failure_callback": TaskFailed()}
# Where both wait for a slot, tagging goes before training, whose weights are numbers of tasks.
TAGGING_FIRST: dict[str, Any] = {"priority_weight": 1000, "weight_rule": "absolute"}
# Options of a step that is mapped by group.
NAMED: Mapping[str, Any] = {"map_index_template": "{{ task.op_kwargs['training']['group'] }}"}
PROMOTED_GROUP = "{{ task.op_kwargs['approved']['comparison']['group'] }}"
# Updated by every promotion; it wakes the tagging DAG. Group, version and commit are in the event's
# `extra`.
CHAMPIONS = Asset("shoetagger-champions", uri="shoetagger://champions")
# The outlet of a promotion, through which it updates CHAMPIONS only where there was one to make.
PROMOTED = AssetAlias("shoetagger-champions-promoted")
# Updated by each collection, whose commit is in the event's `extra`; training starts from it.
LABELS = Asset("shoetagger-labels", uri="shoetagger://labels")
# The outlet of a collection, through which it updates LABELS only where it collected something.
COLLECTED = AssetAlias("shoetagger-labels-collected")
# Updated by each publication that wrote tables, whose days are in the event's `extra`; for DAGs of
# others, which may start on it.
TABLES = Asset("shoetagger-tags", uri="shoetagger://tags")
# The outlet of a publication, through which it updates TABLES only where a day changed.
PUBLISHED = AssetAlias("shoetagger-tags-published")

# How long each task may take. One that hangs is ended and tried again, or it would keep all later
# runs of its DAG waiting. What must read, train or write much has hours.
_HOURS = timedelta(hours=6)
_MINUTES = timedelta(minutes=30)
LIMITS: Mapping[str, timedelta] = {
    "begin": _MINUTES,
    "find_arrivals": timedelta(hours=3),
    "shards": _MINUTES,
    "publish": _HOURS,
    "finish": _MINUTES,
    "checkout": _HOURS,
    "groups": _MINUTES,
    "run_stage": _HOURS,
    "register": timedelta(hours=1),
    "compare": _HOURS,
    "approve": _MINUTES,  # without the time in which it waits for a person
    "promote": _MINUTES,
    "roll_back": _MINUTES,
    "look_at_labels": timedelta(hours=2),
    "collect": timedelta(hours=2),
    "clean": _HOURS,
}
# A shard stops by itself when the run's time is spent.
AFTER_BUDGET = timedelta(hours=1)
# For a task to end once its time is up: stages and decoders are stopped meanwhile.
_GRACE = timedelta(minutes=5)


def step(function: Callable[..., Any], **options: Any) -> Any:
    """Return the task that runs a function of `tasks`, by default within its time of LIMITS.

    Untyped, since the types of Airflow's `task` do not allow for handing one task's result to the
    next.
    """
    if "execution_timeout" not in options:
        options["execution_timeout"] = LIMITS[function.__name__]
    # The tasks log sentences; the dicts that they hand on are in XCom.
    options.setdefault("show_return_value_in_logs", False)
    first = [end_in_any_case, search_for_garbage_seldom]
    return task(on_execute_callback=first, **options)(function)


def on_gpu() -> dict[str, Any]:
    """Return the options of a task that fills a GPU, or all cores.

    It takes a slot of the pool, and goes to the workers of SHOETAGGER_GPU_QUEUE, if that is set. As
    these tasks take longest, they lose most workers, each of which costs them a try.
    """
    queue = Settings.from_environment().gpu_queue
    return {"pool": GPU_POOL, "retries": 5} | ({"queue": queue} if queue else {})


def end_in_any_case(context: Mapping[str, Any]) -> None:
    """End this process some time after its task's limit, whatever it hangs in.

    At the limit Airflow raises an exception, which code that never returns to Python does not see.
    """
    limit = context["task"].execution_timeout
    if limit is not None:
        faulthandler.dump_traceback_later((limit + _GRACE).total_seconds(), exit=True, file=2)


def search_for_garbage_seldom(_: Mapping[str, Any]) -> None:
    """Let Python search for garbage after 100,000 new objects instead of 700.

    Most of what a task makes are the modules that it imports, which stay: searching them meanwhile
    was measured at a sixth of the seconds of CPU that importing takes.
    """
    gc.set_threshold(100_000)


def page_of(dag_run: Any) -> str:
    """Return the address of a DAG run's page in Airflow."""
    from airflow.sdk.configuration import conf

    base = str(conf.get("api", "base_url", fallback="")).rstrip("/")
    return f"{base}/dags/{dag_run.dag_id}/runs/{quote(dag_run.run_id, safe='')}"


def read_params() -> Params:
    """Read params.yaml, as a DAG file does each time it is parsed; a fault must not end the nights.

    Raises ParamsError where there are no good parameters of before.
    """
    return load_or_last_good(Settings.from_environment())[0]
