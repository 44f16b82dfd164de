"""Tables that `dvc plots` draws by its own templates, with several revisions in one plot."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_curve

from .documents import NOT_MEASURABLE

NOTHING = "(none)"  # no tag was missed, or none predicted wrongly
_POINTS = 100  # of the curve


def write_tags(tags: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write the metrics of each tag; one that is not measurable has no bar, not one at 0."""
    columns = ("support", "precision", "recall", "f1")
    rows = [[report[column] for column in columns] for report in tags.values()]
    cells = [["" if value == NOT_MEASURABLE else value for value in row] for row in rows]
    _write(path, ("tag", *columns), ([tag, *row] for tag, row in zip(tags, cells, strict=True)))


def write_confusions(
    truth: np.ndarray, predicted: np.ndarray, tags: Sequence[str], path: Path
) -> None:
    """Write a row per true and predicted tag of a picture: each hit, and each mistake.

    A tag that was missed meets each tag that was predicted wrongly on the same picture, or nothing.
    `truth` and `predicted` are (N, tags) 0/1.
    """

    def pairs() -> Iterable[tuple[str, str]]:
        for true, given in zip(truth.astype(bool), predicted.astype(bool), strict=True):
            yield from ((tag, tag) for tag in compress(tags, true & given))
            missed = list(compress(tags, true & ~given))
            wrong = list(compress(tags, ~true & given))
            if missed or wrong:
                yield from ((m, w) for m in missed or [NOTHING] for w in wrong or [NOTHING])

    _write(path, ("actual", "predicted"), pairs())


def write_precision_recall(truth: np.ndarray, scores: np.ndarray, path: Path) -> None:
    """Write the precision-recall curve over all tags of a group alike; inputs are (N, tags)."""
    rows: list[tuple[float, float]] = []
    if truth.any():
        precision, recall, _ = precision_recall_curve(truth.ravel(), scores.ravel())
        chosen = np.unique(np.linspace(0, len(recall) - 1, _POINTS).astype(int))
        rows = [(round(float(recall[i]), 4), round(float(precision[i]), 4)) for i in chosen[::-1]]
    _write(path, ("recall", "precision"), rows)


def write_reliability(truth: np.ndarray, scores: np.ndarray, path: Path) -> None:
    """Write how often tags are true, by their scores, over all tags; inputs are (N, tags)."""
    rows: list[tuple[float, float]] = []
    if truth.size:
        often, score = calibration_curve(truth.ravel(), scores.ravel(), n_bins=10)
        pairs = zip(score, often, strict=True)
        rows = [(round(float(s), 4), round(float(share), 4)) for s, share in pairs]
    _write(path, ("score", "share_true"), rows)


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
