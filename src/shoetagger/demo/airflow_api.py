"""Airflow's REST API, as far as the demo and the tests need it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tenacity import (
    Retrying,
    retry_if_exception_type,
    retry_if_result,
    stop_after_delay,
    wait_fixed,
)

from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..ops.environment import Ports, Report, log_file, task_logs
from ..ops.servers import credentials

PATIENCE = 60.0  # seconds without an answer of Airflow
RUN_ENDS = 3600.0  # seconds in which a DAG run has to end
_LOOKS = 2.0  # seconds between two looks at a run, which are two requests
_SILENCE = 20.0  # seconds without a change, after which the demo reports what runs


class DemoError(ShoetaggerError):
    """A step of the demo failed; the message says which, and where its log is."""


class FailedRunError(DemoError):
    """A DAG run failed; the message names its failed tasks, with their reasons and logs."""


class _NoAnswerError(Exception):
    """Airflow is too busy to answer a request, or is not there."""


@dataclass(frozen=True)
class TaskState:
    """One task instance of a DAG run, as Airflow's API describes it; `name` is for people."""

    task_id: str
    map_index: int
    name: str
    state: str | None
    try_number: int
    seconds: float | None

    @classmethod
    def from_api(cls, instance: Mapping[str, Any]) -> TaskState:
        name = instance["task_id"].rpartition(".")[2]
        if instance["map_index"] >= 0:
            name += f" {instance.get('rendered_map_index') or instance['map_index']}"
        return cls(
            task_id=instance["task_id"],
            map_index=instance["map_index"],
            name=name,
            state=instance["state"],
            try_number=instance["try_number"],
            seconds=instance.get("duration"),
        )


@dataclass
class Airflow:
    """Airflow's REST API, as far as the demo and the tests need it."""

    settings: Settings
    ports: Ports
    _client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.ports.airflow_url, timeout=30)
        user, password = credentials(self.settings)
        response = self._request("POST", "/auth/token", {"username": user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {response['access_token']}"

    def activate(self, dag: str, patience: float = 120.0) -> None:
        """Wait until Airflow knows a DAG, and unpause it: runs of a paused DAG never start."""
        until_known = Retrying(
            retry=retry_if_result(lambda known: known is None),
            wait=wait_fixed(1),
            stop=stop_after_delay(patience),
            retry_error_callback=lambda _: None,
        )
        known = until_known(self._find, f"/api/v2/dags/{dag}")
        if known is None:
            raise DemoError(f"Airflow does not know the DAG {dag}: {self._import_errors()}")
        if known["is_paused"]:
            self._request("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})

    def trigger(self, dag: str, conf: Mapping[str, Any]) -> str:
        """Start a run of a DAG, as soon as Airflow knows the DAG; returns the run's id."""
        self.activate(dag)
        body = {"logical_date": None, "conf": dict(conf)}
        return str(self._request("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"])

    def follow(self, dag: str, run: str, report: Report) -> list[TaskState]:
        """Wait until a run ends and report the states of its tasks; returns the tasks.

        Raises FailedRunError for a run that failed, DemoError for one that does not end in time.
        """
        begun = time.monotonic()
        progress = _Progress(report)
        while True:
            state = self._request("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"]
            tasks = self.tasks(dag, run)
            for task in progress.report_changes(tasks):
                if task.state in ("failed", "up_for_retry"):
                    report(f"             log: {self.log_file(dag, run, task)}")
            if state == "success":
                return tasks
            if state == "failed":
                raise FailedRunError(self._failure(dag, run, tasks))
            if time.monotonic() - begun > RUN_ENDS:
                raise DemoError(f"{dag} has not ended after {RUN_ENDS / 60:.0f} minutes")
            progress.report_waiting(tasks)
            time.sleep(_LOOKS)

    def runs(self, dag: str) -> dict[str, str]:
        """Return the latest runs of a DAG, the earliest of them first: id -> what started it."""
        query = {"limit": 50, "order_by": "-run_after"}
        latest = self._request("GET", f"/api/v2/dags/{dag}/dagRuns", query=query)["dag_runs"]
        return {run["dag_run_id"]: run["run_type"] for run in reversed(latest)}

    def is_queued(self, dag: str) -> bool:
        """Return whether an updated asset is about to start a run of a DAG."""
        queued = self._find(f"/api/v2/dags/{dag}/assets/queuedEvents")
        return bool(queued and queued["queued_events"])

    def tasks(self, dag: str, run: str) -> list[TaskState]:
        """Return the task instances that a run has so far."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
        response = self._request("GET", path, query={"limit": 1000, "order_by": "start_date"})
        return [TaskState.from_api(task) for task in response["task_instances"]]

    def result(self, dag: str, run: str, task: str, map_index: int = -1) -> Any:
        """Return what a task of a run has returned; None where it returned nothing."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/return_value"
        found = self._request("GET", path, query={"map_index": map_index}, missing=True)
        return found and found["value"]

    def log_file(self, dag: str, run: str, task: TaskState) -> Path:
        """Return where the log of the last try of a task lies."""
        folder = task_logs(self.settings) / f"dag_id={dag}" / f"run_id={run}"
        folder /= f"task_id={task.task_id}"
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        return folder / f"attempt={task.try_number}.log"

    def _failure(self, dag: str, run: str, tasks: Sequence[TaskState]) -> str:
        failed = [task for task in tasks if task.state == "failed"]
        parts = [f"{dag} failed" if failed else f"{dag} failed before any task did"]
        for task in failed:
            log = self.log_file(dag, run, task)
            parts.append(f"task {task.name}: {failure_reason(log)}\n  log: {log}")
        return "\n".join(parts)

    def _import_errors(self) -> str:
        errors = self._request("GET", "/api/v2/importErrors")["import_errors"]
        if not errors:
            log = log_file(self.settings, "dag-processor")
            return f"it finds no such file in {self.settings.repo / 'dags'}; see {log}"
        return "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)

    def _find(self, path: str) -> Any:
        return self._request("GET", path, missing=True)

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        missing: bool = False,
    ) -> Any:
        """Send a request; a GET is repeated while Airflow is too busy to answer it."""
        repeated = Retrying(
            retry=retry_if_exception_type(_NoAnswerError),
            wait=wait_fixed(2),
            stop=stop_after_delay(PATIENCE if method == "GET" else 0),
            reraise=True,
        )
        try:
            response = repeated(self._send, method, path, body, query)
        except _NoAnswerError as error:
            raise DemoError(
                f"Airflow does not answer at {self.ports.airflow_url} ({error}); "
                f"its log is {log_file(self.settings, 'api-server')}"
            ) from None
        if missing and response.status_code == 404:
            return None
        if response.is_error:
            raise DemoError(f"Airflow refuses {method} {path}: {response.text}")
        return response.json()

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, Any] | None,
    ) -> httpx.Response:
        try:
            response = self._client.request(method, path, json=body, params=query)
        except httpx.TransportError as error:
            raise _NoAnswerError(str(error) or type(error).__name__) from None
        if response.status_code >= 500:
            raise _NoAnswerError(f"status {response.status_code}")
        return response


class _Progress:
    """Reports what the tasks of a run do, each change once, with the time since its begin."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._begun = self._reported_at = time.monotonic()
        self._seen: dict[tuple[str, int], object] = {}
        self._reported: dict[tuple[str, int], object] = {}

    def report_changes(self, tasks: Sequence[TaskState]) -> Iterator[TaskState]:
        """Report the tasks that have changed, and yield each of them."""
        for task in tasks:
            key, now = (task.task_id, task.map_index), (task.state, task.try_number)
            # A task that has just begun may not have its name yet, and may soon be done.
            fresh = task.state == "running" and self._seen.get(key) != now
            self._seen[key] = now
            if fresh or self._reported.get(key) == now:
                continue
            self._reported[key] = now
            if line := _event(task):
                self._report_line(line)
                yield task

    def report_waiting(self, tasks: Sequence[TaskState]) -> None:
        """Report what runs, where nothing has been reported for a while."""
        if time.monotonic() - self._reported_at > _SILENCE:
            running = [task.name for task in tasks if task.state == "running"]
            self._report_line(f"... {', '.join(running) or 'waiting'}")

    def _report_line(self, line: str) -> None:
        self._reported_at = time.monotonic()
        self._report(f"      {clock(self._reported_at - self._begun)}  {line}")


# What it means that a task was skipped, where the word alone does not say it.
_SKIPPED = {"tag_shard": "nothing was left to tag"}


def _event(task: TaskState) -> str | None:
    """Return the line for a task that has just entered its state; None for no line."""
    took = f" ({clock(task.seconds)})" if task.seconds else ""
    match task.state:
        case "running":
            return f"{task.name}: running"
        case "success":
            return f"{task.name}: done{took}"
        case "skipped":
            return f"{task.name}: {_SKIPPED.get(task.task_id, 'skipped')}"
        case "up_for_retry":
            return f"{task.name}: failed, will be tried again"
        case "failed":
            return f"{task.name}: FAILED{took}"
        case _:
            return None


def failure_reason(log: Path) -> str:
    """Return the last error in a task's log, in one paragraph."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it left no log"
    for line in reversed(lines):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("level") in ("error", "critical"):
            details = entry.get("error_detail") or [{}]
            return str(details[-1].get("exc_value") or entry.get("event"))
    return lines[-1] if lines else "its log is empty"


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
