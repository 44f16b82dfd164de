"""The decision rule: from scores and thresholds to tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNCALIBRATED = 0.5


def predict(scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Return predictions (B, tags) uint8 of 0 and 1: the tags that pass, or else the best tag.

    The rule is the article's. A group of one tag has no best of several: there, none may pass.
    "Best" is the score nearest to its threshold as a ratio, so that a tag with a low threshold is
    not at a disadvantage. `scores` is (B, tags) in 0..1.
    """
    limits = np.asarray(thresholds, dtype=np.float64)
    ratio = np.asarray(scores, dtype=np.float64) / limits
    passed = ratio >= 1.0
    none_passed = ~passed.any(axis=1) & (passed.shape[1] > 1)
    passed[none_passed, ratio[none_passed].argmax(axis=1)] = True
    return passed.astype(np.uint8)


def tags_of(predicted: np.ndarray, tags: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the predicted tags per row of (B, tags), in the group's order."""
    return [tuple(t for t, on in zip(tags, row, strict=True) if on) for row in predicted]
