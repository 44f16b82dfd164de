"""Two JPEGs of each picture, made once by the decoding workers: a thumbnail for the pages, and a
preview by which people judge tags on the desk."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
from PIL import Image

from ..atomic import atomic_write
from ..config.operations import Publish
from ..config.params import Params
from ..config.places import Place
from ..config.settings import PREVIEWS
from ..images.views import Transform
from ..ingest.batches import KeptViews, decode_pool
from ..ingest.inbox import InboxError
from ..ingest.pool import DecodePool

logger = logging.getLogger(__name__)

# image ids -> where the bytes of each have been seen
Sources = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]

# Writing a thumbnail takes milliseconds: an unfinished file older than this is abandoned.
_LEFT_AFTER_SECONDS = 3600.0


def transform(pixels: int) -> Transform:
    """Return the transform of a thumbnail: the whole picture on a white square of `pixels`."""
    return Transform(size=pixels)


def folder_in(published: Path) -> Path:
    """Return the folder of the thumbnails within the published folder."""
    return published / "pages" / "thumbs"


def previews_in(published: Path) -> Path:
    """Return the folder of the previews within the published folder."""
    return published / PREVIEWS


def place(folder: Path, image_id: str) -> Path:
    """Return where a picture's JPEG lies below a folder of either: spread over 256 folders."""
    return folder / image_id[:2] / f"{image_id}.jpg"


def is_kept(folder: Path, image_id: str) -> bool:
    """Tell whether a picture has its JPEG there; an empty file is what a power cut may leave."""
    try:
        return place(folder, image_id).stat().st_size > 0
    except FileNotFoundError:
        return False


def keep(folder: Path, image_id: str, view: np.ndarray, size: tuple[int, int]) -> None:
    """Write one thumbnail from its view, (S, S, 3) uint8; `size` is the picture's own."""
    with _written(folder, image_id) as file:
        Image.fromarray(_without_seams(view, size)).save(file, "JPEG", quality=82, optimize=True)


def keep_preview(folder: Path, image_id: str, jpeg: bytes) -> None:
    """Write one preview."""
    with _written(folder, image_id) as file:
        file.write(jpeg)


def remove(published: Path, image_id: str) -> None:
    """Remove a picture's thumbnail and preview."""
    for folder in (folder_in(published), previews_in(published)):
        place(folder, image_id).unlink(missing_ok=True)


@contextlib.contextmanager
def _written(folder: Path, image_id: str) -> Iterator[BinaryIO]:
    path = place(folder, image_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = _unfinished(folder)
    unfinished.mkdir(exist_ok=True)
    with atomic_write(path, unfinished, flushed=False) as file:
        yield file


def sweep(folder: Path) -> None:
    """Remove half-written files of killed processes; a shard may be writing at the same time."""
    for path in _unfinished(folder).glob(".*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # it has just been renamed to its place
            if time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS:
                path.unlink()


def of_shard(published: Path, publish: Publish) -> KeptViews:
    """Return what a shard keeps: of as many pictures as a day's pages show, both JPEGs."""
    thumbs, previews = folder_in(published), previews_in(published)
    left = publish.page_size * publish.max_pages

    def take(
        image_id: str, view: np.ndarray | None, preview: bytes | None, size: tuple[int, int]
    ) -> None:
        nonlocal left
        if left <= 0:
            return
        left -= 1
        if view is not None and not is_kept(thumbs, image_id):
            keep(thumbs, image_id, view, size)
        if preview is not None and not is_kept(previews, image_id):
            keep_preview(previews, image_id, preview)

    return KeptViews(
        transform(publish.thumbnail), publish.preview, take, partial(remove, published)
    )


def _unfinished(folder: Path) -> Path:
    return folder / ".unfinished"


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

    def __init__(self, folder: Path, inbox: Place, params: Params, sources: Sources) -> None:
        self._folder = folder
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
        missing = [i for i in image_ids if not is_kept(self._folder, i)]
        if not missing:
            return set()
        left = set(missing)
        sources = {image_id: list(seen) for image_id, seen in self._sources(missing).items()}
        while batch := [(i, sources[i].pop(0)) for i in missing if i in left and sources.get(i)]:
            decoded = self._workers().run(locator for _, locator in batch)
            try:
                for (image_id, _), picture in zip(batch, decoded, strict=True):
                    if picture.views and picture.size and picture.image_id == image_id:
                        keep(self._folder, image_id, picture.views[0], picture.size)
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
