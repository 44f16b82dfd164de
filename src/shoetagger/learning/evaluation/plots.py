"""Plots of an evaluation: curves, calibration, confusions and contact sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve

_RIGHT, _MISSED, _WRONG = "#1a7f37", "#57606a", "#cf222e"
SHEET_IMAGES = 36
_COLUMNS = 6
_SHEET_WORDS = 4  # below a picture


@dataclass(frozen=True)
class Shown:
    """A picture on a contact sheet: pixels (S, S, 3) uint8, true and predicted tags."""

    name: str
    pixels: np.ndarray
    true_tags: Sequence[str]
    predicted_tags: Sequence[str]


def precision_recall(
    truth: np.ndarray, scores: np.ndarray, tags: Sequence[str], measurable: np.ndarray, title: str
) -> Figure:
    """Draw a precision-recall curve for each measurable tag; inputs are (N, tags), (tags,)."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    for i, tag in enumerate(tags):
        if measurable[i]:
            precision, recall, _ = precision_recall_curve(truth[:, i], scores[:, i])
            area = average_precision_score(truth[:, i], scores[:, i])
            label = f"{_plain(tag)} {area:.2f} ({int(truth[:, i].sum())})"
            axes.step(recall, precision, where="post", label=label)
    axes.set(title=title, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    if measurable.any():
        about = {"title": "tag, average precision (positives)", "fontsize": "small"}
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), **about)  # beside the curves
    return figure


def reliability(truth: np.ndarray, scores: np.ndarray, title: str) -> Figure:
    """Draw how often tags are true against their scores, over all tags of a group."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="perfectly calibrated")
    if truth.size:
        often, score = calibration_curve(truth.ravel(), scores.ravel(), n_bins=10)
        axes.plot(score, often, marker="o", label="this model")
    axes.set(title=title, xlabel="score", ylabel="share that is true", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def confusions(truth: np.ndarray, predicted: np.ndarray, tags: Sequence[str], title: str) -> Figure:
    """Draw counts of the tag wrongly predicted (column) where another was missed (row)."""
    missed = ((truth == 1) & (predicted == 0)).astype(np.int64)
    wrong = ((truth == 0) & (predicted == 1)).astype(np.int64)
    counts = missed.T @ wrong
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(counts, cmap="Reds")
    places = range(len(tags))
    words = [_plain(tag) for tag in tags]
    axes.set_xticks(places, words, rotation=45, ha="right")
    axes.set_yticks(places, words)
    axes.set(title=title, xlabel="wrongly predicted", ylabel="missed")
    for row in places:
        for column in places:
            if counts[row, column]:
                axes.text(column, row, str(counts[row, column]), ha="center", va="center")
    return figure


def contact_sheet(shown: Sequence[Shown], title: str) -> Figure:
    """Draw pictures with their tags: right in green, wrong in red with +, missed in grey with -.

    At most SHEET_IMAGES are drawn, the first of `shown`.
    """
    chosen = shown[:SHEET_IMAGES]
    rows = max(1, -(-len(chosen) // _COLUMNS))
    figure = Figure(figsize=(_COLUMNS * 1.9, rows * 2.6 + 0.5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image in zip(grid.flat, chosen, strict=False):
        _draw(axes, image)
    return figure


def worst_first(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return rows ordered by how much the scores (N, tags) contradict the truth, worst first."""
    likelihood = np.where(truth == 1, scores, 1 - scores)
    return np.argsort(np.log(np.clip(likelihood, 1e-6, 1)).sum(axis=1), kind="stable")


def _draw(axes: Axes, image: Shown) -> None:
    axes.imshow(image.pixels)
    # Mistakes first: where there is no room for all words, tags that are right are left out.
    words = [(f"+{tag}", _WRONG) for tag in image.predicted_tags if tag not in image.true_tags]
    words += [(f"-{tag}", _MISSED) for tag in image.true_tags if tag not in image.predicted_tags]
    words += [(tag, _RIGHT) for tag in image.predicted_tags if tag in image.true_tags]
    for line, (word, color) in enumerate(words[:_SHEET_WORDS]):
        # Below the picture, one word per line: matplotlib gives a text one colour.
        axes.text(
            0.5, -0.03 - 0.12 * line, word, color=color, fontsize=8,
            ha="center", va="top", transform=axes.transAxes, parse_math=False,
        )  # fmt: skip


def _plain(tag: str) -> str:
    """Return a tag as matplotlib shows it letter by letter: between dollars it expects formulas."""
    return tag.replace("$", r"\$")
