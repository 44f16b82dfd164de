"""The pool's handle on one decoding process."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from typing import Any

from .fetching import Fetched
from .worker import Job

_QUEUED_BYTES = 64 * 1024  # less than a socket holds: sending to a hung worker never blocks
_START_SECONDS = 120.0
_GRACE_SECONDS = 5.0
# All that a decoder gets of our environment, which may hold passwords and keys: decoders handle
# bytes of strangers. With the last two, `make down` finds processes that it has started.
_ENVIRONMENT = re.compile(
    r"PATH|HOME|LANG|LANGUAGE|LC_\w+|TZ|TMPDIR|LD_LIBRARY_PATH|LD_PRELOAD|MALLOC_\w+|PYTHONHOME"
    r"|PYTHONHASHSEED|PYTHONDONTWRITEBYTECODE|PYTHONPYCACHEPREFIX|PYTHONWARNINGS"
    r"|SHOETAGGER_SERVERS_OF|SHOETAGGER_SERVER"
)


@dataclass
class Picture:
    """One locator in work; `slot` is the place in shared memory for its views and preview.

    `fetched` is what was read of it, or will have been, where workers do not read by themselves.
    """

    number: int
    locator: str
    slot: int
    wants_preview: bool = False
    second_try: bool = False
    fetched: Future[Fetched] | None = None

    def is_ready(self) -> bool:
        """Return whether a worker can be given it."""
        return self.fetched is None or self.fetched.done()


class WorkerProcess:
    """One process and the pictures sent to it, which it returns in order."""

    def __init__(self, job: bytes, memory_file: int, seconds: float) -> None:
        our_end, worker_end = socket.socketpair()
        with worker_end, _ctrl_c_held_back():
            # Not multiprocessing: that would import the parent's __main__, torch and all.
            self.process = subprocess.Popen(
                [sys.executable, "-m", Job.__module__, str(worker_end.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,  # a decoder's output must not mix with ours
                pass_fds=(worker_end.fileno(), memory_file),
                env=_environment(),
            )
        self.connection = Connection(our_end.detach())
        self.queue: deque[Picture] = deque()
        self.ready = False
        self.alone = False  # with a picture whose first worker died
        self.hung = False
        self._seconds = seconds
        self._alive_at = time.monotonic()
        self._put(job)

    def has_room(self) -> bool:
        queued = sum(len(picture.locator) for picture in self.queue)
        return not self.alone and queued < _QUEUED_BYTES and self.process.poll() is None

    def send(self, picture: Picture) -> None:
        if not self.queue:
            self._alive_at = time.monotonic()
        self.queue.append(picture)
        fetched = picture.fetched and picture.fetched.result()
        message = [picture.number, picture.locator, picture.slot, picture.wants_preview]
        self._put(json.dumps([*message, fetched and fetched.description()]).encode())
        if fetched:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                send_handle(self.connection, fetched.file, self.process.pid)

    def _put(self, message: bytes) -> None:
        # A process that has just died shows as an end of file soon.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send_bytes(message)

    def receive(self) -> dict[str, Any]:
        """Return its next message; raises EOFError, OSError or ValueError where it has failed."""
        # JSON, so that a worker taken over by hostile bytes has no way into this process.
        message = json.loads(self.connection.recv_bytes())
        if not isinstance(message, dict):
            raise ValueError(message)
        self._alive_at = time.monotonic()
        return message

    def patience(self) -> float:
        """Return the seconds until it counts as hung although its own alarm did not ring."""
        if self.ready and not self.queue:
            return math.inf
        allowed = 2 * self._seconds + _GRACE_SECONDS if self.ready else _START_SECONDS
        return max(0.0, self._alive_at + allowed - time.monotonic())

    def end(self) -> int:
        """Kill the process; returns how it ended, a negative number for a signal."""
        self.process.kill()
        # A process that not even that can end, deep in a dead file system, is left to itself.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_GRACE_SECONDS)
        self.connection.close()
        return self.process.returncode or 0


@contextlib.contextmanager
def _ctrl_c_held_back() -> Iterator[None]:
    """Start a process that Ctrl-C does not interrupt while it imports: it inherits the mask."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _environment() -> dict[str, str]:
    """Return the environment of a worker: nothing secret, whatever this process was given."""
    kept = {k: v for k, v in os.environ.items() if _ENVIRONMENT.fullmatch(k)}
    return kept | {
        "PYTHONPATH": os.pathsep.join(sys.path),  # `read` is imported there as well
        "OPENBLAS_NUM_THREADS": "1",  # its threads would take memory
    }
