"""Pairs of nearly equal pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...images.decode import Limits, open_image
from ...images.views import Transform, tagging_view

THUMBNAIL = 24  # pixels per side of the views that are compared
_CHUNK = 512  # pictures compared with all others at a time


def small_view(data: bytes, limits: Limits) -> np.ndarray:
    """Return a picture's view for `near_duplicates`, (S, S, 3) uint8."""
    image = open_image(data, limits, longest=THUMBNAIL)
    return tagging_view(image, Transform(size=THUMBNAIL))


def near_duplicates(
    views: np.ndarray, least: float, *, first: int | None = None
) -> Iterator[tuple[int, int, float]]:
    """Yield (i, j, correlation), i < j, of the views that correlate at least `least`.

    `views` are (N, S, S, 3) uint8; i is one of the `first` of them, if that is given. A view is
    compared with the mirror image of another as well.
    """
    flat = _standardised(views)
    mirrored = _standardised(views[:, :, ::-1])
    end = len(views) if first is None else first
    for start in range(0, end, _CHUNK):
        rows = flat[start : min(start + _CHUNK, end)]
        correlations = np.maximum(rows @ flat.T, rows @ mirrored.T)
        for row, j in zip(*np.nonzero(correlations >= least), strict=True):
            if start + row < j:
                yield int(start + row), int(j), float(correlations[row, j])


def _standardised(views: np.ndarray) -> np.ndarray:
    """Return views as rows of mean 0 and length 1, whose products are correlations."""
    flat = views.reshape(len(views), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    rows: np.ndarray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return rows
