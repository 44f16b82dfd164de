"""Plots of an evaluation: curves, calibration and confusions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve


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
            label = f"{_plain(tag)}: {area:.2f}, {int(truth[:, i].sum())} pictures have it"
            axes.step(recall, precision, where="post", label=label)
    axes.set(
        title=f"{_plain(title)}\nThe more of a tag is found, the more of what is found is wrong",
        xlabel="share of the pictures with the tag that is found (recall)",
        ylabel="share of what is found that is right (precision)",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    if measurable.any():
        about = {"title": "average precision of each tag", "fontsize": "small"}
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), **about)  # beside the curves
    return figure


def reliability(truth: np.ndarray, scores: np.ndarray, title: str) -> Figure:
    """Draw how often tags are true against their scores, over all tags of a group."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle=":", label="scores that mean what they say")
    if truth.size:
        often, score = calibration_curve(truth.ravel(), scores.ravel(), n_bins=10)
        axes.plot(score, often, marker="o", label="scores of this model")
    axes.set(
        title=f"{_plain(title)}\nHow often a tag is true, by its score",
        xlabel="score",
        ylabel="share of the pictures with this score that have the tag",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def confusions(truth: np.ndarray, predicted: np.ndarray, tags: Sequence[str], title: str) -> Figure:
    """Draw counts of the tag wrongly predicted (column) where another was missed (row)."""
    missed = ((truth == 1) & (predicted == 0)).astype(np.int64)
    wrong = ((truth == 0) & (predicted == 1)).astype(np.int64)
    counts = missed.T @ wrong
    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(counts, cmap="Blues")
    places = range(len(tags))
    words = [_plain(tag) for tag in tags]
    axes.set_xticks(places, words, rotation=45, ha="right")
    axes.set_yticks(places, words)
    axes.set(
        title=f"{_plain(title)}\nWhich tag was predicted where another was missed",
        xlabel="tag that was predicted, wrongly",
        ylabel="tag that was missed",
    )
    dark = counts.max(initial=0) / 2
    for row in places:
        for column in places:
            if counts[row, column]:
                color = "white" if counts[row, column] > dark else "black"
                axes.text(
                    column, row, str(counts[row, column]), ha="center", va="center",
                    color=color, fontsize="large",
                )  # fmt: skip
    return figure


def worst_first(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return rows ordered by how much the scores (N, tags) contradict the truth, worst first."""
    likelihood = np.where(truth == 1, scores, 1 - scores)
    return np.argsort(np.log(np.clip(likelihood, 1e-6, 1)).sum(axis=1), kind="stable")


def _plain(tag: str) -> str:
    """Return a tag as matplotlib shows it letter by letter: between dollars it expects formulas."""
    return tag.replace("$", r"\$")
