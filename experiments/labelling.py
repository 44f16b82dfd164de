"""What is the queue worth? Plays a labeller who answers from a sheet that is finished already.

    python -m experiments.labelling DATA ARRIVALS ANSWERS --out experiments/labelling.json

It starts from the pictures of DATA (images/ and a label sheet). A way of choosing takes some of the
ARRIVALS, ANSWERS (a label sheet of theirs) says what is right, the models learn from both, and so
on. An arrival without a row shows no shoe: looking at it is lost work. A third of the arrivals is
never asked for but measured on: seeds 0, 1 and 2 rotate the thirds, so that each is measured on
once, and so do 3, 4 and 5 with other thirds, and so on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from matplotlib.figure import Figure

from shoetagger.config.params import Params, load
from shoetagger.config.recipe import Split
from shoetagger.images.decode import Limits, image_id, unreadable
from shoetagger.inference.decision import predict
from shoetagger.learning.dataset.folds import fold
from shoetagger.learning.dataset.labels import read_labels
from shoetagger.learning.dataset.sheet import find_sheet
from shoetagger.learning.dataset.split import SIDES, side
from shoetagger.learning.evaluation.calibration import calibrate
from shoetagger.learning.evaluation.metrics import interval, macro_f1, measurable_tags, rounded
from shoetagger.learning.evaluation.resampling import f1_by_tag, resampled_rows
from shoetagger.learning.training.examples import Examples
from shoetagger.review.choosing import TagFacts, fixed_ids
from shoetagger.stages.command import run

from . import kernel_heads
from .strategies import STRATEGIES, Round
from .trainers import (
    CACHE,
    Recipe,
    Task,
    digest,
    fit_and_score,
    learning_states,
    sources,
    states,
)  # fmt: skip

_THIRDS = 3
_BATCH = 50  # labels from which the queue is chosen again
_RESAMPLES = 400
_FEATURE = "layer4_contrast"  # by which `k_center` spreads


@dataclass(frozen=True)
class Pictures:
    """All pictures, rows of `task`; `arrived` and `answered` are (N,) bool.

    `features` (N, width) are for spreading by, `products` are (N, N), by what a group's head sees.
    `whole`: heads are fitted as the stage `train` does, to all views.
    """

    task: Task
    arrived: np.ndarray
    answered: np.ndarray
    features: np.ndarray
    products: Mapping[tuple[str, ...], np.ndarray]
    whole: bool = False


@dataclass(frozen=True)
class Measured:
    """What models say after some labels: predictions (N, tags), zero where nothing was predicted.

    `parts` are the rows that were measured on, by name.
    """

    predicted: np.ndarray
    parts: dict[str, np.ndarray]
    labels: int
    no_shoes: int
    positives: list[int]


def main(
    data: Annotated[Path, typer.Argument(help="folder with images/ and a label sheet")],
    arrivals: Annotated[Path, typer.Argument(help="folder of pictures to choose from")],
    answers: Annotated[Path, typer.Argument(help="label sheet of the arrivals that show shoes")],
    out: Annotated[Path, typer.Option(help="JSON file to write, and a plot beside it")],
    sizes: Annotated[str, typer.Option(help="labels after which to train")] = "50,100,200,400",
    ways: Annotated[str, typer.Option(help="of choosing; all by default")] = ",".join(STRATEGIES),
    seeds: Annotated[str, typer.Option(help="which thirds to measure on")] = "0,1,2,3,4,5,6,7,8",
    whole: Annotated[bool, typer.Option(help="fit to all views, as `train` does; slow")] = False,
) -> None:
    """Play the labeller; write what each way of choosing is worth. What was played is kept."""
    torch.set_num_threads(1)
    pictures = _pictures(load(Path("params.yaml")), data, arrivals, answers, whole=whole)
    steps = [int(size) for size in sizes.split(",")]
    played: dict[str, list[dict[int, Measured]]] = {}
    for way in ways.split(","):
        for seed in map(int, seeds.split(",")):
            played.setdefault(way, []).append(_play(pictures, way, seed, steps))
            typer.echo(f"{way}, seed {seed}: played")
    document = _document(pictures, played, [0, *steps])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=1) + "\n")
    _draw(document, out.with_suffix(".png"))
    for way, by_size in document["ways"].items():
        typer.echo(f"{way}: {[by_size[str(n)]['arrivals']['macro_f1'] for n in [0, *steps]]}")


def _pictures(
    params: Params, data: Path, arrivals: Path, answers: Path, *, whole: bool
) -> Pictures:
    limits = Limits.of(params.images)

    def read(sheet: Path, images: Path) -> tuple[list[Path], np.ndarray]:
        labels = read_labels(
            sheet, images, params.tags, unreadable=lambda path: unreadable(path, limits)
        )
        return [images / name for name in labels.names], labels.matrix

    known, truth = read(find_sheet(data), data / "images")
    answered, right = read(answers, arrivals)
    others = sorted(set(arrivals.iterdir()) - set(answered))
    paths = [*known, *answered, *others]
    ids = [image_id(path.read_bytes()) for path in paths]
    # An arrival that is labelled already would be no news.
    kept = [i for i, one in enumerate(ids) if ids.index(one) == i]
    nothing = np.zeros((len(others), truth.shape[1]), np.uint8)
    task = Task(
        tuple(paths[i] for i in kept),
        tuple(ids[i] for i in kept),
        np.concatenate([truth, right, nothing]).astype(np.uint8)[kept],
        params,
        Recipe("project"),
        torch.device("cpu"),
    )
    rows = np.array(kept)
    return Pictures(
        task,
        rows >= len(known),
        rows < len(known) + len(answered),
        _standardised(_blocks(task, (_FEATURE,))[_FEATURE]),
        {pooled: kernel_heads.products(_blocks(task, pooled)) for pooled in _pooled(params)},
        whole,
    )


def _pooled(params: Params) -> set[tuple[str, ...]]:
    return {tuple(params.train_of(name).pooled) for name in params.groups}


def _play(pictures: Pictures, way: str, seed: int, sizes: Sequence[int]) -> dict[int, Measured]:
    """Label and train until there are `sizes[-1]` labels; return what was measured after each."""
    task, ids = pictures.task, pictures.task.ids
    thirds = replace(task.params.split, seed=1 + seed // _THIRDS, folds=_THIRDS)
    held_out = np.array([fold(i, thirds) == seed % _THIRDS for i in ids])
    split = replace(task.params.split, seed=seed)
    is_training = np.array([side(i, split) == SIDES[0] for i in ids])
    parts = {
        "arrivals": np.flatnonzero(pictures.arrived & pictures.answered & held_out),
        "validation": np.flatnonzero(~pictures.arrived & ~is_training),
        "out_of_fold": np.flatnonzero(~pictures.arrived & is_training),
    }
    learned = parts["out_of_fold"]
    asked = np.zeros(len(ids), bool)
    rng = np.random.default_rng([seed, list(STRATEGIES).index(way)])
    measured: dict[int, Measured] = {}
    for done, size in zip([0, *sizes], [*sizes, None], strict=True):
        rows = np.flatnonzero(pictures.arrived & ~held_out & ~asked)
        trained = _trained(pictures, learned, rows, parts, split)
        new = np.flatnonzero(asked)
        measured[done] = Measured(
            trained.predicted,
            parts,
            done,
            int((~pictures.answered[new]).sum()),
            task.truth[learned].sum(axis=0).tolist(),
        )
        if size is None:
            break
        while done < size:
            batch = min(_BATCH, size - done)
            left = ~asked[rows]
            positives = task.truth[learned].sum(axis=0)
            facts = TagFacts(task.params.tags, trained.thresholds, positives)
            here = Round(
                fixed_ids([ids[row] for row in rows[left]]),
                trained.scores[left],
                facts,
                pictures.features[rows[left]],
                pictures.features[learned],
                task.params.labels.queue,
                rng,
            )
            taken = rows[left][STRATEGIES[way](here, batch)]
            asked[taken] = True
            learned = np.concatenate([learned, taken[pictures.answered[taken]]])
            done += batch
    return measured


@dataclass(frozen=True)
class _Trained:
    """Models of all groups: what they predict of pictures, and scores (rows, tags) to choose by."""

    predicted: np.ndarray
    scores: np.ndarray
    thresholds: np.ndarray


def _trained(
    pictures: Pictures,
    learned: np.ndarray,
    rows: np.ndarray,
    parts: dict[str, np.ndarray],
    split: Split,
) -> _Trained:
    """Train as the stages do: thresholds from a cross-validation, then models of all pictures."""
    task = pictures.task
    held = np.concatenate([parts["arrivals"], parts["validation"]])
    file = CACHE / "labelling" / digest(
        _code(), asdict(task.params)["groups"], asdict(task.params.train),
        asdict(task.params.images), task.ids, task.truth.tolist(), learned.tolist(), split,
        rows.tolist(), held.tolist(), pictures.whole,
    )  # fmt: skip
    file = file.with_suffix(".npz")
    if not file.exists():
        folds = np.array([fold(task.ids[row], split) for row in learned])
        out_of_fold = np.full((len(learned), task.truth.shape[1]), np.nan)
        for number in range(split.folds):
            out_of_fold[folds == number] = _scored(
                pictures, learned[folds != number], learned[folds == number]
            )
        every = _scored(pictures, learned, np.concatenate([held, rows]))
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, folds=folds, out_of_fold=out_of_fold, every=every)
    saved = np.load(file)
    truth, shrink = task.truth[learned], task.params.evaluate.shrink
    thresholds, predicted = np.zeros(truth.shape[1]), np.zeros_like(task.truth)
    ours = np.isin(learned, parts["out_of_fold"])
    for columns in task.columns.values():
        scored = saved["out_of_fold"][:, columns]
        limits = calibrate(scored, truth[:, columns], shrink)[0]
        thresholds[columns] = limits
        predicted[held, columns] = predict(saved["every"][: len(held), columns], limits)
        for number in range(split.folds):
            here = saved["folds"] == number
            of_others = calibrate(scored[~here], truth[~here, columns], shrink)[0]
            predicted[learned[here & ours], columns] = predict(scored[here & ours], of_others)
    return _Trained(predicted, saved["every"][len(held) :], thresholds)


def _code() -> list[str]:
    """Return the code that scores depend on."""
    return [*sources("project"), Path(kernel_heads.__file__).read_text(encoding="utf-8")]


def _scored(pictures: Pictures, learned: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Fit a model per group to some rows; return the scores (held, tags) of others."""
    scored, task = [], pictures.task
    for group, columns in task.columns.items():
        recipe, truth = task.params.train_of(group), task.truth[learned, columns]
        if pictures.whole:
            source, examples = learning_states(task, group), Examples(learned, truth)
            scored.append(fit_and_score(task, group, source, examples, held))
        else:
            products = pictures.products[recipe.pooled]
            settings = {"l2": recipe.head_l2, "most": recipe.positive_weight}
            scored.append(kernel_heads.fit_and_score(products, truth, learned, held, **settings))
    return np.concatenate(scored, axis=1)


def _blocks(task: Task, pooled: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return what heads see of the tagging view of all pictures, by name: (N, width) each."""
    recipe = replace(task.params.train, pooled=pooled)
    source = states(task, recipe, task.params.images.augment, task.params.features.views)
    seen = source.plain(np.arange(len(task.ids))).pooled
    return {name: seen[name].numpy() for name in pooled}


def _standardised(features: np.ndarray) -> np.ndarray:
    standard: np.ndarray = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
    return standard


def _document(
    pictures: Pictures, played: dict[str, list[dict[int, Measured]]], sizes: Sequence[int]
) -> dict[str, Any]:
    """Return macro F1 by way, number of labels and part, and what each gains over `random`."""
    task = pictures.task
    document: dict[str, Any] = {"sizes": list(sizes), "tags": list(task.params.tags), "ways": {}}
    least = task.params.evaluate.min_positives
    reference = played.get("random")
    for way, runs in played.items():
        by_size: dict[str, Any] = {}
        for size in sizes:
            found: dict[str, Any] = {
                "no_shoes": [run[size].no_shoes for run in runs],
                "positives": np.mean([run[size].positives for run in runs], axis=0)
                .round(1)
                .tolist(),
            }
            for part in runs[0][size].parts:
                rows = np.concatenate([run[size].parts[part] for run in runs])
                true = task.truth[rows]
                measurable = measurable_tags(task.truth[np.unique(rows)], least)
                mine = _rows_of(runs, size, part)
                found[part] = {
                    "macro_f1": rounded(macro_f1(true, mine, measurable)),
                    "tags": f1_by_tag(true, mine).round(4).tolist(),
                    "measurable": measurable.tolist(),
                }
                if reference is not None and way != "random" and size:
                    theirs = _rows_of(reference, size, part)
                    found[part]["gain"] = _gain(true, mine, theirs, measurable, rows)
            by_size[str(size)] = found
        document["ways"][way] = by_size
    return document


def _rows_of(runs: list[dict[int, Measured]], size: int, part: str) -> np.ndarray:
    return np.concatenate([run[size].predicted[run[size].parts[part]] for run in runs])


def _gain(
    true: np.ndarray, one: np.ndarray, other: np.ndarray, measurable: np.ndarray, rows: np.ndarray
) -> list[Any]:
    """Return the gain in macro F1 with its interval: resamples of pictures, the same for both."""
    images = [np.flatnonzero(rows == row) for row in np.unique(rows)]
    draws = [
        np.concatenate([images[i] for i in draw])
        for draw in resampled_rows(len(images), _RESAMPLES, seed=1)
    ]

    def gain(drawn: np.ndarray) -> float | None:
        better = macro_f1(true[drawn], one[drawn], measurable)
        worse = macro_f1(true[drawn], other[drawn], measurable)
        return None if better is None or worse is None else better - worse

    return [rounded(gain(np.arange(len(true)))), interval(gain, draws)]


def _draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw macro F1 on the arrivals that were never asked for, by number of pictures looked at."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for way, by_size in document["ways"].items():
        heights = [by_size[str(size)]["arrivals"]["macro_f1"] for size in document["sizes"]]
        axes.plot(document["sizes"], heights, marker="o", label=way)
    axes.set(xlabel="arrivals looked at", ylabel="macro F1 on other arrivals")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    run(main)
