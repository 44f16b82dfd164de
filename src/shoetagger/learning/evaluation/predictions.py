"""Predictions with the truth: their metrics and their table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from ...config.recipe import Evaluate
from ...inference.decision import UNCALIBRATED, predict
from . import metrics
from .abstention import abstention
from .calibration import calibrate


@dataclass(frozen=True)
class Predictions:
    """Truth and scores of N pictures, each (N, tags), and the rule by which they are predicted.

    `rows` (N,) are the pictures' rows in the group's table. `thresholds` is (tags,) or (N, tags);
    with `none_below`, a picture may get no tag: see `decision.predict`.
    """

    rows: np.ndarray
    truth: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray
    none_below: float | None = None

    @cached_property
    def predicted(self) -> np.ndarray:
        """The predictions (N, tags) of 0 and 1."""
        return predict(self.scores, self.thresholds, self.none_below)

    def report(self, tags: tuple[str, ...], rule: Evaluate, seed: int) -> dict[str, Any]:
        """Return the metrics, the macro F1 that thresholds of 0.5 would give, and abstentions."""
        measurable = metrics.measurable_tags(self.truth, rule.min_positives)
        at_half = predict(self.scores, (UNCALIBRATED,) * len(tags), self.none_below)
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
        return report | {
            "macro_f1_at_half": metrics.rounded(macro_f1),
            "none_of_these": abstention(
                self.truth, self.scores, self.thresholds, measurable, self.none_below
            ),
        }

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


def thresholds_of_other_folds(
    scores: np.ndarray, truth: np.ndarray, folds: np.ndarray, shrink: float
) -> np.ndarray:
    """Return thresholds (N, tags), each picture's calibrated on the folds that it is not in.

    `scores` and `truth` are (N, tags), `folds` (N,). So no threshold has seen what it is used on.
    """
    thresholds = np.empty(scores.shape)
    for fold in np.unique(folds):
        here = folds == fold
        thresholds[here], _ = calibrate(scores[~here], truth[~here], shrink)
    return thresholds
