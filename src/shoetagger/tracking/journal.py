"""The journal of one run: its events on disk, and how much of them MLflow has."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import lock_descriptor
from more_itertools import chunked

from ..atomic import atomic_write
from ..config.settings import user
from ..errors import ShoetaggerError
from .connection import REFUSALS, Connection, TrackingError, tagged_run
from .names import metric_name
from .trainings import PARENT, Dataset, Training, as_input, end_parent, parent_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)


class DamagedJournal(ShoetaggerError):  # noqa: N818 - reads as what happened
    """A journal cannot be read, whatever MLflow answers."""


_LOCK = "lock"
_BATCH = {"metrics": 500, "params": 100, "tags": 100}  # log_batch takes 1000, 100 and 100


@dataclass
class _PendingEvents:
    """What a part of a journal adds to its run, in the shape that MLflow takes."""

    # name, value, milliseconds, step
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)  # place in the journal, folder
    dataset: Dataset | None = None
    finish: tuple[str, int] | None = None  # status, milliseconds


class Journal:
    """The events of one run on disk, and how far they have been sent to MLflow.

    Only the process that holds its lock writes and sends it; the kernel releases the lock when the
    process dies, on whichever machine that was. Format: `journal.jsonl`, one event per line;
    `files/`, the artifacts; `sent.json`, the run's id and the offset up to which events have been
    sent; `lock`, which is empty.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        """`lock` is the descriptor of what is locked."""
        self.folder, self._lock = folder, lock
        self.run_id: str | None = None
        self._attached = False
        self._offset = 0

    @classmethod
    def create(cls, outbox: Path, start: Mapping[str, object]) -> Journal:
        """Begin a journal with its `start` event; TrackingError where it cannot be written."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}-{uuid.uuid4().hex[:12]}"
        try:
            hidden = outbox / f".{name}"
            hidden.mkdir(parents=True)
            (hidden / _LOCK).touch()
            journal = cls(hidden, _lock_journal(hidden))
            journal.append(start=dict(start), user=user())
            # Only now can others see it: locked, and with its first line.
            hidden.rename(outbox / name)
        except OSError as error:
            raise TrackingError(f"the outbox {outbox} cannot be written: {error}") from error
        journal.folder = outbox / name
        return journal

    @classmethod
    def take_over(cls, folder: Path) -> Journal | None:
        """Take over a journal that no process writes any more; None where one may.

        Raises DamagedJournal for one that cannot be read.
        """
        try:
            lock = _lock_journal(folder)
        except OSError:  # it is being written, or has just been sent and removed
            return None
        journal = cls(folder, lock)
        try:
            with journal._read_errors():
                if journal._finish_if_abandoned():
                    return journal
        except DamagedJournal:
            journal.close()
            raise
        journal.close()
        return None

    def _finish_if_abandoned(self) -> bool:
        """End the run as failed if its process has died; return whether it has ended."""
        self._drop_half_line()
        events = self._events()
        if not events:
            if self.folder.is_dir():  # others see no journal before its first line
                raise ValueError("it has no events, as after a power cut")
            return False  # just sent and removed by another process
        if not _finished(events):
            self.append(finish="FAILED", time=events[-1]["time"])
        return True

    def remove(self) -> None:
        """Remove the journal, and release the lock."""
        away = self.folder.rename(self.folder.with_name(f".{self.folder.name}.sent"))
        self.close()  # NFS keeps a file that is open, and so the folder that it lies in
        shutil.rmtree(away)

    def close(self) -> None:
        """Release the lock; a second call does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def append(self, **event: object) -> None:
        """Write one event down, with the time; TrackingError where it cannot be written."""
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

    @contextmanager
    def _read_errors(self) -> Iterator[None]:
        """Raise DamagedJournal where events are not what this code wrote."""
        try:
            yield
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise DamagedJournal(f"{self.folder} is damaged: {error!r}") from error

    def _drop_half_line(self) -> None:
        """Cut off the line that was being written when the process died."""
        if self._path.exists():
            os.truncate(self._path, self._path.read_bytes().rfind(b"\n") + 1)

    def send(self, connection: Connection) -> bool:
        """Send the pending events; once all are sent and the run is finished, remove the journal.

        Returns whether it was removed. Raises MLflowUnavailable, MLflowRefused or DamagedJournal.
        """
        with connection.open() as (client, experiment):
            if self.run_id is None:
                self._find_run(client, experiment)
            assert self.run_id is not None
            end = self._path.stat().st_size
            with self._read_errors():
                pending = self._pending_events()
            self._send_events(client, self.run_id, pending)
        if pending.finish is not None:
            self.remove()
            return True
        self._offset = end
        self._save_progress()
        return False

    def _find_run(self, client: MlflowClient, experiment: str) -> None:
        """Find the run that this journal belongs to, or create it."""
        with self._read_errors():
            progress = self._load_progress()
            first = self._events()[0]
            name, time_ms, attach = first["start"]["name"], first["time"], first["start"]["attach"]
            tags = {"shoetagger.journal": self.folder.name, "mlflow.user": first["user"]}
            if "git_commit" in first["start"]["tags"]:  # where MLflow's pages look for it
                tags["mlflow.source.git.commit"] = first["start"]["tags"]["git_commit"]
        if progress is not None and _exists(client, progress["run_id"]):
            self.run_id, self._attached = progress["run_id"], progress["attached"]
            self._offset = progress["offset"]
            return
        self._offset, self._attached = 0, False
        if attach is not None:
            self.run_id = tagged_run(client, experiment, *attach)
            self._attached = self.run_id is not None
        if self.run_id is None:
            self.run_id = tagged_run(client, experiment, "shoetagger.journal", self.folder.name)
        if self.run_id is None:
            if (training := first["start"].get("training")) is not None:
                tags[PARENT] = parent_run(client, experiment, Training(**training), time_ms)
            mlflow_run = client.create_run(experiment, time_ms, tags, name)
            self.run_id = str(mlflow_run.info.run_id)
        self._save_progress()

    def _pending_events(self) -> _PendingEvents:
        pending = _PendingEvents()
        for event in self._events(self._offset):
            if "start" in event:
                pending.params.update(event["start"]["params"])
                pending.tags.update(event["start"]["tags"])
                if (dataset := event["start"].get("dataset")) is not None:
                    pending.dataset = Dataset(**dataset)
            # Journals of before metrics had sections hold names that are still to be mapped.
            mapped = {metric_name(name): value for name, value in event.get("metrics", {}).items()}
            for name, value in (mapped | event.get("values", {})).items():
                pending.metrics.append((name, value, event["time"], event["step"]))
            pending.tags.update(event.get("tags", {}))
            if "file" in event:
                pending.files.append((event["file"], event["to"]))
            if "finish" in event:
                pending.finish = (event["finish"], event["time"])
        return pending

    def _send_events(self, client: MlflowClient, run_id: str, pending: _PendingEvents) -> None:
        from mlflow.entities import Metric, Param, RunTag

        params = pending.params
        if self._attached and params:
            present = client.get_run(run_id).data.params
            params = {key: value for key, value in params.items() if key not in present}
        if self._attached and pending.finish is not None:
            name = self._events()[0]["start"]["name"]
            pending.tags[f"ended {_as_tag_name(name)}"] = pending.finish[0]
        self._send_batches(client, run_id, "metrics", [Metric(*m) for m in pending.metrics])
        self._send_batches(client, run_id, "params", [Param(*p) for p in params.items()])
        self._send_batches(client, run_id, "tags", [RunTag(*t) for t in pending.tags.items()])
        if pending.dataset is not None:
            with self._unless_refused("the dataset"):
                client.log_inputs(run_id, [as_input(pending.dataset)])
        for place, folder in pending.files:
            if not (self.folder / place).is_file():
                logger.warning("%s is missing: run %s lacks that file", self.folder / place, run_id)
                continue
            with self._unless_refused(place):
                client.log_artifact(run_id, str(self.folder / place), folder or None)
        if pending.finish is not None:
            with self._unless_refused("the end"):
                if not self._attached:
                    client.set_terminated(run_id, *pending.finish)
                end_parent(client, run_id, *pending.finish)

    def _send_batches(self, client: MlflowClient, run_id: str, kind: str, items: list[Any]) -> None:
        from mlflow.exceptions import MlflowException

        def log(batch: list[Any]) -> None:
            arguments: dict[str, Any] = {kind: batch}
            client.log_batch(run_id, **arguments)

        for batch in chunked(items, _BATCH[kind]):
            try:
                log(batch)
            except MlflowException as error:
                if error.error_code not in REFUSALS:
                    raise
                for item in batch:  # one that is refused must not cost the others
                    with self._unless_refused(f"{kind[:-1]} {item.key}"):
                        log([item])

    @contextmanager
    def _unless_refused(self, item: str) -> Iterator[None]:
        """Skip, with a warning, an item that MLflow refuses: it would hold up all the rest."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            message = str(error).strip().partition("\n")[0]
            logger.warning("MLflow refuses %s of run %s: %s", item, self.run_id, message)

    def _save_progress(self) -> None:
        progress = {"run_id": self.run_id, "attached": self._attached, "offset": self._offset}
        with atomic_write(self.folder / "sent.json") as file:
            file.write(json.dumps(progress).encode())

    def _load_progress(self) -> dict[str, Any] | None:
        try:
            progress: dict[str, Any] = json.loads((self.folder / "sent.json").read_bytes())
        except FileNotFoundError:
            return None
        return progress


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
    """Return the journals of an outbox in order of creation, including those being written."""
    if not outbox.is_dir():
        return []
    return sorted(p for p in outbox.iterdir() if p.is_dir() and not p.name.startswith("."))


def is_in_use(folder: Path) -> bool:
    """Tell whether a process is writing or sending a journal."""
    try:
        os.close(_lock_journal(folder))
    except OSError:
        return True
    return False


def _finished(events: list[dict[str, Any]]) -> bool:
    return "finish" in events[-1]


def _as_tag_name(name: str) -> str:
    """Return a name with only the characters that MLflow takes in a tag's name."""
    return "".join(c if c.isalnum() or c in "_-. :/" else " " for c in name)


def _lock_journal(folder: Path) -> int:
    """Lock a journal for this process; return the descriptor; OSError where another holds it.

    The lock is a file in the journal, so that it moves and goes away with it; the folder itself
    cannot be locked where it lies on NFS. A journal of older code has no such file.
    """
    try:
        descriptor = os.open(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not lock_descriptor(descriptor, blocking=False):
            raise BlockingIOError(f"{folder} is in use")
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
