"""The decision rule: from scores and thresholds to tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNCALIBRATED = 0.5


def predict(
    scores: np.ndarray, thresholds: Sequence[float] | np.ndarray, none_below: float | None = None
) -> np.ndarray:
    """Return predictions (B, tags) uint8 of 0 and 1: the tags that pass, or else the best tag.

    The rule is the article's. A group of one tag has no best of several: there, none may pass.
    "Best" is the score nearest to its threshold as a ratio, so that a tag with a low threshold is
    not at a disadvantage. With `none_below`, the best tag has to have at least this score: a
    picture of which no tag passes may get none. `scores` is (B, tags) in 0..1, `thresholds` one
    per tag or (B, tags).
    """
    scores = np.asarray(scores, dtype=np.float64)
    ratio = scores / np.asarray(thresholds, dtype=np.float64)
    passed = ratio >= 1.0
    rows = np.flatnonzero(~passed.any(axis=1) & (passed.shape[1] > 1))
    best = ratio[rows].argmax(axis=1)
    if none_below is not None:
        enough = scores[rows, best] >= none_below
        rows, best = rows[enough], best[enough]
    passed[rows, best] = True
    return passed.astype(np.uint8)


def tags_of(predicted: np.ndarray, tags: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the predicted tags per row of (B, tags), in the group's order."""
    return [tuple(t for t, on in zip(tags, row, strict=True) if on) for row in predicted]
