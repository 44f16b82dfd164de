"""Files read ahead by threads of this process, for decoding processes that hold no credentials.

Their bytes lie in nameless memory, which a decoding process is handed by its descriptor.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from .shared_memory import nameless_file
from .worker import Content

THREADS = 32  # that read at once
_MOST_BYTES = 256 * 2**20  # read and not yet decoded; at most a file per thread comes on top


@dataclass(frozen=True)
class Fetched:
    """What was read of a file; `file` is the descriptor of its `size` bytes, open until closed."""

    file: int
    size: int
    token: str
    modified_at: datetime | None

    def description(self) -> dict[str, int | str | None]:
        """Return all but the descriptor, as JSON values."""
        moment = self.modified_at.isoformat() if self.modified_at else None
        return {"size": self.size, "token": self.token, "modified_at": moment}

    def close(self) -> None:
        os.close(self.file)


class Fetcher:
    """Reads up to `ahead` files ahead; all calls but `read`'s come from one thread.

    `awake` is a descriptor that can be read from once a file has been read, or has failed to be.
    """

    def __init__(self, read: Callable[[str], Content], ahead: int) -> None:
        self._read, self._ahead = read, ahead
        self._under_way: set[Future[Fetched]] = set()
        self._bytes = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        self.awake, self._waker = os.pipe()
        os.set_blocking(self.awake, False)
        os.set_blocking(self._waker, False)

    def has_room(self) -> bool:
        """Return whether another file may be read ahead now."""
        return len(self._under_way) < self._ahead and self._bytes < _MOST_BYTES

    def begin(self, locator: str) -> Future[Fetched]:
        """Begin to read a file; it counts as ahead until `end` is given what is returned."""
        future = self._threads.submit(self._fetch, locator)
        self._under_way.add(future)
        future.add_done_callback(self._wake)
        return future

    def end(self, future: Future[Fetched]) -> None:
        """Let go of a file, whether or not it has been read."""
        if future not in self._under_way:
            return
        self._under_way.remove(future)
        if not future.cancel():
            future.add_done_callback(self._let_go)

    def sleep_again(self) -> None:
        """Empty `awake`."""
        while True:
            try:
                if len(os.read(self.awake, 4096)) < 4096:
                    return
            except BlockingIOError:
                return

    def close(self) -> None:
        """End all reading; a request that is under way ends by itself, in a thread of its own."""
        for future in list(self._under_way):
            self.end(future)
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            os.close(self._waker)
            os.close(self.awake)
            self._waker = self.awake = -1

    def _fetch(self, locator: str) -> Fetched:
        content = self._read(locator)
        size = len(content.data)
        file = nameless_file(size, of="file")
        try:
            written = 0
            while written < size:
                written += os.pwrite(file, memoryview(content.data)[written:], written)
        except BaseException:
            os.close(file)
            raise
        with self._lock:
            self._bytes += size
        return Fetched(file, size, content.token, content.modified_at)

    def _let_go(self, future: Future[Fetched]) -> None:
        if future.cancelled() or future.exception():
            return
        fetched = future.result()
        fetched.close()
        with self._lock:
            self._bytes -= fetched.size

    def _wake(self, _: Future[Fetched]) -> None:
        with self._lock:
            if self._waker >= 0:
                with contextlib.suppress(BlockingIOError):  # it is full: the reader wakes anyway
                    os.write(self._waker, b"!")
