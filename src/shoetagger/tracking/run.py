"""Runs, metrics and figures in MLflow; what MLflow has not been told waits in an outbox.

There is one mechanism. A run appends every event to a journal, a folder of the outbox, and a flush
tells MLflow what it has not been told yet. A journal that is finished and told is removed. While
MLflow is down the work goes on; the next run, or `sync`, tells the rest in order of creation.

A journal may be told twice, wholly or in part, without a difference: a run carries the name of its
journal, metrics carry the time at which they were measured, files overwrite themselves.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..locks import locked
from .connection import Connection, SilentError, TrackingError
from .journal import Journal, is_held, journals

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


logger = logging.getLogger(__name__)
_EVERY = 2.0  # seconds between two flushes of a run; what comes faster waits in the journal
_RETRY = 30.0  # seconds before a silent MLflow is tried again


@dataclass(frozen=True)
class SyncReport:
    """What a sync did: journals told and removed, journals that still wait, and why they do."""

    sent: int
    waiting: int
    fault: str | None = None


class Tracker:
    """Starts runs that MLflow hears of at once, or when it is back."""

    def __init__(self, tracking_uri: str, outbox: Path, artifacts: Path) -> None:
        """`artifacts` is where a database or local server keeps the files of its runs."""
        self.tracking_uri, self.outbox, self.artifacts = tracking_uri, outbox, artifacts

    def start(self, name: str, *, tags: Mapping[str, str], params: Mapping[str, object]) -> Run:
        """Return a new run, to be entered with `with`."""
        return Run(self, name, tags, params, attach=None)

    def attach(
        self,
        *,
        key: str,
        value: str,
        otherwise: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
    ) -> Run:
        """Return the latest run whose tag `key` is `value`, else a new one named `otherwise`.

        Which it is, is decided when MLflow hears of it. What a run already says in its parameters
        and its outcome is left as it is; how the attached part ended becomes a tag.
        """
        if '"' in value:
            raise TrackingError(f"a run cannot be found by a tag value with a quote: {value}")
        return Run(self, otherwise, tags, params, attach=(key, value))

    def sync(self) -> SyncReport:
        """Tell MLflow all that waits in the outbox, in order of creation.

        A journal that its process left unfinished when it died is finished as FAILED, if that was
        on this machine; a journal that is being written, here or elsewhere, is left alone.
        """
        if not journals(self.outbox):
            return SyncReport(sent=0, waiting=0)
        with locked(self.outbox / ".lock", seconds=60.0) as alone:
            if not alone:
                raise TrackingError(f"another process has been sending {self.outbox} for a minute")
            sent, fault = 0, None
            try:
                for _ in self._send_waiting(self._connection(seconds=10)):
                    sent += 1
            except SilentError as error:
                fault = str(error)
        waiting = sum(1 for folder in journals(self.outbox) if not is_held(folder))
        return SyncReport(sent, waiting, fault)

    def _connection(self, seconds: int) -> Connection:
        return Connection(self.tracking_uri, self.artifacts, seconds=seconds)

    def _send_waiting(self, connection: Connection) -> Iterator[Path]:
        """Send one journal after another, and give each that is sent and gone."""
        for folder in journals(self.outbox):
            journal = Journal.take(folder)
            if journal is None:
                continue
            try:
                if journal.send(connection):
                    yield folder
            finally:
                journal.close()


def trim(outbox: Path, most_mb: float) -> list[str]:
    """Drop the oldest journals that wait, until the outbox takes `most_mb`; return their names.

    What is being written or sent stays. A run that is dropped will not be seen in MLflow; its model
    and metrics are where its stages left them.
    """
    sizes = {
        folder: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for folder in journals(outbox)
    }
    over = sum(sizes.values()) - most_mb * 1e6
    dropped = []
    for folder, size in sizes.items():
        if over <= 0:
            break
        journal = Journal.take(folder)
        if journal is None:
            continue
        shutil.rmtree(folder)
        journal.close()
        over -= size
        dropped.append(folder.name)
        logger.warning("the outbox is over keep.outbox_mb: run %s is given up", folder.name)
    return dropped


def sync(tracking_uri: str, outbox: Path, artifacts: Path) -> SyncReport:
    """Tell MLflow all that waits in the outbox; see `Tracker.sync`."""
    return Tracker(tracking_uri, outbox, artifacts).sync()


class Run:
    """One run, open within `with`; it ends FINISHED, KILLED (Ctrl-C, SIGTERM) or FAILED.

    Nothing here fails because MLflow does; TrackingError says that the outbox cannot be written.
    """

    def __init__(
        self,
        tracker: Tracker,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        attach: tuple[str, str] | None,
    ) -> None:
        self.name = name
        self._tracker = tracker
        self._start = {
            "name": name,
            "attach": attach,
            "tags": {k: str(v) for k, v in tags.items()},
            "params": {k: str(v) for k, v in params.items()},
        }
        self._next_flush = 0.0
        self._warned = self._terminated = False
        self._files = 0
        self._connection = tracker._connection(seconds=5)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of this run, once it has heard of it."""
        return self._journal.run_id

    def __enter__(self) -> Self:
        self._journal = Journal.create(self._tracker.outbox, self._start)
        self._previous = _catch_sigterm(self._on_sigterm)
        try:
            self._flush()
        except BaseException as error:  # Ctrl-C while MLflow is imported, which takes seconds
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                status = "FINISHED"
            elif self._terminated or isinstance(error, KeyboardInterrupt):
                status = "KILLED"
            else:
                status = "FAILED"
            self._journal.append(finish=status)
            self._flush(last=True)
        finally:
            self._journal.close()
            if self._previous is not None:
                signal.signal(signal.SIGTERM, self._previous)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, at a step (such as an epoch) or for the run as a whole."""
        values = {name: float(value) for name, value in metrics.items()}
        self._append(metrics=values, step=step or 0)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run; a later value replaces an earlier one."""
        self._append(tags={k: str(v) for k, v in tags.items()})

    def log_figure(self, name: str, figure: Figure) -> None:
        """Log a matplotlib figure as the picture `name`, such as "plots/loss.png"."""
        figure.savefig(self._file(name), bbox_inches="tight")
        self._append_file(name)

    def log_image(self, name: str, image: bytes | Image) -> None:
        """Log a picture, encoded or as Pillow holds it, under a name with the right extension."""
        path = self._file(name)
        if isinstance(image, bytes):
            path.write_bytes(image)
        else:
            image.save(path)
        self._append_file(name)

    def log_text(self, name: str, text: str) -> None:
        """Log a text under a file name."""
        self._file(name).write_text(text, encoding="utf-8")
        self._append_file(name)

    def log_dict(self, name: str, document: object) -> None:
        """Log what JSON can say under a file name."""
        self.log_text(name, json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    def _file(self, name: str) -> Path:
        """Return where the bytes of an artifact wait, each in a folder of its own."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise TrackingError(f"{name!r} is not a file name within a run")
        self._files += 1
        folder = self._journal.folder / "files" / str(self._files)
        folder.mkdir(parents=True)
        return folder / path.name

    def _append_file(self, name: str) -> None:
        path = PurePosixPath(name)
        place = f"files/{self._files}/{path.name}"
        self._append(file=place, to="" if path.parent == PurePosixPath() else str(path.parent))

    def _append(self, **event: object) -> None:
        self._journal.append(**event)
        self._flush()

    def _flush(self, last: bool = False) -> None:
        """Tell MLflow what is new, unless it was told, or failed to answer, a moment ago."""
        if not last and time.monotonic() < self._next_flush:
            return
        began = time.monotonic()
        try:
            self._send(patient=last)
            self._next_flush = time.monotonic() + _EVERY
        except SilentError as error:
            # A server that takes long to fail is asked more rarely: training must not wait for it.
            spent = time.monotonic() - began
            self._next_flush = time.monotonic() + max(_RETRY, 10 * spent)
            self._warn(str(error))

    def _send(self, patient: bool) -> None:
        if self._journal.run_id is not None:
            self._journal.send(self._connection)
            return
        # What waits comes first: it may hold the run that this one continues.
        lock = self._tracker.outbox / ".lock"
        with locked(lock, seconds=30.0 if patient else 0.0) as alone:
            if alone:
                for _ in self._tracker._send_waiting(self._connection):
                    pass
                self._journal.send(self._connection)
            elif patient:
                self._warn("another process is still sending what waits for MLflow")

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s; the log of run %r waits in %s until the next run or `shoetagger sync`",
                *(reason, self.name, self._tracker.outbox),
            )

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
        if callable(self._previous):
            self._previous(number, frame)
        elif self._previous is signal.SIG_DFL:
            raise SystemExit(128 + number)


def _catch_sigterm(handler: Any) -> Any:
    """Install a handler of SIGTERM and return the one before; None outside the main thread."""
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:
        return None
