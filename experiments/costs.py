"""What tagging and one more tag cost with one network, one per group and one per tag.

    python -m experiments.costs loafer --out experiments/results/many/costs.json

Networks learn from the first pictures that are not in the first fold; the pictures of that fold
show whether the other tags change. All times are seconds of CPU on one thread: a machine that
others use as well has no other clock.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import torch
import typer

from shoetagger.config.params import load
from shoetagger.images.views import Transform
from shoetagger.inference.decision import UNCALIBRATED
from shoetagger.learning.training.examples import Examples
from shoetagger.network.backbone import TagModel, begin
from shoetagger.network.layers import frozen_layers, trained_layers
from shoetagger.stages.command import run

from .crossvalidate import folds_of, learned_by, recipe_of, task_of
from .trainers import Task, fit_and_score, learning_states

_BATCH, _ROUNDS = 16, 3
NETWORKS = {"one": 1, "three": 3, "nineteen": 19}
_RECIPES = {"frozen": "one_100", "last stage": "one_last_stage_100"}


def main(
    tag: Annotated[str, typer.Argument(help="the tag that is added")],
    out: Annotated[Path, typer.Option(help="JSON file to write")],
    seed: Annotated[int, typer.Option(help="of the folds")] = 11,
) -> None:
    """Measure both, and write them."""
    torch.set_num_threads(1)
    tasks = {name: task_of(recipe_of(recipe)) for name, recipe in _RECIPES.items()}
    document = {
        "tag": tag,
        "pictures": tasks["frozen"].recipe.pictures,
        "tagging": _tagging(tasks["frozen"]),
        "adding": {
            f"{networks}, {name}": _adding(task, tag, networks, seed)
            for name, task in tasks.items()
            for networks in NETWORKS
        },
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    typer.echo(json.dumps(document, indent=1))


def _tagging(task: Task) -> dict[str, float]:
    """Return the seconds per 1,000 pictures by what is shared between how many networks."""
    dataset = task.dataset(task.params.images.augment)
    views = torch.from_numpy(np.stack([dataset.plain(row) for row in range(_BATCH)]))
    arrangements: dict[str, Callable[[], None]] = {}
    for arch, freezes in (("resnet18", ("layer4", "layer3", "none")), ("resnet50", ("layer4",))):
        model = TagModel(arch, len(task.params.tags), task.params.train_of("all_tags").pooled)
        model.eval().to(memory_format=torch.channels_last)
        for freeze in freezes:
            for networks, times in NETWORKS.items():
                name = f"{arch}, {networks}, shared to {freeze}"
                arrangements[name] = partial(_tag, model, dataset.transform, views, freeze, times)
    taken: dict[str, list[float]] = {name: [] for name in arrangements}
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            for name, tag_batch in arrangements.items():
                started = time.process_time()
                tag_batch()
                taken[name].append((time.process_time() - started) / _BATCH * 1000)
    return {name: round(median(seconds), 1) for name, seconds in taken.items()}


def _tag(
    model: TagModel, transform: Transform, views: torch.Tensor, freeze: str, times: int
) -> None:
    """Run the frozen layers once, and what comes after them as often as there are networks."""
    shared, rest = frozen_layers(model.layers, freeze), trained_layers(model.layers, freeze)
    state = model.run(begin(views, transform, model.pooled), shared)
    for _ in range(times):
        model.finish(model.run(state, rest))


def _adding(task: Task, tag: str, networks: str, seed: int) -> dict[str, Any]:
    """Learn with the tag and without it: how long the first takes, and what else changes.

    Only networks that have the tag learn: another one stays as it is.
    """
    plain = load(Path("params.yaml"))
    group = next(spec.tags for spec in plain.groups.values() if tag in spec.tags)
    learning = {"one": task.params.tags, "three": group, "nineteen": (tag,)}[networks]
    folds = folds_of(task, seed)
    held, learned = np.flatnonzero(folds == 0), learned_by(task, folds, 0)
    started = time.process_time()
    with_it = _scores(task, learning, learned, held)
    found: dict[str, Any] = {"seconds": round(time.process_time() - started, 2)}
    before = [other for other in learning if other != tag]
    if before:
        kept = with_it[:, [learning.index(other) for other in before]]
        flipped = (kept >= UNCALIBRATED) != (_scores(task, before, learned, held) >= UNCALIBRATED)
        found["pictures_changed"] = round(float(flipped.any(axis=1).mean()), 4)
    return found


def _scores(task: Task, tags: Sequence[str], learned: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Learn some tags from some pictures; return the scores of others (held, tags)."""
    columns = [task.params.tags.index(tag) for tag in tags]
    examples = Examples(learned, task.truth[np.ix_(learned, columns)])
    return fit_and_score(task, "all_tags", learning_states(task, "all_tags"), examples, held)


if __name__ == "__main__":
    run(main)
