"""The decision rule: from scores to tags, and the thresholds it rests on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

UNCALIBRATED = 0.5


def predict(scores: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Return 0/1 decisions (B, tags) uint8: the tags that pass; where none does, the best one.

    The rule is the article's. A group of one tag has no other to prefer: there, none may pass.
    "Best" is the score that comes nearest to its threshold as a ratio,
    so that a tag with a low threshold is not at a disadvantage. `scores` is (B, tags) in 0..1.
    """
    limits = np.asarray(thresholds, dtype=np.float64)
    ratio = np.asarray(scores, dtype=np.float64) / limits
    passed = ratio >= 1.0
    silent = ~passed.any(axis=1) & (passed.shape[1] > 1)
    passed[silent, ratio[silent].argmax(axis=1)] = True
    return passed.astype(np.uint8)


def tags_of(decisions: np.ndarray, tags: Sequence[str]) -> list[tuple[str, ...]]:
    """Return for each row of decisions (B, tags) the tags that are on, in the group's order."""
    return [tuple(t for t, on in zip(tags, row, strict=True) if on) for row in decisions]
