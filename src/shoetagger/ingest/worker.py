"""The side of decoding that runs in worker processes."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pickle
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any, Protocol

from PIL import Image

from ..errors import ShoetaggerError
from ..images.decode import Limits, Rejected, image_id, open_with_size
from ..images.views import Transform, tagging_view
from .preview import preview
from .shared_memory import DECODING, READING, Slots


class RetryLater(ShoetaggerError):  # noqa: N818 - a verdict on a file, not a fault of the program
    """What `read` raises for a file that the next run should look at: gone, changed, no answer."""


class Content(Protocol):
    """What `read` returns; `modified_at` says when the file was last written to, if known."""

    @property
    def data(self) -> bytes: ...
    @property
    def token(self) -> str: ...
    @property
    def modified_at(self) -> datetime | None: ...


@dataclass(frozen=True)
class Job:
    """What a worker needs, sent to it once."""

    read: Callable[[str], Content] | None  # None: the parent reads, and hands the bytes over
    transforms: tuple[Transform, ...]
    derived: int  # how many of them, the last ones, may be made from the views before them
    preview: int  # pixels of previews, longer side; 0: none are made
    limits: Limits
    seconds: float
    settle_seconds: float
    memory_mb: int
    memory_file: int
    slots: int


OUT_OF_MEMORY = 77  # exit code
_IDLE_SECONDS = 5.0


def work(socket_file: int) -> None:
    """Run a worker process: decode what the socket names until it is closed."""
    parent = os.getppid()
    # Ctrl-C reaches the whole terminal; it is the parent that decides what ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The alarm must kill even inside a native decoder: no handler of Python's could.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    pipe = Connection(socket_file)
    job: Job = pickle.loads(pipe.recv_bytes())  # from the parent that started us
    slots = Slots(job.memory_file, job.transforms, job.slots, previews=job.preview > 0)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, job.memory_mb * 2**20)
    pipe.send_bytes(json.dumps({"ready": True}).encode())
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while True:
            # A process that the parent forked may hold the socket open after its death.
            while not pipe.poll(_IDLE_SECONDS):
                if os.getppid() != parent:
                    return
            number, locator, slot, wants_preview, given = json.loads(pipe.recv_bytes())
            read = partial(_received, given, recv_handle(pipe)) if given else job.read
            assert read is not None
            try:
                result = _decode_one(
                    locator, read, slot, job, slots, wants_preview=bool(wants_preview)
                )
            except MemoryError:
                os._exit(OUT_OF_MEMORY)
            pipe.send_bytes(json.dumps(vars(result) | {"number": number}).encode())


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(what, (most, most))


@dataclass(frozen=True)
class _Result:
    """A worker's result for one picture, whose views and preview are in its slot."""

    token: str | None = None
    image_id: str | None = None
    size: tuple[int, int] | None = None
    preview: int = 0  # bytes of the preview; 0: there is none
    rejected: str | None = None
    why: str | None = None
    fault: str | None = None


@dataclass(frozen=True)
class _Received:
    """The Content that the parent read of a file."""

    data: bytes
    token: str
    modified_at: datetime | None


def _received(given: dict[str, Any], file: int, _: str) -> _Received:
    """Return the bytes in a file that the parent has handed over, and what it says of them."""
    try:
        data = os.pread(file, given["size"], 0)
    finally:
        os.close(file)
    moment = given["modified_at"]
    return _Received(data, given["token"], moment and datetime.fromisoformat(moment))


def _decode_one(
    locator: str,
    read: Callable[[str], Content],
    slot: int,
    job: Job,
    slots: Slots,
    *,
    wants_preview: bool,
) -> _Result:
    slots.phase[slot] = READING
    signal.setitimer(signal.ITIMER_REAL, job.seconds)
    try:
        content = read(locator)
        slots.phase[slot] = DECODING
        signal.setitimer(signal.ITIMER_REAL, job.seconds)
        return _decode(content, slot, job, slots, wants_preview=wants_preview)
    except Rejected as error:
        return _Result(rejected=error.reason)
    except (RetryLater, OSError) as error:
        return _Result(why=str(error))
    except MemoryError:
        raise
    except Exception:  # a bug: the parent raises it
        return _Result(fault=traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _decode(content: Content, slot: int, job: Job, slots: Slots, *, wants_preview: bool) -> _Result:
    data = content.data
    identity = image_id(data)
    longest = max(transform.longest for transform in job.transforms)
    try:
        opened = open_with_size(data, job.limits, longest=longest)
    except Rejected as error:
        if error.unfinished and _just_changed(content.modified_at, job.settle_seconds):
            why = f"may still be arriving, for it has just changed: {error.reason}"
            return _Result(token=content.token, why=why)
        return _Result(token=content.token, image_id=identity, rejected=error.reason)
    exact = len(job.transforms) - job.derived
    for number, (transform, views) in enumerate(zip(job.transforms, slots.views, strict=True)):
        source = opened.image
        if number >= exact:
            source = _view_to_derive_from(transform, job.transforms[:exact], slots, slot) or source
        views[slot] = tagging_view(source, transform)
    jpeg = preview(data, opened, job.limits, job.preview) if wants_preview and job.preview else None
    return _Result(
        token=content.token,
        image_id=identity,
        size=opened.size,
        preview=slots.put_preview(slot, jpeg) if jpeg else 0,
    )


def _view_to_derive_from(
    transform: Transform, made: Sequence[Transform], slots: Slots, slot: int
) -> Image.Image | None:
    """Return the smallest view that was made and shows the same, larger; None where none does.

    Making a small view from a view takes a quarter of the time of making it from the picture.
    """
    fitting = [
        (other.size, views)
        for other, views in zip(made, slots.views, strict=False)
        if other.size >= transform.size
        and (other.fill, other.framing, other.detector)
        == (transform.fill, transform.framing, transform.detector)
    ]
    return Image.fromarray(min(fitting, key=lambda f: f[0])[1][slot]) if fitting else None


def _just_changed(modified_at: datetime | None, settle_seconds: float) -> bool:
    if modified_at is None:
        return False
    # A time in the future comes from a wrong clock, not from a file that is still arriving.
    return abs((datetime.now(UTC) - modified_at).total_seconds()) < settle_seconds


if __name__ == "__main__":
    # Under its importable name, which pickled objects refer to.
    importlib.import_module("shoetagger.ingest.worker").work(int(sys.argv[1]))
