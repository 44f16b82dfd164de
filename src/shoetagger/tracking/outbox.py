"""The outbox: journals of runs that wait for MLflow."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import ShoetaggerError
from .connection import Connection, MLflowRefused, MLflowUnavailable, TrackingError
from .journal import DamagedJournal, Journal, is_in_use, journals

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SyncReport:
    """What a sync did: journals sent and removed, journals that still wait, and why they do."""

    sent: int
    waiting: int
    fault: str | None = None


class Outbox:
    """The folder of journals, and the MLflow that they are for."""

    def __init__(self, tracking_uri: str, folder: Path, artifacts: Path) -> None:
        """`artifacts` is where a database or local server keeps the files of its runs."""
        self.tracking_uri, self.folder, self.artifacts = tracking_uri, folder, artifacts

    def connection(self, seconds: int) -> Connection:
        """Return a connection to this MLflow; `seconds` bounds the wait for each response."""
        return Connection(self.tracking_uri, self.artifacts, seconds=seconds)

    def lock(self, seconds: float) -> FileLock:
        """Return the lock of the process that sends what waits; it gives up after `seconds`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock", timeout=seconds)

    def sync(self) -> SyncReport:
        """Send all that waits to MLflow, in order of creation.

        A journal that its process left unfinished when it died is finished as FAILED; one that is
        being written is left alone. Raises TrackingError where another process sends for a minute.
        """
        if not journals(self.folder):
            return SyncReport(sent=0, waiting=0)
        sent, fault = 0, None
        try:
            with self.lock(seconds=60):
                for _ in self.send_waiting(self.connection(seconds=10)):
                    sent += 1
        except Timeout:
            raise TrackingError(
                f"another process has been sending {self.folder} for a minute: try again later"
            ) from None
        except MLflowUnavailable as error:
            fault = str(error)
        waiting = sum(not is_in_use(folder) for folder in journals(self.folder))
        return SyncReport(sent, waiting, fault)

    def send_waiting(self, connection: Connection) -> Iterator[Path]:
        """Send one journal after another; yield each that was sent and removed.

        Whoever iterates holds the lock.
        """
        for folder in journals(self.folder):
            try:
                if self._send(folder, connection):
                    yield folder
            except (DamagedJournal, MLflowRefused) as error:
                # MLflow refuses the run as such: what it refuses of a run is left out of it.
                _set_aside(folder, error)

    def _send(self, folder: Path, connection: Connection) -> bool:
        """Send a journal if no process writes it; return whether it was removed."""
        journal = Journal.take_over(folder)
        if journal is None:
            return False
        try:
            return journal.send(connection)
        finally:
            journal.close()


def faulty(outbox: Path) -> Path:
    """Return the folder of the journals that can never be sent as they are."""
    return outbox.with_name(f"{outbox.name}-faulty")


def _set_aside(folder: Path, error: ShoetaggerError) -> None:
    """Move a journal away, so that those after it are sent."""
    place = faulty(folder.parent) / folder.name
    place.parent.mkdir(exist_ok=True)
    folder.rename(place)
    logger.warning(
        "%s. The run cannot be sent and is now in %s: mend it and move it back to %s, or remove it",
        *(error, place, folder.parent),
    )


def _drop(folder: Path) -> bool:
    """Remove a journal unless a process may still write it; return whether it was removed."""
    try:
        journal = Journal.take_over(folder)
    except DamagedJournal:
        shutil.rmtree(folder)
        return True
    if journal is None:
        return False
    journal.remove()
    return True


def trim(folder: Path, most_mb: float, *, dry_run: bool = False) -> list[str]:
    """Drop the oldest journals that wait, until the outbox takes `most_mb`; return their names.

    Those that cannot be sent go first; one that is being written or sent stays. MLflow will not
    have the run of a dropped journal; its model and metrics are where its stages wrote them. With
    `dry_run` nothing is dropped.
    """
    sizes = {
        journal: sum(path.stat().st_size for path in journal.rglob("*") if path.is_file())
        for journal in (*journals(faulty(folder)), *journals(folder))
    }
    excess = sum(sizes.values()) - most_mb * 1e6
    dropped = []
    for place, size in sizes.items():
        if excess <= 0:
            break
        if not dry_run:
            if not _drop(place):
                continue
            logger.warning("the outbox is over keep.outbox_mb: run %s is dropped", place.name)
        excess -= size
        dropped.append(place.name)
    return dropped
