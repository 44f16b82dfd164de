"""Runs, metrics and figures in MLflow; what MLflow does not have yet waits in an outbox.

A run appends every event to its journal, a folder of the outbox, and sends what is new to MLflow
every few seconds. A journal that is finished and sent is removed. While MLflow is down the work
goes on; the next run, or `shoetagger sync`, sends what waits in order of creation.

A journal may be sent twice, wholly or in part, with the same result: a run carries the name of its
journal, metrics carry the time at which they were measured, files overwrite themselves.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from filelock import Timeout

from .connection import MLflowRefused, MLflowUnavailable, TrackingError
from .journal import Journal
from .machine import Machine
from .names import metric_name
from .outbox import Outbox
from .trainings import Dataset, Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


logger = logging.getLogger(__name__)
_FLUSH_SECONDS = 2.0  # between two flushes of a run; what comes faster waits in the journal
_RETRY_SECONDS = 30.0  # before MLflow is tried again after it failed to answer


class Tracker:
    """Starts runs, which reach MLflow at once, or when it is back."""

    def __init__(self, tracking_uri: str, outbox: Path, artifacts: Path) -> None:
        """`artifacts` is where a database or local server keeps the files of its runs."""
        self.outbox = Outbox(tracking_uri, outbox, artifacts)

    def start(
        self,
        name: str,
        *,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        training: Training | None = None,
        dataset: Dataset | None = None,
    ) -> Run:
        """Return a new run, to be entered with `with`; it is shown under its training."""
        return Run(self.outbox, name, tags, params, None, training, dataset)

    def attach(
        self,
        *,
        key: str,
        value: str,
        otherwise: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        training: Training | None = None,
        dataset: Dataset | None = None,
    ) -> Run:
        """Return the latest run whose tag `key` is `value`, else a new one named `otherwise`.

        The choice is made when the run reaches MLflow. Parameters and outcome that the found run
        has already stay as they are; how the attached part ended becomes a tag.
        """
        if '"' in value:
            raise TrackingError(f"a run cannot be found by a tag value with a quote: {value}")
        tags = {**tags, key: value}  # so that whoever looks for it finds a new run, too
        return Run(self.outbox, otherwise, tags, params, (key, value), training, dataset)


class Run:
    """One MLflow run, open within `with`; it ends FINISHED, KILLED (Ctrl-C, SIGTERM) or FAILED.

    No method fails because MLflow does; TrackingError says that the outbox cannot be written.
    """

    def __init__(
        self,
        outbox: Outbox,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, object],
        attach: tuple[str, str] | None,
        training: Training | None = None,
        dataset: Dataset | None = None,
    ) -> None:
        self.name = name
        self._outbox = outbox
        self._start = {
            "name": name,
            "attach": attach,
            "tags": {k: str(v) for k, v in tags.items()},
            "params": {k: str(v) for k, v in params.items()},
            "training": training and asdict(training),
            "dataset": dataset and asdict(dataset),
        }
        self._machine: Machine | None = None
        self._next_flush = 0.0
        self._warned = self._terminated = False
        self._file_count = 0
        self._connection = outbox.connection(seconds=5)

    @property
    def run_id(self) -> str | None:
        """MLflow's id of this run, once it has reached MLflow."""
        return self._journal.run_id

    def __enter__(self) -> Self:
        self._journal = Journal.create(self._outbox.folder, self._start)
        self._previous_handler = _catch_sigterm(self._on_sigterm)
        try:
            self._flush()
            self._machine = Machine()
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
            self._sample_machine(last=True)
            self._journal.append(finish=status)
            self._flush(last=True)
        finally:
            self._journal.close()
            if self._previous_handler is not None:
                signal.signal(signal.SIGTERM, self._previous_handler)

    def log_metrics(
        self,
        metrics: Mapping[str, float] | Mapping[tuple[str, ...], float],
        step: int | None = None,
    ) -> None:
        """Log metrics, at a step (such as an epoch) or for the run as a whole.

        A name may be a tuple: all but its last part make the section in which MLflow shows it.
        """
        values = {
            metric_name(*((name,) if isinstance(name, str) else name)): float(value)
            for name, value in metrics.items()
        }
        self._append(values=values, step=step or 0)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run; a later value replaces an earlier one."""
        self._append(tags={k: str(v) for k, v in tags.items()})

    def log_figure(self, name: str, figure: Figure) -> None:
        """Log a matplotlib figure as the image `name`, such as "plots/loss.png"."""
        figure.savefig(self._new_file(name), bbox_inches="tight")
        self._append_file(name)

    def log_file(self, name: str, file: Path) -> None:
        """Log a copy of a file under a file name."""
        shutil.copyfile(file, self._new_file(name))
        self._append_file(name)

    def log_text(self, name: str, text: str) -> None:
        """Log a text under a file name."""
        self._new_file(name).write_text(text, encoding="utf-8")
        self._append_file(name)

    def log_dict(self, name: str, document: object) -> None:
        """Log a document as JSON under a file name."""
        self.log_text(name, json.dumps(document, indent=1, ensure_ascii=False) + "\n")

    def _new_file(self, name: str) -> Path:
        """Return where the bytes of an artifact wait, each in a folder of its own."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise TrackingError(f"{name!r} is not a file name within a run")
        self._file_count += 1
        folder = self._journal.folder / "files" / str(self._file_count)
        folder.mkdir(parents=True)
        return folder / path.name

    def _append_file(self, name: str) -> None:
        path = PurePosixPath(name)
        place = f"files/{self._file_count}/{path.name}"
        self._append(file=place, to="" if path.parent == PurePosixPath() else str(path.parent))

    def _append(self, **event: object) -> None:
        self._journal.append(**event)
        self._sample_machine()
        self._flush()

    def _sample_machine(self, last: bool = False) -> None:
        """Note how busy the machine is, every few seconds and at the end."""
        if self._machine is not None and (sample := self._machine.sample(last)) is not None:
            self._journal.append(values=sample.values, step=sample.step)

    def _flush(self, last: bool = False) -> None:
        """Send what is new, unless something was sent, or MLflow failed, a moment ago."""
        if not last and time.monotonic() < self._next_flush:
            return
        began = time.monotonic()
        try:
            self._send(patient=last)
            self._next_flush = time.monotonic() + _FLUSH_SECONDS
        except (MLflowUnavailable, MLflowRefused) as error:
            # A server that takes long to fail is tried less often: training must not wait for it.
            spent = time.monotonic() - began
            self._next_flush = time.monotonic() + max(_RETRY_SECONDS, 10 * spent)
            self._warn(str(error))

    def _send(self, patient: bool) -> None:
        if self._journal.run_id is not None:
            self._journal.send(self._connection)
            return
        try:
            held = self._outbox.lock(seconds=30.0 if patient else 0.0).acquire()
        except Timeout:
            if patient:
                self._warn("another process is still sending what waits for MLflow")
            return
        with held:
            # What waits comes first: it may hold the run that this one continues.
            for _ in self._outbox.send_waiting(self._connection):
                pass
            self._journal.send(self._connection)

    def _warn(self, reason: str) -> None:
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s; the log of run %r waits in %s until the next run or `shoetagger sync`",
                *(reason, self.name, self._outbox.folder),
            )

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
        if callable(self._previous_handler):
            self._previous_handler(number, frame)
        elif self._previous_handler is signal.SIG_DFL:
            raise SystemExit(128 + number)


def _catch_sigterm(handler: Any) -> Any:
    """Install a handler of SIGTERM and return the previous one; None outside the main thread."""
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:
        return None
