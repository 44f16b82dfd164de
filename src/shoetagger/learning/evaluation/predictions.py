"""Predictions with the truth: their metrics and their table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...config.recipe import Evaluate
from ...inference.decision import UNCALIBRATED, predict
from . import metrics
from .calibration import calibrate


@dataclass(frozen=True)
class Predictions:
    """Truth, scores and predictions of N pictures, each array (N, tags).

    `rows` (N,) are the pictures' rows in the group's table.
    """

    rows: np.ndarray
    truth: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray

    def report(self, tags: tuple[str, ...], rule: Evaluate, seed: int) -> dict[str, Any]:
        """Return the metrics, and the macro F1 that thresholds of 0.5 would give."""
        measurable = metrics.measurable_tags(self.truth, rule.min_positives)
        at_half = predict(self.scores, (UNCALIBRATED,) * len(tags))
        report = metrics.report(
            self.truth,
            self.scores,
            self.predicted,
            tags,
            min_positives=rule.min_positives,
            bootstrap=rule.bootstrap,
            seed=seed,
        )
        macro_f1 = metrics.macro_f1(self.truth, at_half, measurable)
        return report | {"macro_f1_at_half": metrics.rounded(macro_f1)}

    def table(self, names: pd.Series[str], part: str, tags: tuple[str, ...]) -> pd.DataFrame:
        """Return a row per picture: image_name, part, then "true", "score" and "predicted" per tag.

        `names` are the image names of the group's table.
        """
        columns = {
            f"{what} {tag}": values[:, i]
            for what, values in (
                ("true", self.truth),
                ("score", self.scores),
                ("predicted", self.predicted),
            )
            for i, tag in enumerate(tags)
        }
        image_names = names.iloc[self.rows].to_numpy()
        return pd.DataFrame({"image_name": image_names, "part": part, **columns})


def predict_out_of_fold(
    scores: np.ndarray, truth: np.ndarray, folds: np.ndarray, shrink: float
) -> np.ndarray:
    """Return predictions (N, tags), each fold's by thresholds calibrated on the other folds.

    `scores` and `truth` are (N, tags), `folds` (N,). So no threshold has seen what it is used on.
    """
    predicted = np.zeros_like(truth)
    for fold in np.unique(folds):
        here = folds == fold
        thresholds, _ = calibrate(scores[~here], truth[~here], shrink)
        predicted[here] = predict(scores[here], thresholds)
    return predicted
