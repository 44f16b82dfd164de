"""A training that waits for a person: until it asks, and the answer by mouse."""

from __future__ import annotations

import time

from shoetagger.demo.airflow_api import RUN_ENDS, Airflow, TaskState, failure_reason

from .newcomer import TourError
from .visit import TRAINING, Visit

_WAITS = "awaiting_input"


def until_asked(airflow: Airflow, run: str, groups: int) -> list[TaskState]:
    """Wait until each group of a training waits for a person or has ended; return those that wait.

    Raises TourError where a task fails, or where none is left that waits.
    """
    begun = time.monotonic()
    while time.monotonic() - begun < RUN_ENDS:
        tasks = airflow.tasks(TRAINING, run)
        for task in tasks:
            if task.state == "failed":
                log = airflow.log_file(TRAINING, run, task)
                raise TourError(f"{task.name} failed: {failure_reason(log)}\nits log is {log}")
        approvals = [task for task in tasks if task.task_id.endswith("approve")]
        waiting = [task for task in approvals if task.state == _WAITS]
        ended = [task for task in approvals if task.state in ("success", "skipped")]
        if len(waiting) + len(ended) == groups:
            if not waiting:
                raise TourError("no group asks for an approval: the gate has stopped them all")
            return waiting
        time.sleep(1)
    raise TourError(f"nobody was asked within {RUN_ENDS / 60:.0f} minutes")


def address(visit: Visit, run: str, task: TaskState) -> str:
    """Return where Airflow shows what a task asks."""
    place = f"dags/{TRAINING}/runs/{run}/tasks/{task.task_id}/mapped/{task.map_index}"
    return visit.airflow_page(f"{place}/required_actions")


def answer(visit: Visit, run: str, waiting: list[TaskState]) -> None:
    """Approve each, with a reason."""
    page = visit.in_airflow()
    for task in waiting:
        page.goto(address(visit, run, task))
        page.locator("input[name=element_why]").fill("more tags are right")
        page.get_by_role("button", name="Approve").click()
        while _waiting(visit.airflow.tasks(TRAINING, run), task.map_index):
            page.wait_for_timeout(1000)
    page.context.close()


def _waiting(tasks: list[TaskState], map_index: int) -> bool:
    approvals = [task for task in tasks if task.task_id.endswith("approve")]
    return any(task.map_index == map_index and task.state == _WAITS for task in approvals)
