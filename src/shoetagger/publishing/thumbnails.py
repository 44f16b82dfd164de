"""Two JPEGs of each picture, made once by the decoding workers: a thumbnail for the pages, and a
preview by which people judge tags on the desk."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType

import numpy as np
from PIL import Image

from ..config.operations import Publish
from ..config.params import Params
from ..config.places import Place
from ..config.settings import PREVIEWS
from ..images.views import Transform
from ..ingest.batches import KeptViews, decode_pool
from ..ingest.inbox import InboxError
from ..ingest.pool import DecodePool
from ..storage.places import published_at
from ..storage.storage import Storage, StorageError

logger = logging.getLogger(__name__)

# image ids -> where the bytes of each have been seen
Sources = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]


def transform(pixels: int) -> Transform:
    """Return the transform of a thumbnail: the whole picture on a white square of `pixels`."""
    return Transform(size=pixels)


def thumbnail_name(image_id: str) -> str:
    """Return the name of a picture's thumbnail among what is published."""
    return f"pages/thumbs/{_spread(image_id)}"


def preview_name(image_id: str) -> str:
    """Return the name of a picture's preview among what is published."""
    return f"{PREVIEWS}/{_spread(image_id)}"


def _spread(image_id: str) -> str:
    return f"{image_id[:2]}/{image_id}.jpg"  # over 256 folders


def jpeg(view: np.ndarray, size: tuple[int, int]) -> bytes:
    """Return a thumbnail of its view, (S, S, 3) uint8; `size` is the picture's own."""
    file = io.BytesIO()
    Image.fromarray(_without_seams(view, size)).save(file, "JPEG", quality=82, optimize=True)
    return file.getvalue()


def remove(storage: Storage, image_id: str) -> None:
    """Remove a picture's thumbnail and preview."""
    storage.remove([thumbnail_name(image_id), preview_name(image_id)])


def of_shard(published: Place, publish: Publish) -> KeptViews:
    """Return what a shard keeps: of as many pictures as a day's pages show, both JPEGs."""
    keeper = _Keeper(published_at(published), publish.page_size * publish.max_pages)
    return KeptViews(transform(publish.thumbnail), publish.preview, keeper.take, keeper.drop)


class _Keeper:
    """Keeps the JPEGs of the first `most` pictures; those for a bucket are on their way meanwhile.

    What does not arrive, as the bucket is away or the folder full, the publication makes again.
    """

    def __init__(self, storage: Storage, most: int) -> None:
        self._storage, self._left = storage, most
        at_once = storage.at_once
        self._threads = ThreadPoolExecutor(at_once) if at_once > 1 else None
        self._most_under_way = 4 * at_once
        self._under_way: dict[str, Future[None]] = {}

    def take(
        self, image_id: str, view: np.ndarray | None, preview: bytes | None, size: tuple[int, int]
    ) -> None:
        if self._left <= 0:
            return
        self._left -= 1
        files = {}
        if view is not None:
            files[thumbnail_name(image_id)] = partial(jpeg, view, size)
        if preview is not None:
            files[preview_name(image_id)] = partial(bytes, preview)
        if self._threads is None:
            self._end(partial(self._keep, files))
            return
        while len(self._under_way) >= self._most_under_way:
            self._arrived(next(iter(self._under_way)))
        self._under_way[image_id] = self._threads.submit(self._keep, files)

    def drop(self, image_id: str) -> None:
        self._arrived(image_id)
        remove(self._storage, image_id)

    def _keep(self, files: Mapping[str, Callable[[], bytes]]) -> None:
        for name, made in files.items():
            if not self._storage.stamps([name]):
                self._storage.write(name, made())

    def _arrived(self, image_id: str) -> None:
        """Wait for the files of a picture that are under way."""
        if (future := self._under_way.pop(image_id, None)) is not None:
            self._end(future.result)

    def _end(self, keeping: Callable[[], None]) -> None:
        """Keep a picture's files, or wait until they are kept; after a failure keep no more."""
        try:
            keeping()
        except (StorageError, OSError) as error:
            if self._left > 0:
                logger.warning("no more thumbnails from this shard: %s", error)
            self._left = 0


# A studio's background varies less than this (of 255) along the edge of a picture.
_EVEN = 10


def _without_seams(view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Continue an even background over the padding: the square then looks like one picture."""
    pixels = len(view)
    width, height = (max(1, round(side * pixels / max(size))) for side in size)
    top, left = (pixels - height) // 2, (pixels - width) // 2
    bottom, right = top + height, left + width
    padding_and_edge = [
        (np.s_[:, :left], np.s_[top:bottom, left : left + 2]),
        (np.s_[:, right:], np.s_[top:bottom, right - 2 : right]),
        (np.s_[:top, :], np.s_[top : top + 2, left:right]),
        (np.s_[bottom:, :], np.s_[bottom - 2 : bottom, left:right]),
    ]
    seamless = view.copy()
    for padding, edge in padding_and_edge:
        colour = np.median(view[edge], axis=(0, 1))
        if np.percentile(np.abs(view[edge] - colour), 98) < _EVEN:
            seamless[padding] = colour.round()
    return seamless


class Thumbnails(AbstractContextManager["Thumbnails"]):
    """Makes the thumbnails that are missing; its workers start when the first one is.

    `sources` returns, for image ids, the locators at which their bytes have been seen.
    """

    def __init__(self, storage: Storage, inbox: Place, params: Params, sources: Sources) -> None:
        self._storage = storage
        self._inbox = inbox
        self._params = params
        self._sources = sources
        self._pool: DecodePool | None = None
        self.made = 0

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool:
            self._pool.close()

    def make(self, image_ids: Iterable[str]) -> set[str]:
        """Make those that are missing; return the ids that stay without: their files are gone.

        A file counts only while it still holds the bytes of that image id; where one is gone,
        another one with the same bytes serves.
        """
        names = {image_id: thumbnail_name(image_id) for image_id in image_ids}
        there = self._storage.stamps(names.values())
        missing = [image_id for image_id, name in names.items() if name not in there]
        if not missing:
            return set()
        left = set(missing)
        sources = {image_id: list(seen) for image_id, seen in self._sources(missing).items()}
        while batch := [(i, sources[i].pop(0)) for i in missing if i in left and sources.get(i)]:
            decoded = self._workers().run(locator for _, locator in batch)
            try:
                for (image_id, _), picture in zip(batch, decoded, strict=True):
                    if picture.views and picture.size and picture.image_id == image_id:
                        made = jpeg(picture.views[0], picture.size)
                        self._storage.write(names[image_id], made)
                        left.discard(image_id)
                        self.made += 1
            except InboxError as error:  # tags are published all the same
                logger.warning("%d thumbnails cannot be made: %s", len(left), error)
                break
        return left

    def _workers(self) -> DecodePool:
        if self._pool is None:
            thumbnail = transform(self._params.publish.thumbnail)
            pool = decode_pool(self._params, [thumbnail], self._inbox, settle_seconds=0.0)
            self._pool = pool.__enter__()
        return self._pool
