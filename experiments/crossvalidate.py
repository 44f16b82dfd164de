"""Cross-validate one recipe of recipes.yaml on the labelled pictures, over several seeds of folds.

    python -m experiments.crossvalidate probe 11,12,13 --out experiments/results/probe.json

With all five folds, thresholds are calibrated on the other folds; the first folds are evaluated at
0.5 as well, like the recipes that are run on those alone. Scores of a fold are kept in
experiments/cache, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from shoetagger.config.params import Params, load, parse
from shoetagger.config.settings import Settings
from shoetagger.config.strict import ParamsError
from shoetagger.images.decode import Limits, image_id, unreadable
from shoetagger.learning.dataset.folds import fold
from shoetagger.learning.dataset.labels import read_labels
from shoetagger.learning.dataset.sheet import find_sheet
from shoetagger.network.devices import pick_device
from shoetagger.stages.command import progress, run
from shoetagger.stages.mlflow_run import facts
from shoetagger.tracking.run import Tracker

from .scoring import SHOWN_OTHERWISE, Rule, Scored, differences, metrics, of_first_fold
from .trainers import CACHE, Recipe, Task, score

FOLDS = 5


def main(
    name: Annotated[str, typer.Argument(help="a recipe of recipes.yaml")],
    seeds: Annotated[str, typer.Argument(help="seeds of the folds: 11,12,13")],
    out: Annotated[Path, typer.Option(help="JSON file of the metrics to write")],
    folds: Annotated[int, typer.Option(help="how many of the five folds to evaluate")] = FOLDS,
    against: Annotated[str, typer.Option(help="a recipe to compare with")] = "",
) -> None:
    """Score the labelled pictures out of fold; write the metrics, and log them to MLflow."""
    params, recipe = load(Path("params.yaml")), recipe_of(name)
    task, numbers = task_of(recipe), [int(seed) for seed in seeds.split(",")]
    tasks = [task]
    if against not in ("", name):
        compared = recipe_of(against)
        tasks.append(dataclasses.replace(task, params=_params(compared), recipe=compared))
    with progress(len(tasks) * len(numbers) * folds, name) as bar:
        scored, *reference = (
            [cross_validate(each, seed, folds, bar.update) for seed in numbers] for each in tasks
        )
    # The article predicts at 0.5, and a single fold has no others to calibrate on.
    calibrated = recipe.kind != "article" and folds == FOLDS
    groups = {group: spec.tags for group, spec in params.groups.items()}
    at_half = Rule(groups, params.evaluate.min_positives, shrink=None)
    rule = dataclasses.replace(at_half, shrink=params.evaluate.shrink) if calibrated else at_half
    document = {
        "recipe": name,
        **dataclasses.asdict(recipe),
        "seeds": numbers,
        "folds": folds,
        "learned": round(float(np.mean([n for one in scored for n in one.learned]))),
        "seconds_per_fold": round(float(np.median([s for one in scored for s in one.seconds])), 2),
        **metrics(rule, task.truth, scored),
    }
    if folds == FOLDS:
        document["first_folds"] = metrics(at_half, task.truth, of_first_fold(scored))
    if reference:
        gain = differences(rule, task.truth, scored, reference[0])
        document["against"] = {"recipe": against, **gain}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    _log(name, document)
    typer.echo(f"{name}: macro F1 {document['macro_f1']} {document['macro_f1_interval']}")


@functools.cache
def _recipes() -> dict[str, dict[str, Any]]:
    document = yaml.safe_load(Path("experiments/recipes.yaml").read_text())
    recipes: dict[str, dict[str, Any]] = document["recipes"]
    return recipes


def recipe_of(name: str) -> Recipe:
    if name not in _recipes():
        raise ParamsError(f"no recipe {name!r}: there are {', '.join(_recipes())}")
    return Recipe(**_recipes()[name])


def _changed(plain: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    changed = copy.deepcopy(plain)
    tags = [(group, tag) for group in changed["groups"].values() for tag in group["tags"]]
    if recipe.groups == "one":
        changed["groups"] = {"all_tags": {"tags": [tag for _, tag in tags]}}
    if recipe.groups == "each_tag":
        changed["groups"] = {
            f"tag_{number}": {**group, "tags": [tag]} for number, (group, tag) in enumerate(tags)
        }
    for key, value in recipe.params.items():
        *parents, last = key.split(".")
        section = changed
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = value
    return changed


def _params(recipe: Recipe) -> Params:
    return parse(_changed(yaml.safe_load(Path("params.yaml").read_text()), recipe))


def task_of(recipe: Recipe) -> Task:
    params, data = _params(recipe), Path("data")
    limits = Limits.of(params.images)
    images = data / "images"
    labels = read_labels(
        find_sheet(data), images, params.tags, unreadable=lambda path: unreadable(path, limits)
    )
    paths = tuple(images / name for name in labels.names)
    ids = tuple(image_id(path.read_bytes()) for path in paths)
    columns = [labels.tags.index(tag) for tag in params.tags]
    truth = labels.matrix[:, columns].astype(np.uint8)
    device = pick_device(Settings.from_environment().device)
    return Task(paths, ids, truth, params, recipe, device)


def folds_of(task: Task, seed: int) -> np.ndarray:
    """Return the fold of each picture (N,), 0 to FOLDS - 1."""
    split = dataclasses.replace(task.params.split, seed=seed, folds=FOLDS)
    return np.array([fold(image_id, split) for image_id in task.ids])


def learned_by(task: Task, folds: np.ndarray, number: int) -> np.ndarray:
    """Return the rows that a recipe learns from while a fold is held out."""
    others = np.flatnonzero(folds != number)
    # Sorted by hash, which is as good as random: a small set is part of a larger one.
    return others[np.argsort([task.ids[row] for row in others])][: task.recipe.pictures]


def cross_validate(task: Task, seed: int, folds: int, done: Callable[[], Any]) -> Scored:
    of = folds_of(task, seed)
    scores = np.full((1 + len(SHOWN_OTHERWISE), *task.truth.shape), np.nan)
    seconds, pictures = [], []
    for number in range(folds):
        held, learned = np.flatnonzero(of == number), learned_by(task, of, number)
        file = CACHE / "scores" / task.key / f"{seed}-{number}.npz"
        if not file.exists():
            started = time.process_time()
            new = score(task, learned, held)
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, scores=new, seconds=time.process_time() - started)
        kept = np.load(file)
        scores[:, held] = kept["scores"]
        seconds.append(float(kept["seconds"]))
        pictures.append(len(learned))
        done()
    others = dict(zip(SHOWN_OTHERWISE, scores[1:], strict=True))
    return Scored(of, scores[0], others, tuple(seconds), tuple(pictures))


def _log(name: str, document: dict[str, Any]) -> None:
    settings = Settings.from_environment()
    tracker = Tracker(settings.tracking_uri, settings.outbox, settings.artifacts)
    described = {k: document[k] for k in ("kind", "groups", "pictures", "seeds", "folds")}
    values = {
        **document,
        "most_frequent_share": document["most_frequent_prediction"]["share"],
        **{f"{part}_macro_f1": document.get(part, {}).get("macro_f1") for part in SHOWN_OTHERWISE},
        **{f"macro_f1_{g}": f["macro_f1"] for g, f in document["groups_f1"].items()},
        **{f"f1_{tag}": f1 for tag, f1 in document["tags"].items()},
    }
    numbers = {name: value for name, value in values.items() if isinstance(value, float)}
    given = described | document["params"] | document["options"]
    with tracker.start(f"experiment {name}", tags=facts("experiment"), params=given) as tracked:
        tracked.log_metrics(numbers)
        tracked.log_dict("metrics.json", document)


if __name__ == "__main__":
    run(main)
