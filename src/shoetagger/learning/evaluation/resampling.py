"""F1 per tag, and its bootstrap intervals over resamples of the pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_INTERVAL = (2.5, 97.5)  # percentiles: the central 95 %


def f1_by_tag(
    truth: np.ndarray, predicted: np.ndarray, draws: np.ndarray | None = None
) -> np.ndarray:
    """Return the F1 of each tag (tags,), 0 where a tag is neither true nor predicted anywhere.

    `truth` and `predicted` are (N, tags) integers of 0 and 1. With `draws` (R, N), how often each
    picture is drawn in each of R resamples, returns the F1 of each resample, (R, tags).
    """
    # Written out here, and compared with scikit-learn's by a test: a thousand resamples per tag
    # through its checks of inputs would take minutes.
    counts = np.ones(len(truth), np.int64) if draws is None else draws
    positives = counts @ truth.astype(np.int64) + counts @ predicted.astype(np.int64)
    f1: np.ndarray = 2 * (counts @ (truth & predicted).astype(np.int64)) / np.maximum(positives, 1)
    return f1


def resampled_rows(count: int, times: int, seed: int) -> list[np.ndarray]:
    """Return `times` draws of as many rows as there are pictures (pictures,), with replacement."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, count, count) for _ in range(times)]


def resampled_counts(count: int, times: int, seed: int) -> np.ndarray:
    """Return how often each picture is drawn, (times, pictures); no row without pictures.

    Quicker than rows for what is computed from sums, such as F1.
    """
    if not count:
        return np.zeros((0, 0), np.int64)
    return np.random.default_rng(seed).multinomial(count, [1 / count] * count, times)


def central_interval(values: Sequence[float] | np.ndarray) -> tuple[float, float] | None:
    """Return the limits of the central 95 % of the values; None without values."""
    if not len(values):
        return None
    low, high = np.percentile(values, _INTERVAL)
    return float(low), float(high)
