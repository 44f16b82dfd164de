"""Decoding in worker processes: one that hangs, crashes or runs out of memory costs one picture.

Workers are plain Python processes that import `images`, never torch. Views come back through
memory that is shared without a name, so nothing can be left behind, however a process ends.
"""

from __future__ import annotations

import math
import os
import pickle
import selectors
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np

from ..errors import ShoetaggerError, TransientError
from ..images.decode import Limits, Rejected
from ..images.views import Transform
from .fetching import Fetcher
from .shared_memory import READING, Slots, nameless_file
from .worker import OUT_OF_MEMORY, Content, Job, RetryLater
from .worker_process import Picture, WorkerProcess


class DecodingError(ShoetaggerError):
    """The workers cannot work at all, or `read` has a fault of its own."""


@dataclass(frozen=True)
class Decoded:
    """What became of one locator: exactly one of `views`, `rejected` and `retry` is set.

    `views` holds a (S, S, 3) uint8 array per transform, `size` the full (width, height), upright;
    `preview` is a JPEG, where one was wanted and made.
    `rejected` is the reason. `retry` leaves the file to the next run, and `why` is the reason.
    """

    locator: str
    token: str | None = None
    image_id: str | None = None
    size: tuple[int, int] | None = None
    views: tuple[np.ndarray, ...] | None = None
    preview: bytes | None = None
    rejected: str | None = None
    retry: bool = False
    why: str | None = None


_FAILED_STARTS = 3
_SLOW_STREAM_SECONDS = 0.01


class DecodePool(AbstractContextManager["DecodePool"]):
    """Long-lived worker processes that turn locators into views.

    `read` gets a locator and returns its Content. It raises Rejected for a file that can never be
    read, RetryLater or OSError for one that the next run should try again. The workers call it:
    it is pickled by reference, a function of an importable module, or a functools.partial of one.
    With `fetched_ahead`, threads of this process call it, for up to so many files ahead, and hand
    the bytes over: workers then need no way to the files. A TransientError from it ends the run.

    Each worker may take `memory_mb`; reading a picture and decoding it may take `seconds` each.
    A picture whose worker crashes, hangs or runs out of memory is tried once more, alone in a
    fresh worker, and then rejected with that reason; the others in flight are not affected.
    A broken picture whose file changed less than `settle_seconds` ago may still be arriving: it is
    left to the next run, and so is one that cannot be read in time.

    At most `ahead` pictures are in work or wait to be taken; with at least a batch of them the
    workers go on while the batch is computed. Of the transforms, the last `derived` ones are for
    people: their views may be made from those of others, as far as these show as much. `preview`
    is the size of the previews that a run may want, in pixels; with 0 there are none. Leaving the
    context ends all workers; they also end when this process dies, in whatever way.
    """

    def __init__(
        self,
        transforms: Sequence[Transform],
        limits: Limits,
        *,
        read: Callable[[str], Content],
        fetched_ahead: int = 0,
        workers: int,
        seconds: float,
        memory_mb: int,
        settle_seconds: float = 0.0,
        ahead: int = 128,
        derived: int = 0,
        preview: int = 0,
    ) -> None:
        if not transforms or workers < 1 or ahead < 1:
            raise ValueError("a DecodePool needs at least one transform, worker and picture ahead")
        self._seconds, self._memory_mb, self._ahead = seconds, memory_mb, ahead
        shapes = tuple(transforms), ahead
        self._memory_file = nameless_file(Slots.room(*shapes, previews=preview > 0))
        self._slots = Slots(self._memory_file, *shapes, previews=preview > 0)
        self._job = pickle.dumps(
            Job(
                read=None if fetched_ahead else read,
                transforms=tuple(transforms),
                derived=derived,
                preview=preview,
                limits=limits,
                seconds=seconds,
                settle_seconds=settle_seconds,
                memory_mb=memory_mb,
                memory_file=self._memory_file,
                slots=ahead,
            )
        )
        self._wanted = workers
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()
        self._failed_starts = 0
        self._flow: _Flow | None = None
        self._fetcher = Fetcher(read, fetched_ahead) if fetched_ahead else None
        if self._fetcher:
            self._selector.register(self._fetcher.awake, selectors.EVENT_READ, self._fetcher)

    def __enter__(self) -> DecodePool:
        try:
            self._fill_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all workers; a closed pool cannot be used again."""
        for worker in list(self._workers):
            self._end(worker)
        self._selector.close()
        if self._fetcher:
            self._fetcher.close()
            self._fetcher = None
        if self._memory_file >= 0:
            os.close(self._memory_file)
            self._memory_file = -1

    def run(self, locators: Iterable[str], *, previews: bool = False) -> Iterator[Decoded]:
        """Decode a stream of locators; yields one Decoded each, in the order given.

        With `previews` the pictures have one each, which takes further time.

        `locators` is drawn from in the caller's thread, while results are taken. Raises
        DecodingError where workers cannot start or `read` raises anything unforeseen.
        """
        if self._flow is not None or self._memory_file < 0:
            raise DecodingError("this pool of decoders is closed, or busy with another run")
        self._flow = flow = _Flow(free=list(range(self._ahead)), previews=previews)
        try:
            yield from self._run(iter(locators), flow)
        finally:
            self._flow = None
            for picture in flow.under_way.values():
                self._let_go(picture)
            # A caller that stops halfway drops the pictures under way.
            for worker in [w for w in self._workers if w.queue]:
                self._end(worker)

    def _run(self, locators: Iterator[str], flow: _Flow) -> Iterator[Decoded]:
        taken = given = 0
        room = 1  # how many more may be drawn although a result is ready
        more = True
        while more or given < taken:
            self._send(flow)
            self._receive(flow, timeout=0)
            ready = given in flow.done
            if more and flow.free and taken - given < self._ahead and (not ready or room > 0):
                before = time.monotonic()
                locator = next(locators, None)
                more = locator is not None
                # A slow stream must not hold back what is ready; a quick one fills what is ahead.
                room = 0 if time.monotonic() - before > _SLOW_STREAM_SECONDS else room - 1
                if locator is not None:
                    picture = Picture(taken, locator, flow.free.pop(), flow.previews)
                    flow.add(picture)
                    taken += 1
            elif ready:
                yield flow.done.pop(given)
                given += 1
                room = 2
            elif given < taken:
                self._receive(flow, timeout=None)

    def _fill_up(self) -> None:
        while len(self._workers) < self._wanted:
            worker = WorkerProcess(self._job, self._memory_file, self._seconds)
            self._workers.append(worker)
            self._selector.register(worker.connection, selectors.EVENT_READ, worker)

    def _end(self, worker: WorkerProcess) -> int:
        self._workers.remove(worker)
        self._selector.unregister(worker.connection)
        return worker.end()

    def _send(self, flow: _Flow) -> None:
        self._fill_up()
        self._fetch(flow)
        while (picture := next((p for p in flow.waiting if p.is_ready()), None)) is not None:
            if picture.fetched and (error := picture.fetched.exception()):
                flow.waiting.remove(picture)
                self._give(flow, picture, _unread(picture.locator, error))
                continue
            able = [worker for worker in self._workers if worker.has_room()]
            if not able:
                return
            flow.waiting.remove(picture)
            min(able, key=lambda worker: len(worker.queue)).send(picture)

    def _fetch(self, flow: _Flow) -> None:
        """Begin to read what there is room for; where workers read, all may go to them."""
        while flow.drawn and (self._fetcher is None or self._fetcher.has_room()):
            picture = flow.drawn.popleft()
            if self._fetcher:
                picture.fetched = self._fetcher.begin(picture.locator)
            flow.waiting.append(picture)

    def _give(self, flow: _Flow, picture: Picture, decoded: Decoded) -> None:
        flow.give(picture, decoded)
        self._let_go(picture)

    def _let_go(self, picture: Picture) -> None:
        if self._fetcher and picture.fetched:
            self._fetcher.end(picture.fetched)

    def _receive(self, flow: _Flow, timeout: float | None) -> None:
        if timeout is None:
            patience = min(worker.patience() for worker in self._workers)
            timeout = None if patience == math.inf else patience
        events = self._selector.select(timeout)
        for key, _ in events:
            if isinstance(key.data, Fetcher):
                key.data.sleep_again()
                continue
            worker: WorkerProcess = key.data
            try:
                message = worker.receive()
                self._take(worker, message, flow)
            except (EOFError, OSError, ValueError, LookupError, TypeError):
                self._bury(worker, flow)
        # Not left to an end of file: of a process that no signal can end, none may ever come.
        for worker in [worker for worker in self._workers if worker.patience() <= 0]:
            worker.hung = True
            self._bury(worker, flow)

    def _take(self, worker: WorkerProcess, message: dict[str, Any], flow: _Flow) -> None:
        if not worker.ready:
            worker.ready = bool(message["ready"])
            self._failed_starts = 0
            return
        picture = worker.queue[0]
        if message["number"] != picture.number:
            raise ValueError(message)
        if message["fault"] is not None:
            raise DecodingError(f"{picture.locator} cannot be read:\n{message['fault']}")
        size, verdict = message["size"], (message["rejected"], message["why"])
        good = verdict == (None, None)
        decoded = Decoded(
            locator=picture.locator,
            token=message["token"],
            image_id=message["image_id"],
            size=None if size is None else (int(size[0]), int(size[1])),
            views=self._slots.copy(picture.slot) if good else None,
            preview=self._slots.preview(picture.slot, int(message["preview"])) if good else None,
            rejected=verdict[0],
            retry=verdict[1] is not None,
            why=verdict[1],
        )
        worker.queue.popleft()
        worker.alone = False
        self._give(flow, picture, decoded)

    def _bury(self, worker: WorkerProcess, flow: _Flow) -> None:
        """Replace a worker that died; the picture it died of is tried alone, then rejected."""
        code = self._end(worker)
        if not worker.ready:
            self._failed_starts += 1
            if self._failed_starts >= _FAILED_STARTS:
                raise DecodingError(
                    f"the decoding workers do not start (last exit code {code}): see what they "
                    f"wrote above; is tag.decode_memory_mb ({self._memory_mb}) too small?"
                )
        suspect = worker.queue.popleft() if worker.ready and worker.queue else None
        flow.waiting.extendleft(reversed(worker.queue))
        self._fill_up()
        if suspect is None:
            return
        hung = worker.hung or code == -signal.SIGALRM
        if hung and self._slots.phase[suspect.slot] == READING:
            why = f"reading it took longer than {self._seconds:g} s"
            self._give(flow, suspect, Decoded(suspect.locator, retry=True, why=why))
        elif suspect.second_try:
            reason = self._cause_of_death(code, hung=hung)
            self._give(flow, suspect, Decoded(suspect.locator, rejected=reason))
        else:
            suspect.second_try = True
            fresh = self._workers[-1]
            fresh.alone = True
            fresh.send(suspect)

    def _cause_of_death(self, code: int, *, hung: bool) -> str:
        if hung:
            return f"decoding it takes longer than {self._seconds:g} s"
        if code == OUT_OF_MEMORY:
            return f"decoding it takes more than {self._memory_mb} MB of memory"
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the decoder crashed on it ({how})"


@dataclass
class _Flow:
    """The pictures under way in one run."""

    free: list[int]  # slots
    previews: bool = False
    drawn: deque[Picture] = field(default_factory=deque)
    waiting: deque[Picture] = field(default_factory=deque)  # for a worker, or until they are read
    under_way: dict[int, Picture] = field(default_factory=dict)
    done: dict[int, Decoded] = field(default_factory=dict)

    def add(self, picture: Picture) -> None:
        self.drawn.append(picture)
        self.under_way[picture.number] = picture

    def give(self, picture: Picture, decoded: Decoded) -> None:
        del self.under_way[picture.number]
        self.done[picture.number] = decoded
        self.free.append(picture.slot)


def _unread(locator: str, error: BaseException) -> Decoded:
    """Return what becomes of a file that could not be read here; raises what concerns all files."""
    if isinstance(error, Rejected):
        return Decoded(locator, rejected=error.reason)
    if isinstance(error, RetryLater | OSError):
        return Decoded(locator, retry=True, why=str(error))
    if isinstance(error, TransientError):
        raise error
    raise DecodingError(f"{locator} cannot be read: {error!r}") from error
