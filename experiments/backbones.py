"""Cross-validate the recipe of params.yaml with several backbones, and time each.

    python -m experiments.backbones resnet18 timm:vit_base_patch14_dinov2

A backbone starts from its library's own weights, or from those after a `=`, as `train.weights`
names them: resnet18=data/weights/better.safetensors. The recipe stays but for what a head sees:
what a backbone does not have is left out, and the class token of its last layer is added. Prints a
row of a Markdown table per backbone.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from benchmarks.bundles import make_bundles

from shoetagger.config.params import Params, load
from shoetagger.inference.engine import Engine
from shoetagger.learning.training.images import transform_of
from shoetagger.network.backbone import pooled_of
from shoetagger.network.cut import cut_of
from shoetagger.network.layers import TOKEN
from shoetagger.network.weights import origin_of
from shoetagger.stages.command import progress, run

from .crossvalidate import FOLDS, cross_validate, task_of
from .markdown import head, line, number, with_interval
from .scoring import SHOWN_OTHERWISE, Rule, metrics
from .trainers import Recipe, Task

_HEAD = (
    "backbone", "licence", "macro F1 [95 %]", "average precision", "on other backgrounds",
    "shrunk to 0.7", "shrunk to 0.5", "pictures per second",
)  # fmt: skip
_BATCH, _SECONDS = 64, 10.0


def main(
    backbones: Annotated[list[str], typer.Argument(help="ARCH, or ARCH=WEIGHTS")],
    seeds: Annotated[str, typer.Option(help="seeds of the folds")] = "1,2",
    views: Annotated[int, typer.Option(help="augmented views per picture")] = 4,
) -> None:
    """Print the table; states and scores are kept in experiments/cache."""
    plain = load(Path("params.yaml"))
    groups = {group: spec.tags for group, spec in plain.groups.items()}
    rule = Rule(groups, plain.evaluate.min_positives, plain.evaluate.shrink)
    numbers = [int(seed) for seed in seeds.split(",")]
    typer.echo(head(*_HEAD[:3], *groups, *_HEAD[3:]))
    for named in backbones:
        arch, _, weights = named.partition("=")
        recipe = _recipe(plain, arch, weights or "pretrained", views)
        task = task_of(recipe)
        with progress(len(numbers) * FOLDS, arch) as bar:
            scored = [cross_validate(task, seed, FOLDS, bar.update) for seed in numbers]
        typer.echo(line(*_row(task, metrics(rule, task.truth, scored), groups)))


def _recipe(plain: Params, arch: str, weights: str, views: int) -> Recipe:
    """Return the recipe of params.yaml with another backbone, all of it frozen."""
    last, there = [*cut_of(arch).layers][-1], pooled_of(arch)
    changes: dict[str, Any] = {
        "train.arch": arch,
        "train.weights": weights,
        "train.freeze": last,
        "features.views": views,
    }
    for group in plain.groups:
        wanted = [name for name in plain.train_of(group).pooled if name in there]
        token = [last + TOKEN] if last + TOKEN in there else []
        changes[f"groups.{group}.train.pooled"] = [*wanted, *token]
    return Recipe("project", params=changes)


def _row(task: Task, found: dict[str, Any], groups: Sequence[str]) -> list[str]:
    train = task.params.train
    origin = origin_of(train.arch, train.weights)
    return [
        f"`{train.arch}`",
        (origin.license if origin else None) or "not stated",
        with_interval(found),
        *(number(found["groups_f1"][group]["macro_f1"]) for group in groups),
        number(found["mean_average_precision"]),
        *(number(found[part]["macro_f1"]) for part in SHOWN_OTHERWISE),
        f"{_rate(task):.1f}",
    ]


def _rate(task: Task) -> float:
    """Return the pictures per second of an engine with a bundle per group; weights are random."""
    params, transform = task.params, transform_of(task.params)
    pooled = [params.train_of(group).pooled for group in params.groups]
    with tempfile.TemporaryDirectory() as folder:
        layer, arch = params.train.freeze, params.train.arch
        bundles = make_bundles(Path(folder), len(pooled), layer, pooled, transform, arch)
        engine = Engine(bundles, str(task.device), params.tag.precision)
    side = transform.size
    batch = np.random.default_rng(0).integers(0, 256, (_BATCH, side, side, 3), dtype=np.uint8)
    engine.score({transform: batch[:8]})
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < _SECONDS:
        engine.score({transform: batch})
        done += len(batch)
    return done / (time.perf_counter() - started)


if __name__ == "__main__":
    run(main)
