"""Ways to make a picture square, to learn from the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from shoetagger.images.decode import Limits, open_image

_LONGEST = 512  # pixels of the longer side of a decoded picture
_SIDE = 320  # pixels of the squares, more than any recipe needs
_MIDDLE = 224 / 256  # of the shorter side, as the article's Resize(256) and CenterCrop(224) leave


def _centre_crop(image: Image.Image) -> Image.Image:
    side = _MIDDLE * min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, box=box)


def _pad_with_white(image: Image.Image) -> Image.Image:
    """Return what the package does, resampled like the other ways, to compare them with."""
    return _padded(image, (255, 255, 255))


def _pad_with_border_colour(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in np.median(border, axis=0))
    return _padded(image, (red, green, blue))


def _padded(image: Image.Image, fill: tuple[int, int, int]) -> Image.Image:
    side = max(image.size)
    square = Image.new("RGB", (side, side), fill)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _stretch(image: Image.Image) -> Image.Image:
    return image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


RESIZINGS: Mapping[str, Callable[[Image.Image], Image.Image]] = {
    "centre_crop": _centre_crop,
    "pad_with_white": _pad_with_white,
    "pad_with_border_colour": _pad_with_border_colour,
    "stretch": _stretch,
}


def resized(how: str, paths: Sequence[Path], limits: Limits, folder: Path) -> tuple[Path, ...]:
    """Write each picture as a square PNG under `folder`; return their paths in the same order.

    `how` names one of RESIZINGS. Existing files are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    squares = tuple(folder / f"{path.name}.png" for path in paths)
    for path, square in zip(paths, squares, strict=True):
        if not square.exists():
            RESIZINGS[how](open_image(path.read_bytes(), limits, longest=_LONGEST)).save(square)
    return squares
