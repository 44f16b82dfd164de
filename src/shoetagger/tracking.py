"""Runs, metrics and figures in MLflow; what MLflow has not been told waits in an outbox.

There is one mechanism. A run appends every event to a journal, a folder of the outbox, and a flush
tells MLflow what it has not been told yet. A journal that is finished and told is removed. While
MLflow is down the work goes on; the next run, or `sync`, tells the rest in order of creation.

A journal may be told twice, wholly or in part, without a difference: a run carries the name of its
journal, metrics carry the time at which they were measured, files overwrite themselves.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import sqlite3
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from getpass import getuser
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from .errors import PassingError, ShoetaggerError
from .replacing import replacing
from .settings import without_password

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from PIL.Image import Image

EXPERIMENT = "shoetagger"

_log = logging.getLogger(__name__)

_EVERY = 2.0  # seconds between two flushes of a run; what comes faster waits in the journal
_RETRY = 30.0  # seconds before a silent MLflow is tried again
_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
# MLflow's answers that no repetition will change.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST"}
_BATCH = {"metrics": 500, "params": 100, "tags": 100}  # log_batch takes 1000, 100 and 100


class TrackingError(ShoetaggerError):
    """MLflow, or the outbox that stands in for it, cannot be used."""


class SilentError(TrackingError, PassingError):
    """MLflow does not answer, or not as MLflow would: it may later."""


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
        if not _journals(self.outbox):
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
        waiting = sum(1 for folder in _journals(self.outbox) if not _held(folder))
        return SyncReport(sent, waiting, fault)

    def _connection(self, seconds: int) -> Connection:
        return Connection(self.tracking_uri, self.artifacts, seconds=seconds)

    def _send_waiting(self, connection: Connection) -> Iterator[Path]:
        """Send one journal after another, and give each that is sent and gone."""
        for folder in _journals(self.outbox):
            journal = _Journal.take(folder)
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
        for folder in _journals(outbox)
    }
    over = sum(sizes.values()) - most_mb * 1e6
    dropped = []
    for folder, size in sizes.items():
        if over <= 0:
            break
        journal = _Journal.take(folder)
        if journal is None:
            continue
        shutil.rmtree(folder)
        journal.close()
        over -= size
        dropped.append(folder.name)
        _log.warning("the outbox is over keep.outbox_mb: run %s is given up", folder.name)
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
        self._journal = _Journal.create(self._tracker.outbox, self._start)
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
            _log.warning(
                "%s; the log of run %r waits in %s until the next run or `shoetagger sync`",
                *(reason, self.name, self._tracker.outbox),
            )

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._terminated = True
        if callable(self._previous):
            self._previous(number, frame)
        elif self._previous is signal.SIG_DFL:
            raise SystemExit(128 + number)


def load_mlflow() -> None:
    """Import MLflow (seconds) with telemetry and unpickling off, unless the user set them."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Models name their requirements themselves: a uv.lock nearby is no concern of theirs.
        "MLFLOW_UV_AUTO_DETECT": "false",
    }.items():
        os.environ.setdefault(name, value)
    import mlflow  # noqa: F401 - its environment had to be set first


def connect(tracking_uri: str) -> MlflowClient:
    """Return a client whose database, where it is one, has been made or migrated."""
    prepare(tracking_uri)
    load_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


_prepared: set[str] = set()


def prepare(tracking_uri: str) -> None:
    """Make or migrate an SQLite tracking database; do nothing for other kinds of URI.

    Processes that come at once wait for the first: MLflow's own migration, run twice at a time,
    spoils the database for good.
    """
    if not tracking_uri.startswith("sqlite:///") or tracking_uri in _prepared:
        return
    load_mlflow()
    import mlflow.db
    from alembic.util import CommandError
    from sqlalchemy.exc import SQLAlchemyError

    upgrade = mlflow.db.upgrade.callback  # what `mlflow db upgrade` runs
    assert upgrade is not None

    path = Path(tracking_uri.removeprefix("sqlite:///"))
    try:
        with locked(path.with_name(f"{path.name}.lock"), seconds=120.0) as alone:
            if not alone:
                raise TrackingError(f"another process has been migrating {path} for two minutes")
            # MLflow would spend minutes on a database that cannot be opened.
            sqlite3.connect(path).close()
            upgrade(tracking_uri)
    except (OSError, sqlite3.Error, SQLAlchemyError, CommandError) as error:
        raise TrackingError(f"the MLflow database {path} cannot be opened: {error}") from error
    _prepared.add(tracking_uri)


def experiment_id(client: MlflowClient, artifacts: Path) -> str:
    """Return the id of the experiment of this project; make it where there is none.

    A database or a server on this machine keeps its files under `artifacts`, so that clients of
    the one and of the other read them alike; any other server decides for itself.
    """
    from mlflow.exceptions import MlflowException

    url = urlsplit(client.tracking_uri)
    local = url.scheme not in ("http", "https") or url.hostname in ("127.0.0.1", "localhost", "::1")
    root = artifacts.absolute().as_uri() if local else None
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is None:
        try:
            return str(client.create_experiment(EXPERIMENT, artifact_location=root))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(EXPERIMENT)  # another process was faster
            assert found is not None
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def tagged_run(client: MlflowClient, experiment: str, key: str, value: str) -> str | None:
    """Return the id of the latest run whose tag `key` is `value`, or None."""
    order = ["attributes.start_time DESC"]
    condition = f'tags.`{key}` = "{value}"'
    runs = client.search_runs([experiment], condition, max_results=1, order_by=order)
    return str(runs[0].info.run_id) if runs else None


class Connection:
    """MLflow and the experiment of this project, connected to at the first word."""

    def __init__(self, tracking_uri: str, artifacts: Path, *, seconds: int) -> None:
        """`seconds` bounds the wait for each answer of a server."""
        self._uri, self._artifacts, self._seconds = tracking_uri, artifacts, seconds
        self._client: MlflowClient | None = None
        self._experiment = ""

    @contextmanager
    def open(self) -> Iterator[tuple[MlflowClient, str]]:
        """Give the client and the experiment's id; SilentError where MLflow is not there.

        The errors of MLflow that the block lets out become SilentError, too.
        """
        load_mlflow()
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            with _quiet("mlflow", "urllib3"), _environment(self._uri, self._seconds):
                if self._client is None:
                    _knock(self._uri)
                    client = connect(self._uri)
                    self._experiment = experiment_id(client, self._artifacts)
                    self._client = client
                yield self._client, self._experiment
        except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, TrackingError) as error:
            raise SilentError(_reason(self._uri, error)) from error


@contextmanager
def _environment(tracking_uri: str, seconds: int) -> Iterator[None]:
    """Say within the block which MLflow is meant and how long to wait for a server.

    MLflow reads these variables at each request. How long to wait the user may have said before;
    MLflow's own default is minutes. The address a client knows, but not all that it calls.
    """
    waits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": str(seconds),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    ours = {name: value for name, value in waits.items() if name not in os.environ}
    ours["MLFLOW_TRACKING_URI"] = tracking_uri
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep loggers silent: whole tracebacks of what is caught here are no news for the user."""
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _reason(tracking_uri: str, error: BaseException) -> str:
    """Return one line that says who fails, without a password, and why."""
    url = without_password(tracking_uri)
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"MLflow at {url} does not answer as it should ({lines[0][:200]})"


def _knock(tracking_uri: str) -> None:
    """Raise OSError where a database server cannot be reached: MLflow would try for minutes."""
    url = urlsplit(tracking_uri)
    port = url.port or _DATABASE_PORTS.get(url.scheme.partition("+")[0])
    if port and url.hostname and url.scheme not in ("http", "https"):
        socket.create_connection((url.hostname, port), timeout=5).close()


@dataclass
class _News:
    """What a part of a journal says, in the shape in which MLflow is told."""

    # name, value, milliseconds, step
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: list[tuple[str, str]] = field(default_factory=list)  # place in the journal, folder
    finish: tuple[str, int] | None = None  # status, ms


class _Journal:
    """The events of one run on disk, and how far MLflow has been told.

    Who holds the lock on the folder writes and sends it; the kernel lets go when a process dies.
    """

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder, self._lock = folder, lock
        self.run_id: str | None = None
        self._attached = False
        self._offset = 0

    @classmethod
    def create(cls, outbox: Path, start: Mapping[str, object]) -> _Journal:
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
    def take(cls, folder: Path) -> _Journal | None:
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
            _log.warning("MLflow refuses %s of run %s: %s", what, self.run_id, message)

    def _remember(self) -> None:
        state = {"run_id": self.run_id, "attached": self._attached, "offset": self._offset}
        with replacing(self.folder / "sent.json") as file:
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


def _journals(outbox: Path) -> list[Path]:
    """Return the journals of an outbox in order of creation, those being written included."""
    if not outbox.is_dir():
        return []
    return sorted(p for p in outbox.iterdir() if p.is_dir() and not p.name.startswith("."))


def _held(folder: Path) -> bool:
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


def user() -> str:
    """Return who is at work here, for runs and the ledger."""
    try:
        return getuser()
    except (KeyError, OSError):  # a user id without a name, as containers have
        return str(os.getuid())


def _catch_sigterm(handler: Any) -> Any:
    """Install a handler of SIGTERM and return the one before; None outside the main thread."""
    try:
        return signal.signal(signal.SIGTERM, handler)
    except ValueError:
        return None


def _lock_now(folder: Path) -> int:
    """Lock a folder for this process and return the descriptor; OSError where another holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def locked(path: Path, *, seconds: float) -> Iterator[bool]:
    """Hold a lock file within the block; gives False where another held it all the time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + seconds
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    yield False
                    return
                time.sleep(0.05)
        yield True
