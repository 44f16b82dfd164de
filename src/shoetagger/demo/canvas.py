"""The canvas that shoes are painted on, with blur, shading and noise of arrays of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .shapes import Array, Color

OVERSAMPLING = 3  # times as large per side while drawing; reduced at the end, for smooth edges


class Canvas:
    """An enlarged picture, or a window of it: float32 (H, W, 3) in 0..1, painted from the back."""

    def __init__(self, pixels: Array, left: int = 0, top: int = 0) -> None:
        self.pixels = pixels
        self._corner = np.array([left, top])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in enlarged pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def window(self, curves: Sequence[Array], margin: float) -> Canvas:
        """Return the part around some curves, whose pixels are shared with this canvas."""
        points = np.concatenate(curves) - self._corner
        left, top = np.clip(points.min(axis=0) - margin, 0, self.size).astype(int)
        right, bottom = np.clip(points.max(axis=0) + margin + 2, 2, self.size).astype(int)
        left, top = min(left, right - 2), min(top, bottom - 2)
        inner = self.pixels[top:bottom, left:right]
        return Canvas(inner, left + int(self._corner[0]), top + int(self._corner[1]))

    def area(self, outlines: Iterable[Array]) -> Array:
        """Return the mask (H, W) of filled outlines, 0 or 1."""
        mask = Image.new("L", self.size)
        draw = ImageDraw.Draw(mask)
        for outline in outlines:
            draw.polygon([(float(x), float(y)) for x, y in outline - self._corner], fill=255)
        return np.asarray(mask, dtype=np.float32) / 255

    def lines(self, curves: Iterable[Array], width: float) -> Array:
        """Return the mask (H, W) of lines with round ends, `width` in pixels."""
        mask = Image.new("L", self.size)
        draw = ImageDraw.Draw(mask)
        for line in curves:
            points = [(float(x), float(y)) for x, y in line - self._corner]
            draw.line(points, fill=255, width=max(1, round(width)), joint="curve")
            for x, y in (points[0], points[-1]):
                r = width / 2
                draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return np.asarray(mask, dtype=np.float32) / 255

    def paint(self, mask: Array, color: Color | Array, opacity: float = 1.0) -> None:
        alpha = (mask * opacity)[..., None]
        self.pixels += (np.asarray(color, dtype=np.float32) - self.pixels) * alpha

    def darken(self, mask: Array, amount: float) -> None:
        self.pixels *= 1 - amount * mask[..., None]

    def image(self) -> Image.Image:
        pixels = (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
        return Image.fromarray(pixels).reduce(OVERSAMPLING)


def _resize(field: Array, width: int, height: int) -> Array:
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def blur(field: Array, radius: float) -> Array:
    """Blur a mask (H, W) by about `radius` pixels."""
    height, width = field.shape
    step = int(radius / 4)
    if step < 2:  # Pillow's is quick, but its 256 levels would show in a wide blur's slope
        image = Image.fromarray((np.clip(field, 0, 1) * 255 + 0.5).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255
    small = _resize(field, max(1, width // step), max(1, height // step))
    reach = max(1, round(radius / step))
    for axis in (0, 1):
        for _ in range(3):
            pad = [(reach + 1, reach) if a == axis else (0, 0) for a in (0, 1)]
            total = np.cumsum(np.pad(small, pad, mode="edge"), axis=axis, dtype=np.float64)
            ends = np.take(total, range(2 * reach + 1, total.shape[axis]), axis=axis)
            starts = np.take(total, range(total.shape[axis] - 2 * reach - 1), axis=axis)
            small = ((ends - starts) / (2 * reach + 1)).astype(np.float32)
    return _resize(small, width, height)


def noise(shape: tuple[int, ...], cell: float, rng: np.random.Generator) -> Array:
    """Return smooth noise (H, W) of about -1..1 whose bumps are `cell` pixels wide."""
    height, width = shape[:2]
    coarse = rng.normal(0, 0.6, (int(height / cell) + 3, int(width / cell) + 3))
    return _resize(coarse, width, height)


def shading(mask: Array, radius: float) -> Array:
    """Return an area's shading (H, W) as if it bulged, lit from the upper left: about -1..1."""
    down, right = np.gradient(blur(mask, radius))
    lit: Array = (0.5 * right + 0.87 * down) * radius * 2.2
    return lit


def dashes(curve: Array, dash: float, gap: float) -> list[Array]:
    """Cut a curve into stitches."""
    steps = np.hypot(*np.diff(curve, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    starts = np.arange(gap, along[-1] - dash, dash + gap)
    ends = np.stack([starts, starts + dash], axis=1)
    return [np.stack([np.interp(e, along, curve[:, i]) for i in (0, 1)], axis=1) for e in ends]


def points_along(curve: Array, distance: float) -> Array:
    """Return points (N, 2) at equal distances on a curve."""
    return np.array([dash.mean(axis=0) for dash in dashes(curve, distance * 0.5, distance * 0.5)])
