"""Any number of distinct JPEG files from a few: each copy has a comment of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import typer

_PER_FOLDER = 1000
_WRITERS = 16
_APPLICATION = range(0xE0, 0xF0)  # markers of segments that come first: JFIF, EXIF, a profile


def make_copies(pictures: Sequence[Path], folder: Path, count: int) -> list[Path]:
    """Write `count` files below `folder`, no two with the same bytes, and return their paths.

    They take turns with the JPEGs among `pictures`, whose pixels they keep.
    """
    originals = [data for path in pictures if is_jpeg(data := path.read_bytes())]
    if not originals:
        raise typer.BadParameter("there is no JPEG among the pictures: name another folder")
    paths = [folder / f"{n // _PER_FOLDER:04d}" / f"{n:07d}.jpg" for n in range(count)]
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True)

    def write(number: int) -> None:
        copy = with_comment(originals[number % len(originals)], f"copy {number}")
        paths[number].write_bytes(copy)

    with ThreadPoolExecutor(_WRITERS) as writers:
        list(writers.map(write, range(count)))
    return paths


def is_jpeg(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8\xff")


def with_comment(jpeg: bytes, text: str) -> bytes:
    """Return a JPEG with a comment after its application segments."""
    *_, place = _ends_of_segments(jpeg)
    comment = text.encode()
    length = (len(comment) + 2).to_bytes(2, "big")  # counts its own two bytes
    return jpeg[:place] + b"\xff\xfe" + length + comment + jpeg[place:]


def _ends_of_segments(jpeg: bytes) -> Iterator[int]:
    place = 2  # after the start of the image
    yield place
    while jpeg[place] == 0xFF and jpeg[place + 1] in _APPLICATION:
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
        yield place
