"""What the DAG files share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.sdk import Asset, task

from ..config.params import Params, load
from ..config.settings import Settings

TAGS = ("shoetagger",)
# Options of a DAG whose tasks may be run again; `tasks.failing_for_good` is the exception.
RETRIED: Mapping[str, Any] = {
    "tags": TAGS,
    "default_args": {"retries": 2, "retry_delay": timedelta(seconds=20)},
}
# Options of a step: one that may take hours, and one that is mapped by group.
HOURS: Mapping[str, Any] = {"execution_timeout": timedelta(hours=6)}
NAMED: Mapping[str, Any] = {"map_index_template": "{{ task.op_kwargs['group'] }}"}
# The schema of a DAG's parameter: a list of texts, or none.
TEXTS: Mapping[str, Any] = {"type": ["array", "null"], "items": {"type": "string"}}
# Updated by every promotion; it wakes the tagging DAG.
CHAMPIONS = Asset("shoetagger-champions", uri="shoetagger://champions")
# `task` without its types, which do not allow for handing one task's result to the next.
step: Any = task


def read_params() -> Params:
    """Read params.yaml; a DAG file does so each time it is parsed."""
    return load(Settings.from_environment().params_file)
