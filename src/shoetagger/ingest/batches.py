"""Batches of decoded images, ready for an engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..config.places import Place
from ..images.decode import Limits, Rejected
from ..images.views import Transform
from .inbox import Changed, Content, Gone, Inbox, TooLarge, Unreachable, Unreadable
from .places import inbox_at
from .pool import Decoded, DecodePool
from .worker import RetryLater

if TYPE_CHECKING:  # decoding processes import this module: no torch in them, and no pydantic
    from ..config.params import Params
    from ..inference.engine import Engine


GONE = "no longer there"


def read_picture(locator: str, inbox: Inbox, max_bytes: int) -> Content:
    """Read a file for a DecodePool: what can never be read is Rejected, the rest RetryLater.

    A file that is gone is RetryLater with a message that begins with `GONE`.
    """
    try:
        return inbox.read(locator, max_bytes)
    except (TooLarge, Unreadable) as error:
        raise Rejected(error.reason) from None
    except Gone as error:
        raise RetryLater(f"{GONE}: {error.reason}") from None
    except (Changed, Unreachable) as error:
        raise RetryLater(error.reason) from None


T = TypeVar("T")
A = TypeVar("A")
_AHEAD = 2  # batches under way, so that the models never wait while one is written


@dataclass(frozen=True)
class KeptViews:
    """What is kept of new pictures for people: a further view, and a preview of `preview` pixels.

    Whoever decoded a picture hands them on, so that nobody has to decode it again.
    """

    transform: Transform
    preview: int  # longer side; 0: no previews
    # image id, view (S, S, 3) uint8, preview as JPEG, size; what could not be made is None
    take: Callable[[str, np.ndarray | None, bytes | None, tuple[int, int]], None]
    drop: Callable[[str], None]  # image id of a picture that a person had erased meanwhile


def decode_pool(
    options: Params,
    transforms: Sequence[Transform],
    inbox: Place,
    *,
    settle_seconds: float,
    batch: int | None = None,
    derived: int = 0,
    preview: int = 0,
) -> DecodePool:
    """Return the decoding processes as params.yaml bounds them, for the files of an inbox.

    They read a folder's files by themselves, and are handed those of a bucket. They work up to two
    batches ahead of the caller; `batch` (default: `tag.batch_size`) is the size of one.
    """
    limits, opened = Limits.of(options.images), inbox_at(inbox)
    return DecodePool(
        transforms,
        limits,
        read=partial(read_picture, inbox=opened, max_bytes=limits.max_bytes),
        fetched_ahead=opened.fetched_ahead,
        workers=options.tag.decode_workers,
        seconds=options.tag.decode_seconds,
        memory_mb=options.tag.decode_memory_mb,
        settle_seconds=settle_seconds,
        ahead=2 * (batch or options.tag.batch_size),
        derived=derived,
        preview=preview,
    )


def prefetched(
    batches: Iterable[list[T]], compute: Callable[[list[T]], A]
) -> Iterator[tuple[list[T], A]]:
    """Yield each batch with what `compute` returns for it, in order, computing the next meanwhile.

    So models work while one batch is written and another one collected. Where collecting fails,
    batches under way are dropped: they are still to be done.
    """
    executor = ThreadPoolExecutor(_AHEAD)
    under_way: deque[tuple[list[T], Future[A]]] = deque()
    try:
        for batch in batches:
            under_way.append((batch, executor.submit(compute, batch)))
            if len(under_way) == _AHEAD:
                oldest, result = under_way.popleft()
                yield oldest, result.result()
        for batch, result in under_way:
            yield batch, result.result()
    finally:
        # A model that hangs must not keep an error from being raised.
        executor.shutdown(wait=False, cancel_futures=True)


def stack_views(engine: Engine, decoded: Sequence[Decoded]) -> dict[Any, np.ndarray]:
    """Return for each of the engine's transforms the batch (B, S, S, 3) of decoded pictures.

    Their views come in the order of the engine's transforms; further views are left out.
    """
    columns = zip(*(d.views or () for d in decoded), strict=True)
    return {
        transform: np.stack(views)
        for transform, views in zip(engine.transforms, columns, strict=False)
    }
