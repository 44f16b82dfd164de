"""Thresholds from out-of-fold scores."""

from __future__ import annotations

import numpy as np

from ...errors import ShoetaggerError
from ...inference.decision import UNCALIBRATED
from .resampling import resampled_rows

# A threshold outside this range would predict its tag (nearly) always or (nearly) never.
_LOWEST, _HIGHEST = 0.05, 0.95
_RESAMPLES = 50


def calibrate(
    scores: np.ndarray, truth: np.ndarray, shrink: float
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return a threshold per tag, and the number of positives it was calibrated on.

    `scores` in 0..1 must be out of fold, `truth` is 0/1; both are (N, tags), or the scores are
    (repeats, N, tags). The threshold of a tag with n positives is the one with the best F1, as the
    mean over resamples of the pictures (bagging; Breiman, 1996), shrunk towards 0.5 by
    shrink / (n + shrink), because few positives place it at random. Both are computed in log-odds.
    A resample has all the scores of its pictures, and repeats add nothing to n: a picture is one
    fact, however often it is scored.
    """
    repeats = scores if scores.ndim == 3 else scores[None]
    if repeats.shape[1:] != truth.shape:
        raise ShoetaggerError(f"scores {scores.shape} and truth {truth.shape} differ in shape")
    resamples = resampled_rows(len(truth), _RESAMPLES, seed=0)
    thresholds, support = [], []
    for tag, positives in enumerate(truth.T.astype(bool)):
        column, n = repeats[:, :, tag].astype(np.float64), int(positives.sum())
        best = np.array(
            [
                _best_f1(column[:, rows].ravel(), np.tile(positives[rows], len(repeats)))
                for rows in resamples
            ]
        )
        trust = n / (n + shrink) if n else 0.0
        log_odds = trust * np.log(best / (1 - best)).mean()
        thresholds.append(round(float(1 / (1 + np.exp(-log_odds))), 4))
        support.append(n)
    return tuple(thresholds), tuple(support)


def _best_f1(scores: np.ndarray, positives: np.ndarray) -> float:
    """Return the threshold with the highest F1; of equally good ones, the nearest to 0.5.

    Without a positive all are equally good.
    """
    if not positives.any():
        return UNCALIBRATED
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    true_positives = np.cumsum(positives[order])
    predicted = np.arange(1, len(ranked) + 1)
    f1 = 2 * true_positives / (predicted + true_positives[-1])
    cuts = (ranked + np.append(ranked[1:], 0.0)) / 2
    between = np.append(ranked[1:] < ranked[:-1], True)  # no cut separates equal scores
    best = cuts[between & (f1 >= f1[between].max() - 1e-12)]
    return float(np.clip(best[np.abs(best - UNCALIBRATED).argmin()], _LOWEST, _HIGHEST))
