"""Journals of runs that MLflow has not heard of yet."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import atomic_write
from ..config.settings import user
from .connection import Connection, TrackingError, tagged_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)


# MLflow's answers that no repetition will change.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}
_BATCH = {"metrics": 500, "params": 100, "tags": 100}  # log_batch takes 1000, 100 and 100


@dataclass
class _News:
    """What a part of a journal says, in the shape in which MLflow is told."""

    # name, value, milliseconds, step
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)  # place in the journal, folder
    finish: tuple[str, int] | None = None  # status, ms


class Journal:
    """The events of one run on disk, and how far MLflow has been told.

    Who holds the lock on the folder writes and sends it; the kernel lets go when a process dies.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self._lock = folder, lock
        self.run_id: str | None = None
        self._attached = False
        self._offset = 0

    @classmethod
    def create(cls, outbox: Path, start: Mapping[str, object]) -> Journal:
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}"
        try:
            beside = outbox / f".{name}"
            beside.mkdir(parents=True)
            journal = cls(beside, _lock_now(beside))
            journal.append(start=dict(start), host=socket.gethostname(), user=user())
            # Only now can others see it: locked, and with its first line.
            beside.rename(outbox / name)
        except OSError as error:
            raise TrackingError(f"the outbox {outbox} cannot be written: {error}") from error
        journal.folder = outbox / name
        return journal

    @classmethod
    def take(cls, folder: Path) -> Journal | None:
        """Take over a journal that nobody writes any more; None where somebody may."""
        try:
            lock = _lock_now(folder)
        except OSError:  # it is being written, or has just been sent and removed
            return None
        journal = cls(folder, lock)
        journal._drop_half_line()
        events = journal._events()
        if not events or (not _finished(events) and events[0]["host"] != socket.gethostname()):
            journal.close()
            return None
        if not _finished(events):
            journal.append(finish="FAILED", time=events[-1]["time"])
        return journal

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def append(self, **event: object) -> None:
        line = json.dumps({"time": int(time.time() * 1000), **event}) + "\n"
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise TrackingError(f"{self._path} cannot be written: {error}") from error

    @property
    def _path(self) -> Path:
        return self.folder / "journal.jsonl"

    def _events(self, offset: int = 0) -> list[dict[str, Any]]:
        if not self._path.exists():  # just sent and removed by another process
            return []
        return [json.loads(line) for line in self._path.read_bytes()[offset:].splitlines()]

    def _drop_half_line(self) -> None:
        """Cut off what was being written when the process died."""
        if self._path.exists():
            os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)

    def send(self, connection: Connection) -> bool:
        """Tell MLflow what is new; when all is told and finished, remove it and return True."""
        with connection.open() as (client, experiment):
            if self.run_id is None:
                self._find_run(client, experiment)
            assert self.run_id is not None
            end = self._path.stat().st_size
            news = self._news()
            self._tell(client, self.run_id, news)
        if news.finish is not None:
            shutil.rmtree(self.folder)
            return True
        self._offset = end
        self._remember()
        return False

    def _find_run(self, client: MlflowClient, experiment: str) -> None:
        """Find the run that this journal belongs to, or make it."""
        first = self._events()[0]
        start = first["start"]
        known = self._recall()
        if known is not None and _exists(client, known["run_id"]):
            self.run_id, self._attached = known["run_id"], known["attached"]
            self._offset = known["offset"]
            return
        self._offset, self._attached = 0, False
        if start["attach"] is not None:
            self.run_id = tagged_run(client, experiment, *start["attach"])
            self._attached = self.run_id is not None
        if self.run_id is None:
            self.run_id = tagged_run(client, experiment, "shoetagger.journal", self.folder.name)
        if self.run_id is None:
            tags = {"shoetagger.journal": self.folder.name, "mlflow.user": first["user"]}
            if "git_commit" in start["tags"]:  # where MLflow's pages look for it
                tags["mlflow.source.git.commit"] = start["tags"]["git_commit"]
            run = client.create_run(experiment, first["time"], tags, start["name"])
            self.run_id = str(run.info.run_id)
        self._remember()

    def _news(self) -> _News:
        news = _News()
        for event in self._events(self._offset):
            if "start" in event:
                news.params.update(event["start"]["params"])
                news.tags.update(event["start"]["tags"])
            for name, value in event.get("metrics", {}).items():
                news.metrics.append((name, value, event["time"], event["step"]))
            news.tags.update(event.get("tags", {}))
            if "file" in event:
                news.files.append((event["file"], event["to"]))
            if "finish" in event:
                news.finish = (event["finish"], event["time"])
        return news

    def _tell(self, client: MlflowClient, run_id: str, news: _News) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params = news.params
        if self._attached and params:
            said = client.get_run(run_id).data.params
            params = {key: value for key, value in params.items() if key not in said}
        if self._attached and news.finish is not None:
            name = self._events()[0]["start"]["name"]
            news.tags[f"ended {_plain(name)}"] = news.finish[0]
        self._batches(client, run_id, "metrics", [Metric(*m) for m in news.metrics])
        self._batches(client, run_id, "params", [Param(*p) for p in params.items()])
        self._batches(client, run_id, "tags", [RunTag(*t) for t in news.tags.items()])
        for place, folder in news.files:
            with self._not_refused(place):
                client.log_artifact(run_id, str(self.folder / place), folder or None)
        if news.finish is not None and not self._attached:
            with self._not_refused("the end"):
                client.set_terminated(run_id, *news.finish)

    def _batches(self, client: MlflowClient, run_id: str, kind: str, items: list[Any]) -> None:
        from mlflow.exceptions import MlflowException

        def log(batch: list[Any]) -> None:
            arguments: dict[str, Any] = {kind: batch}
            client.log_batch(run_id, **arguments)

        size = _BATCH[kind]
        for batch in (items[i : i + size] for i in range(0, len(items), size)):
            try:
                log(batch)
            except MlflowException as error:
                if error.error_code not in _REFUSALS:
                    raise
                for item in batch:  # one bad apple must not cost the others
                    with self._not_refused(f"{kind[:-1]} {item.key}"):
                        log([item])

    @contextmanager
    def _not_refused(self, what: str) -> Iterator[None]:
        """Let go, with a warning, of what MLflow will not have: it would block all the rest."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code not in _REFUSALS:
                raise
            message = str(error).strip().partition("\n")[0]
            logger.warning("MLflow refuses %s of run %s: %s", what, self.run_id, message)

    def _remember(self) -> None:
        state = {"run_id": self.run_id, "attached": self._attached, "offset": self._offset}
        with atomic_write(self.folder / "sent.json") as file:
            file.write(json.dumps(state).encode())

    def _recall(self) -> dict[str, Any] | None:
        try:
            state: dict[str, Any] = json.loads((self.folder / "sent.json").read_bytes())
        except FileNotFoundError:
            return None
        return state


def _exists(client: MlflowClient, run_id: str) -> bool:
    """Tell whether this MLflow has the run: a journal may have begun with another one."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
    return True


def journals(outbox: Path) -> list[Path]:
    """Return the journals of an outbox in order of creation, those being written included."""
    if not outbox.is_dir():
        return []
    return sorted(p for p in outbox.iterdir() if p.is_dir() and not p.name.startswith("."))


def is_held(folder: Path) -> bool:
    """Tell whether a process is writing or sending a journal."""
    try:
        os.close(_lock_now(folder))
    except OSError:
        return True
    return False


def _finished(events: list[dict[str, Any]]) -> bool:
    return "finish" in events[-1]


def _plain(name: str) -> str:
    """Return a name with only the characters that MLflow takes in a tag's name."""
    return "".join(c if c.isalnum() or c in "_-. :/" else " " for c in name)


def _lock_now(folder: Path) -> int:
    """Lock a folder for this process and return the descriptor; OSError where another holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
