"""Finds the plain background behind a shoe, and draws other backgrounds."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Square = NDArray[np.uint8]  # (S, S, 3)


_PLAIN = 12  # levels per channel by which a plain background may differ from the border's colour
_SOFTEN = ImageFilter.BoxBlur(1)
_STEEPER = [max(0, min(255, (level - 96) * 255 // 144)) for level in range(256)]


def shoe_mask(image: Image.Image) -> Square | None:
    """Return the shoe's opacity, (H, W) uint8, or None where the background is not plain."""
    background = plain_ground(image)
    if background is None or not 0.1 < background.mean() < 0.97:
        return None
    # The blur softens the edge; the steeper scale keeps it on the shoe, off the old background.
    opacity = Image.fromarray(np.where(background, np.uint8(0), np.uint8(255)))
    return np.asarray(opacity.filter(_SOFTEN).point(_STEEPER))


def plain_ground(image: Image.Image) -> NDArray[np.bool_] | None:
    """Return where the background is, (H, W), or None where the border is not plain.

    Background is what differs little from the border's colour and is connected to the border.
    """
    colour = plain_colour(image)
    if colour is None:
        return None
    # A wider tolerance would include the light parts of white shoes.
    return _joined_to_border(_difference(np.asarray(image), colour) <= _PLAIN)


def plain_colour(image: Image.Image) -> NDArray[np.int16] | None:
    """Return the border's median colour (3,), or None where the border is not plain."""
    pixels = np.asarray(image)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0).astype(np.int16)
    near = _difference(border, colour) <= _PLAIN
    return colour if near.mean() >= 0.8 else None


def _difference(pixels: NDArray[Any], colour: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return the largest difference of a channel from a colour, for pixels (..., 3)."""
    # A channel at a time: numpy takes the maximum of three neighbours ten times as slowly.
    channels = (np.abs(pixels[..., i].astype(np.int16) - colour[i]) for i in range(3))
    return functools.reduce(np.maximum, channels)


def _joined_to_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of `mask` that is connected to the border."""
    rows, columns = _runs(mask), _runs(mask.T)
    reached = np.zeros_like(mask)
    reached[[0, -1]], reached[:, [0, -1]] = mask[[0, -1]], mask[:, [0, -1]]
    count = -1
    while count != (count := int(reached.sum())):
        # A run touched anywhere is reached as a whole: a few rounds, not one per pixel.
        reached = _spread(reached, rows) & mask
        reached = _spread(reached.T, columns).T & mask
    return reached


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the horizontal runs of equal pixels: (H, W)."""
    starts = np.ones(mask.shape, dtype=bool)
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    return np.cumsum(starts).reshape(mask.shape) - 1


def _spread(reached: NDArray[np.bool_], runs: NDArray[np.int64]) -> NDArray[np.bool_]:
    touched = np.zeros(int(runs[-1, -1]) + 1, dtype=bool)
    touched[runs[reached]] = True
    return touched[runs]


def draw_background(size: int, rng: np.random.Generator) -> Square:
    """Draw noise, a gradient, boards, carpet or tiles: (size, size, 3)."""
    kinds = (_noise, _gradient, _boards, _carpet, _tiles)
    ground = kinds[rng.integers(len(kinds))](size, rng)  # (S, S, 3) or (S, S, 1), around 0..1
    return (np.clip(ground, 0, 1) * 255).astype(np.uint8)


def _clouds(size: int, cells: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return smooth noise in 0..1 with about `cells` (down, across) bumps, (S, S, 1)."""
    coarse = rng.random(cells, dtype=np.float32)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth)[..., None]


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a muted colour, from near black to near white, as the shoe is what is colourful."""
    grey = rng.uniform(0.1, 0.95)
    return np.clip(grey + rng.normal(0, 0.08, size=3), 0, 1).astype(np.float32)


def _wood(rng: np.random.Generator) -> NDArray[np.float32]:
    light = rng.uniform(0.25, 0.9)
    return (light * np.array([1.0, rng.uniform(0.7, 0.9), rng.uniform(0.4, 0.75)])).astype(
        np.float32
    )


def _noise(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    cells = int(rng.integers(2, 24))
    blend = _clouds(size, (cells, cells), rng)
    return _colour(rng) * blend + _colour(rng) * (1 - blend)


def _gradient(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    angle = rng.uniform(0, 2 * math.pi)
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    across, down = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    slope = across * line[None, :, None] + down * line[:, None, None] + np.float32(0.5)
    return _colour(rng) * slope + _colour(rng) * (1 - slope)


def _boards(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    board = int(rng.integers(max(2, size // 12), max(3, size // 4)))
    row = (np.arange(size) + rng.integers(board)) // board
    shade = rng.normal(1, 0.08, size=row[-1] + 1).astype(np.float32)[row][:, None, None]
    grain = 1 + 0.2 * (_clouds(size, (min(size, 96), 4), rng) - 0.5)
    seam = np.where(np.diff(row, prepend=row[0]) > 0, 0.55, 1).astype(np.float32)[:, None, None]
    floor = _wood(rng) * shade * grain * seam
    return np.asarray(floor.transpose(1, 0, 2) if rng.random() < 0.5 else floor)


def _carpet(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    tuft = rng.normal(0, rng.uniform(0.04, 0.12), size=(size, size, 1)).astype(np.float32)
    worn = 0.2 * (_clouds(size, (4, 4), rng) - 0.5)
    return _colour(rng) + tuft + worn


def _tiles(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    tile = int(rng.integers(max(3, size // 8), max(4, size // 2)))
    down = (np.arange(size) + rng.integers(tile)) // tile
    across = (np.arange(size) + rng.integers(tile)) // tile
    shade = rng.normal(1, 0.05, size=(down[-1] + 1, across[-1] + 1)).astype(np.float32)
    floor: NDArray[np.float32] = _colour(rng) * shade[down][:, across][..., None]
    floor = floor + 0.08 * (_clouds(size, (8, 8), rng) - 0.5)
    joint = _colour(rng)
    floor[np.diff(down, prepend=down[0]) > 0] = joint
    floor[:, np.diff(across, prepend=across[0]) > 0] = joint
    return floor
