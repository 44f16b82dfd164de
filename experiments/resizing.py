"""Ways to make a picture square, or smaller in its frame, to learn from the result or score it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
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
    return _padded(image, _border_colour(image))


def _border_colour(image: Image.Image) -> tuple[int, int, int]:
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = (int(value) for value in np.median(border, axis=0))
    return red, green, blue


def _shrunk(image: Image.Image, share: float) -> Image.Image:
    """Return the picture as if taken from farther away, on a ground of its border's colour."""
    width, height = (max(1, round(side * share)) for side in image.size)
    ground = Image.new("RGB", image.size, _border_colour(image))
    small = image.resize((width, height), Image.Resampling.BICUBIC)
    ground.paste(small, ((image.width - width) // 2, (image.height - height) // 2))
    return ground


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
    "shrunk_07": partial(_shrunk, share=0.7),
    "shrunk_05": partial(_shrunk, share=0.5),
}
SHRUNK = ("shrunk_07", "shrunk_05")


def resized(how: str, paths: Sequence[Path], limits: Limits, folder: Path) -> tuple[Path, ...]:
    """Write each picture as a PNG under `folder`; return their paths in the same order.

    `how` names one of RESIZINGS. Existing files are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = tuple(folder / f"{path.name}.png" for path in paths)
    for path, file in zip(paths, made, strict=True):
        if not file.exists():
            RESIZINGS[how](open_image(path.read_bytes(), limits, longest=_LONGEST)).save(file)
    return made
