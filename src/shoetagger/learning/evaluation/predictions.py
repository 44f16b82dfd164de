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
    """Truth and scores of N pictures, and the rule by which they are predicted.

    `rows` (N,) are the pictures' rows in the group's table, `truth` is (N, tags), and `scores` are
    (repeats, N, tags), from as many cross-validations; one for what no cross-validation scored.
    `thresholds` is (tags,) or as the scores; with `none_below`, a picture may get no tag: see
    `decision.predict`.
    """

    rows: np.ndarray
    truth: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray
    none_below: float | None = None

    @cached_property
    def predicted(self) -> np.ndarray:
        """The predictions (repeats, N, tags) of 0 and 1."""
        return self._predict(self.thresholds, self.none_below)

    def report(self, tags: tuple[str, ...], rule: Evaluate, seed: int) -> dict[str, Any]:
        """Return the metrics, the macro F1 that thresholds of 0.5 would give, and abstentions."""
        measurable = metrics.measurable_tags(self.truth, rule.min_positives)
        at_half = self._predict(np.full(len(tags), UNCALIBRATED), self.none_below)
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
                self.truth,
                lambda bound: self._predict(self.thresholds, bound),
                measurable,
                self.none_below,
            ),
        }

    def table(self, names: pd.Series[str], part: str, tags: tuple[str, ...]) -> pd.DataFrame:
        """Return a row per repeat and picture: image_name, part, repeat, then the tags' columns.

        These are "true", "score" and "predicted" per tag; `names` are the image names of the
        group's table.
        """
        image_names = names.iloc[self.rows].to_numpy()
        tables = []
        for repeat, (scores, predicted) in enumerate(zip(self.scores, self.predicted, strict=True)):
            columns = {
                f"{what} {tag}": values[:, i]
                for what, values in (
                    ("true", self.truth),
                    ("score", scores),
                    ("predicted", predicted),
                )
                for i, tag in enumerate(tags)
            }
            described = {"image_name": image_names, "part": part, "repeat": repeat}
            tables.append(pd.DataFrame({**described, **columns}))
        return pd.concat(tables)

    def _predict(self, thresholds: np.ndarray, none_below: float | None) -> np.ndarray:
        of = np.broadcast_to(thresholds, self.scores.shape)
        each = zip(self.scores, of, strict=True)
        return np.stack([predict(scores, limits, none_below) for scores, limits in each])


def thresholds_of_other_folds(
    scores: np.ndarray, truth: np.ndarray, folds: np.ndarray, shrink: float
) -> np.ndarray:
    """Return thresholds (repeats, N, tags), calibrated on the pictures that are not in one's fold.

    `scores` are (repeats, N, tags), `truth` (N, tags), `folds` (repeats, N). The other pictures
    count with the scores of all repeats; so no threshold has seen what it is used on.
    """
    thresholds = np.empty(scores.shape)
    for repeat, numbers in enumerate(folds):
        for fold in np.unique(numbers):
            here = numbers == fold
            thresholds[repeat, here], _ = calibrate(scores[:, ~here], truth[~here], shrink)
    return thresholds
