"""The model card of a version: what it knows, how far to trust each tag, where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..learning.evaluation.documents import macro_f1_in_words
from .report import escaped

LONGEST = 5000  # characters, as MLflow's databases have it
_MISTAKES = 5
_SCALE = 1e-6  # scores are clipped to this from 0 and 1


def model_card(
    group: str,
    tags: Sequence[str],
    metrics: Mapping[str, Any],
    predictions: pd.DataFrame,
    split: pd.DataFrame,
    origin: Mapping[str, str],
    warning: str | None = None,
) -> str:
    """Return the card in Markdown, at most LONGEST characters.

    `metrics` is the document and `predictions` the table that `evaluate` wrote, `split` the group's
    table of that commit; `origin` names where the version came from, such as its git commit;
    `warning` comes first, such as what a licence forbids.
    """
    part = "crossval" if metrics["crossval"] else "validation"
    table = predictions[predictions["part"] == part]
    learned = split[split["side"] == "train"]
    lines = [f"Tags pictures with the tags of the group **{escaped(group)}**.", ""]
    if warning:
        lines += [f"**{escaped(warning[0].upper() + warning[1:])}.**", ""]
    lines += [f"- {name}: `{value}`" for name, value in origin.items() if value]
    lines += [f"- {sentence}" for sentence in _quality(metrics)]
    pictures = table["image_name"].nunique()
    lines += ["", f"How far to trust each tag, on the {pictures} pictures {_WHERE[part]}:", ""]
    lines += [f"- {trust(tag, table, learned)}" for tag in tags]
    if mistakes := _mistakes(table[table["repeat"] == 0], tags):
        lines += ["", "The worst mistakes among them:", "", *mistakes]
    lines += ["", "A picture that shows nothing of the kind is tagged all the same."]
    return _bounded(lines)


_WHERE = {
    "crossval": "that it was cross-validated with",
    "validation": "of the validation side",
}


def trust(tag: str, table: pd.DataFrame, learned: pd.DataFrame) -> str:
    """Say in words how far a tag can be trusted, such as "right in 6 of 10; learned from 17".

    `table` has the columns "repeat", "true <tag>" and "predicted <tag>"; of several repeats, the
    numbers are means. `learned` are the pictures that the model was trained on.
    """
    true, predicted = (table[f"{what} {tag}"].to_numpy() == 1 for what in ("true", "predicted"))
    counts = (int(cells.sum()) for cells in (true & predicted, predicted, true))
    hits, given, there = (round(count / table["repeat"].nunique()) for count in counts)
    right = f"right in {hits} of {given}" if given else "never predicted"
    found = f", found {hits} of {there}" if there else ", and none of the pictures has it"
    return f"**{escaped(tag)}**: {right}{found}; learned from {int(learned[tag].sum())}"


def _quality(metrics: Mapping[str, Any]) -> list[str]:
    found = []
    for part, where in (("crossval", "out of fold"), ("validation", "on the validation side")):
        report = metrics[part]
        if report and isinstance(report["macro_f1"], int | float):
            macro_f1, pictures = escaped(macro_f1_in_words(report)), report["pictures"]
            found.append(f"macro F1 {where}: {macro_f1}, {pictures} pictures")
    return found


def _mistakes(table: pd.DataFrame, tags: Sequence[str]) -> list[str]:
    """Return the pictures whose scores contradict the truth most, the worst first."""
    true, scores, predicted = (
        table[[f"{what} {tag}" for tag in tags]].to_numpy(dtype=float)
        for what in ("true", "score", "predicted")
    )
    likelihood = np.log(np.clip(np.where(true == 1, scores, 1 - scores), _SCALE, 1)).sum(axis=1)
    wrong = (true != predicted).any(axis=1)
    worst = [row for row in np.argsort(likelihood, kind="stable") if wrong[row]][:_MISTAKES]
    names = table["image_name"].to_numpy()
    return [
        f"- {escaped(str(names[row]))}: {_listed(predicted[row], tags)} instead of "
        f"{_listed(true[row], tags)}"
        for row in worst
    ]


def _listed(row: np.ndarray, tags: Sequence[str]) -> str:
    chosen = [escaped(tag) for tag, on in zip(tags, row, strict=True) if on == 1]
    return ", ".join(chosen) or "nothing"


def _bounded(lines: Sequence[str]) -> str:
    """Return the lines as one text; where they are too long, it ends with an ellipsis."""
    text = "\n".join(lines)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 2]}\n\N{HORIZONTAL ELLIPSIS}"
