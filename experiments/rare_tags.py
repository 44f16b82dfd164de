"""What helps tags with few positives: weights, penalties and thresholds, in cross-validation.

    python -m experiments.rare_tags studded,heel --out experiments/results/many/rare_tags.json

Heads are fitted by products of pictures (`kernel_heads`), which see the tagging views alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from sklearn.metrics import average_precision_score

from shoetagger.inference.decision import UNCALIBRATED, predict
from shoetagger.learning.evaluation.predictions import thresholds_of_other_folds
from shoetagger.learning.evaluation.resampling import f1_by_tag
from shoetagger.stages.command import progress, run

from . import kernel_heads
from .crossvalidate import folds_of, recipe_of, task_of
from .trainers import Task, learning_states

# train.positive_weight and train.head_l2.
_HEADS: Mapping[str, tuple[float, float]] = {
    "as it is": (3.0, 1e-4),
    "positives weigh 1": (1.0, 1e-4),
    "positives weigh up to 10": (10.0, 1e-4),
    "positives weigh up to 30": (30.0, 1e-4),
    "a tenth of the penalty": (3.0, 1e-5),
    "ten times the penalty": (3.0, 1e-3),
    "a hundred times the penalty": (3.0, 1e-2),
}
_SHRINK = (0.0, 5.0, 20.0)  # evaluate.shrink of calibrated thresholds


def main(
    tags: Annotated[str, typer.Argument(help="tags, separated by commas")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    recipe: Annotated[str, typer.Option(help="recipe of recipes.yaml")] = "three",
    seeds: Annotated[str, typer.Option(help="of the folds")] = "11",
) -> None:
    """Write, for each head, the average precision of the tags, and F1 by kinds of thresholds."""
    task, numbers = task_of(recipe_of(recipe)), [int(seed) for seed in seeds.split(",")]
    wanted, document = tags.split(","), dict[str, Any]()
    groups = [name for name, spec in task.params.groups.items() if {*wanted} & {*spec.tags}]
    with progress(len(_HEADS) * len(numbers) * len(groups), "rare tags") as bar:
        for group in groups:
            products, truth = _products(task, group), task.truth[:, task.columns[group]]
            for head, (most, l2) in _HEADS.items():
                found = []
                for seed in numbers:
                    folds = folds_of(task, seed)
                    scores = _out_of_fold(products, truth, folds, most=most, l2=l2)
                    found.append(_measured(scores, truth, folds))
                    bar.update()
                mean = {k: np.mean([one[k] for one in found], axis=0) for k in found[0]}
                for column, tag in enumerate(task.params.group(group).tags):
                    if tag in wanted:
                        values = {k: round(float(v[column]), 4) for k, v in mean.items()}
                        document.setdefault(tag, {})[head] = values
            for column, tag in enumerate(task.params.group(group).tags):
                if tag in wanted:
                    document[tag]["positives"] = int(truth[:, column].sum())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    typer.echo(json.dumps(document, indent=1))


def _products(task: Task, group: str) -> np.ndarray:
    pooled = learning_states(task, group).plain(np.arange(len(task.ids))).pooled
    names = task.params.train_of(group).pooled
    return kernel_heads.products({name: pooled[name].numpy() for name in names})


def _out_of_fold(
    products: np.ndarray, truth: np.ndarray, folds: np.ndarray, *, most: float, l2: float
) -> np.ndarray:
    scores = np.empty(truth.shape)
    for number in np.unique(folds):
        learned, held = np.flatnonzero(folds != number), np.flatnonzero(folds == number)
        scores[held] = kernel_heads.fit_and_score(
            products, truth[learned], learned, held, l2=l2, most=most
        )
    return scores


def _measured(scores: np.ndarray, truth: np.ndarray, folds: np.ndarray) -> dict[str, np.ndarray]:
    """Return arrays (tags,): average precision, and F1 at 0.5 and by calibrated thresholds."""
    tags = range(truth.shape[1])
    precisions = [average_precision_score(truth[:, tag], scores[:, tag]) for tag in tags]
    at_half = predict(scores, [UNCALIBRATED] * truth.shape[1])
    measured = {"average_precision": np.array(precisions), "at_half": f1_by_tag(truth, at_half)}
    for shrink in _SHRINK:
        limits = thresholds_of_other_folds(scores[None], truth, folds[None], shrink)[0]
        measured[f"shrink_{shrink:g}"] = f1_by_tag(truth, predict(scores, limits))
    return measured


if __name__ == "__main__":
    run(main)
