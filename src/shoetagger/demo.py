"""The whole job on the sample shoes: train, register, promote, tag new pictures, show the tags.

Over the same doors that people use: DVC, Airflow's REST API, the store's current tags. Running it
again is quick: DVC restores what was computed, and pictures that were tagged stay tagged.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from . import params as parameters
from . import servers
from .errors import ShoetaggerError
from .servers import Ports, Say
from .settings import Settings

TRAINING = "train_tag_models"
TAGGING = "tag_new_images"
ARRIVALS = 24
SEED = 7
# Random weights, small pictures, few epochs: enough to learn the sample's drawn shoes in minutes
# without downloading anything. What real pictures need is in params.yaml.
QUICK = (
    "train.freeze=none",
    "train.weights=none",
    "train.epochs=10",
    "train.batch_size=16",
    "train.head_lr=0.002",
    "train.trunk_lr=0.002",
    "train.positive_weight=3.0",
    "train.ema=0.0",
    "images.size=64",
    "images.augment.background=0.0",
    "split.folds=0",
    "evaluate.bootstrap=200",
)
PATIENCE = 60.0  # seconds without an answer of Airflow


class DemoError(ShoetaggerError):
    """A step of the demo failed; the message says which, and where its log is."""


def main() -> int:
    """Run the demo; returns the exit status."""
    say = _print
    try:
        settings = Settings.from_environment()
        demo(settings, Ports.from_environment(), say)
    except ShoetaggerError as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; `make demo` goes on from here, `make down` stops the servers")
        return 130
    return 0


def demo(settings: Settings, ports: Ports, say: Say) -> None:
    """Do the whole job and show the result; raises DemoError that names the step that failed.

    Another demo at work in the same state is left alone, and said to be there.
    """
    with _alone(settings):
        _demo(settings, ports, say)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the demo's lock, which the kernel takes from a process that dies."""
    settings.home.mkdir(parents=True, exist_ok=True)
    with (settings.home / ".demo.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoError(
                f"another `make demo` is at work in {settings.home}: let it end, or give this one "
                "a state and ports of its own (SHOETAGGER_HOME, AIRFLOW_PORT, MLFLOW_PORT)"
            ) from None
        yield


def _demo(settings: Settings, ports: Ports, say: Say) -> None:
    steps = _Steps(6, say)
    with steps("sample data: 220 drawn shoes and their label sheet, from DVC"):
        _refuse_another_inbox(settings)
        pull_data(settings)
    with steps("servers: Airflow and MLflow"):
        ports = servers.up(settings, ports, lambda text: say(textwrap.indent(text, "      ")))
    airflow = Airflow(settings, ports)
    groups = parameters.load(settings.params_file).groups
    with steps(f"training: one small model a group ({', '.join(groups)})"):
        say("      a quick recipe for the demo, from random weights and small pictures:")
        say(f"      {' '.join(QUICK)}")
        run = airflow.trigger(TRAINING, {"overrides": list(QUICK)})
        airflow.follow(TRAINING, run, say)
    with steps(f"new pictures arrive in {settings.inbox}"):
        arrived = let_arrive(settings)
        say(f"      {arrived} of {len(_drawn(settings))} files are new there")
    with steps("tagging: what is new in the inbox"):
        run = airflow.trigger(TAGGING, {})
        airflow.follow(TAGGING, run, say)
    with steps("result"):
        say(report(settings, list(groups)))
    say(
        f"\nPages    {(settings.published / 'pages' / 'index.html').as_uri()}\n"
        f"Airflow  {ports.airflow_url}   (`make login` shows the password)\n"
        f"MLflow   {servers.airflow_environment(settings, ports)['MLFLOW_TRACKING_URI']}\n"
        "The servers run on: `make down` stops them."
    )


class _Steps:
    """Numbered headings; a failure inside a step names it."""

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say, self._number = total, say, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        self._number += 1
        name = f"[{self._number}/{self._total}] {title}"
        self._say(name)
        begun = time.monotonic()
        try:
            yield
        except ShoetaggerError as error:
            raise DemoError(f"{name} failed\n{error}") from error
        self._say(f"      done after {_clock(time.monotonic() - begun)}")


# --- data and arrivals ----------------------------------------------------------------------


def pull_data(settings: Settings) -> None:
    """Restore data/ as data.dvc names it; raises DemoError with what DVC says."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"],
        cwd=settings.repo,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"`dvc pull data.dvc` in {settings.repo}:\n{done.stderr.strip()}")


def _refuse_another_inbox(settings: Settings) -> None:
    if not settings.inbox.is_relative_to(settings.home):
        raise DemoError(
            f"the demo puts drawn pictures into the inbox, and SHOETAGGER_INBOX names one of your "
            f"own, {settings.inbox}: unset it for the demo"
        )


def let_arrive(settings: Settings) -> int:
    """Put the drawn pictures and a few broken files into the inbox; returns how many were new.

    Each appears there whole, and one that is there already is not touched.
    """
    settings.inbox.mkdir(parents=True, exist_ok=True)
    arrived = 0
    for source in _drawn(settings):
        target = settings.inbox / source.name
        if not target.exists():
            beside = settings.home / "demo" / f".{os.getpid()}-{source.name}"
            shutil.copy2(source, beside)
            beside.replace(target)
            arrived += 1
    return arrived


def _drawn(settings: Settings) -> list[Path]:
    """Return the pictures to arrive, drawn once."""
    folder = settings.home / "demo" / f"arrivals-{SEED}-{ARRIVALS}"
    if not folder.is_dir():
        from .sample import write_arrivals

        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".drawing-") as beside:
            write_arrivals(Path(beside) / "all", ARRIVALS, SEED, with_bad=True)
            if not folder.is_dir():
                (Path(beside) / "all").rename(folder)
    return sorted(folder.iterdir())


# --- Airflow --------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskState:
    """One task instance of a run as Airflow tells it; `name` is for people."""

    task_id: str
    map_index: int
    name: str
    state: str | None
    try_number: int
    seconds: float | None

    @classmethod
    def from_answer(cls, answer: Mapping[str, Any]) -> TaskState:
        name = answer["task_id"].rpartition(".")[2]
        if answer["map_index"] >= 0:
            name += f" {answer.get('rendered_map_index') or answer['map_index']}"
        return cls(
            task_id=answer["task_id"],
            map_index=answer["map_index"],
            name=name,
            state=answer["state"],
            try_number=answer["try_number"],
            seconds=answer.get("duration"),
        )


@dataclass
class Airflow:
    """Airflow's REST API, as far as the demo and the tests need it."""

    settings: Settings
    ports: Ports
    _client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self._client = httpx.Client(base_url=self.ports.airflow_url, timeout=30)
        user, password = servers.credentials(self.settings)
        answer = self._ask("POST", "/auth/token", {"username": user, "password": password})
        self._client.headers["Authorization"] = f"Bearer {answer['access_token']}"

    def trigger(self, dag: str, conf: Mapping[str, Any], patience: float = 120.0) -> str:
        """Start a run of a DAG, as soon as Airflow knows the DAG; returns the run's id."""
        deadline = time.monotonic() + patience
        while (found := self._find(f"/api/v2/dags/{dag}")) is None:
            if time.monotonic() > deadline:
                raise DemoError(f"Airflow does not know the DAG {dag}: {self._import_errors()}")
            time.sleep(1)
        if found["is_paused"]:  # a run of a paused DAG would wait for ever
            self._ask("PATCH", f"/api/v2/dags/{dag}", {"is_paused": False})
        body = {"logical_date": None, "conf": dict(conf)}
        return str(self._ask("POST", f"/api/v2/dags/{dag}/dagRuns", body)["dag_run_id"])

    def follow(self, dag: str, run: str, say: Say, patience: float = 3600.0) -> list[TaskState]:
        """Wait for a run's end and tell what happens; returns its tasks.

        Raises DemoError that names the tasks that failed, with the ends of their logs.
        """
        begun, told = time.monotonic(), time.monotonic()
        seen: dict[tuple[str, int], object] = {}
        said: dict[tuple[str, int], object] = {}
        while True:
            state = self._ask("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")["state"]
            tasks = self.tasks(dag, run)
            clock = _clock(time.monotonic() - begun)
            for task in tasks:
                key, now = (task.task_id, task.map_index), (task.state, task.try_number)
                # A task that has just begun may not have its name yet, and may soon be done.
                fresh = task.state == "running" and seen.get(key) != now
                seen[key] = now
                if fresh or said.get(key) == now:
                    continue
                said[key] = now
                if line := _event(task):
                    say(f"      {clock}  {line}")
                    told = time.monotonic()
                    if task.state in ("failed", "up_for_retry"):
                        say(f"             log: {self.log_file(dag, run, task)}")
            if state == "success":
                return tasks
            if state == "failed":
                raise DemoError(self._failure(dag, run, tasks))
            if time.monotonic() - begun > patience:
                raise DemoError(f"{dag} has not ended after {patience / 60:.0f} minutes")
            if time.monotonic() - told > 20:
                running = [task.name for task in tasks if task.state == "running"]
                say(f"      {clock}  ... {', '.join(running) or 'waiting'}")
                told = time.monotonic()
            time.sleep(1)

    def tasks(self, dag: str, run: str) -> list[TaskState]:
        """Return the task instances of a run that there are so far."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
        answer = self._ask("GET", path, query={"limit": 1000, "order_by": "start_date"})
        return [TaskState.from_answer(task) for task in answer["task_instances"]]

    def log_file(self, dag: str, run: str, task: TaskState) -> Path:
        """Return where the log of the last try of a task lies."""
        folder = servers.task_logs(self.settings) / f"dag_id={dag}" / f"run_id={run}"
        folder /= f"task_id={task.task_id}"
        if task.map_index >= 0:
            folder /= f"map_index={task.map_index}"
        return folder / f"attempt={task.try_number}.log"

    def _failure(self, dag: str, run: str, tasks: Sequence[TaskState]) -> str:
        failed = [task for task in tasks if task.state == "failed"]
        parts = [f"{dag} failed" if failed else f"{dag} failed before any task did"]
        for task in failed:
            log = self.log_file(dag, run, task)
            parts.append(f"task {task.name}: {_reason(log)}\n  log: {log}")
        return "\n".join(parts)

    def _import_errors(self) -> str:
        errors = self._ask("GET", "/api/v2/importErrors")["import_errors"]
        if not errors:
            log = servers.log_file(self.settings, "dag-processor")
            return f"it finds no such file in {self.settings.repo / 'dags'}; see {log}"
        return "\n".join(f"{error['filename']}:\n{error['stack_trace']}" for error in errors)

    def _find(self, path: str) -> Any:
        return self._ask("GET", path, missing=True)

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        missing: bool = False,
    ) -> Any:
        """Ask once; while Airflow is too busy to answer, a reading question is asked again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self._client.request(method, path, json=body, params=query)
                if answer.status_code < 500:
                    break
                trouble = f"status {answer.status_code}"
            except httpx.TransportError as error:
                trouble = str(error) or type(error).__name__
            if method != "GET" or time.monotonic() > deadline:
                raise DemoError(
                    f"Airflow does not answer at {self.ports.airflow_url} ({trouble}); "
                    f"its log is {servers.log_file(self.settings, 'api-server')}"
                )
            time.sleep(2)
        if missing and answer.status_code == 404:
            return None
        if answer.is_error:
            raise DemoError(f"Airflow refuses {method} {path}: {answer.text}")
        return answer.json()


def _event(task: TaskState) -> str | None:
    """Return what to say of a task that has just come into its state; None for nothing."""
    took = f" ({_clock(task.seconds)})" if task.seconds else ""
    match task.state:
        case "running":
            return f"{task.name}: running"
        case "success":
            return f"{task.name}: done{took}"
        case "skipped":
            return f"{task.name}: skipped"
        case "up_for_retry":
            return f"{task.name}: failed, will be tried again"
        case "failed":
            return f"{task.name}: FAILED{took}"
        case _:
            return None


def _reason(log: Path) -> str:
    """Return the last error that a task's log tells of, in one paragraph."""
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


# --- result ---------------------------------------------------------------------------------


def report(settings: Settings, groups: Sequence[str]) -> str:
    """Return the current tags of the arrivals, what was rejected and why, and by which versions.

    Raises DemoError where one of them is neither tagged nor rejected.
    """
    from . import inbox
    from .store import Store

    names = {path.name for path in _drawn(settings)}
    store = Store(settings.store_url)
    try:
        rows = [["picture", *groups]]
        versions: set[str] = set()
        for row in store.current(groups):
            for locator in row.locators:
                name = inbox.path_of(locator).name
                if name not in names:
                    continue
                said = [", ".join(row.groups[g].tags) if g in row.groups else "-" for g in groups]
                rows.append([name, *said])
                versions |= {f"{group} v{tags.version}" for group, tags in row.groups.items()}
        rejected = {inbox.path_of(row.locator).name: row.reason for row in store.rejected()}
    finally:
        store.close()
    if left := names - rejected.keys() - {row[0] for row in rows}:
        raise DemoError(f"neither tagged nor rejected: {', '.join(sorted(left))}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "      " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(
        [
            *(line.rstrip() for line in table),
            f"      {len(rows) - 1} pictures tagged by {', '.join(sorted(versions))}",
            f"      {len(rejected)} files rejected:",
            *(f"      {name}: {reason}" for name, reason in rejected.items()),
        ]
    )


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
