"""Learn from some labelled pictures and score others: this project, a linear probe, the article."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

import shoetagger
from shoetagger.config.params import Params
from shoetagger.config.recipe import Augment, Train
from shoetagger.images.decode import Limits, open_image
from shoetagger.learning.training.examples import Examples
from shoetagger.learning.training.feature_files import compute
from shoetagger.learning.training.features import Cached, Live, Source, read_index
from shoetagger.learning.training.fit import fit
from shoetagger.learning.training.head import Criterion, cross_entropy
from shoetagger.learning.training.images import ImageDataset, transform_of
from shoetagger.learning.training.scoring import scores
from shoetagger.network.backbone import State, TagModel, pooled_of
from shoetagger.network.digests import prefix_digests
from shoetagger.network.weights import build

from . import article, imbalance, linear_probe
from .resizing import SHRUNK, resized
from .scoring import SHOWN_OTHERWISE

CACHE = Path("experiments/cache")
LOSSES: Mapping[str, Callable[[float], Criterion]] = {
    "focal": imbalance.focal,
    "asymmetric": imbalance.asymmetric,
}
_LONGEST = 512  # pixels of pictures held in memory for networks that crop for themselves
_PLAIN = Augment(
    min_scale=1.0, flip=0.0, rotate=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0,
    erase=0.0, background=0.0,
)  # fmt: skip
_OTHER_BACKGROUND = dataclasses.replace(_PLAIN, background=1.0)
_MIRRORED = dataclasses.replace(_PLAIN, flip=1.0)
# The code that cached states, or cached scores of a kind of recipe, depend on.
_HERE, _PACKAGE = Path(__file__).parent, Path(shoetagger.__file__).parent
_STATES = (
    _HERE / "trainers.py",
    _HERE / "resizing.py",
    _PACKAGE / "images",
    _PACKAGE / "network",
    _PACKAGE / "learning" / "training" / "feature_files.py",
    _PACKAGE / "learning" / "training" / "features.py",
    _PACKAGE / "learning" / "training" / "images.py",
)
_CODE: Mapping[str, tuple[Path, ...]] = {
    "states": _STATES,
    "project": (*_STATES, _PACKAGE / "learning" / "training", _HERE / "imbalance.py"),
    "probe": (*_STATES, _HERE / "linear_probe.py"),
    "article": (_HERE / "trainers.py", _HERE / "article.py"),
}


@dataclass(frozen=True)
class Recipe:
    """A recipe of recipes.yaml: `kind` names the trainer, the rest is what it changes.

    There is a model for `each` group, `one` for all tags, or one for `each_tag`.
    """

    kind: str
    groups: str = "each"
    pictures: int | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """The labelled pictures and the parameters that a recipe is run with.

    `truth` (N, tags) has the tags of params' groups, one group after the other.
    """

    paths: tuple[Path, ...]
    ids: tuple[str, ...]
    truth: np.ndarray
    params: Params
    recipe: Recipe
    device: torch.device

    @property
    def key(self) -> str:
        """A digest of all that the scores depend on."""
        recipe, params = self.recipe, self.params
        learned: object = params.train.seed
        if recipe.kind != "article":
            groups = [(spec.tags, params.train_of(name)) for name, spec in params.groups.items()]
            learned = (groups, params.images, params.features.views)
        described = (recipe.kind, recipe.groups, recipe.pictures, sorted(recipe.options.items()))
        return digest(sources(recipe.kind), described, learned, self.ids, self.truth.tolist())

    @property
    def columns(self) -> dict[str, slice]:
        """Where the tags of each group stand in `truth`."""
        ends = np.cumsum([len(spec.tags) for spec in self.params.groups.values()]).tolist()
        return {
            group: slice(end - len(spec.tags), end)
            for (group, spec), end in zip(self.params.groups.items(), ends, strict=True)
        }

    @property
    def resizing(self) -> str | None:
        """The name of the way in which pictures are made square first, if they are."""
        return self.recipe.options.get("resizing")

    def dataset(self, augment: Augment, shrunk: str | None = None) -> ImageDataset:
        """Return the pictures, shown as they are or in one of the ways of SHRUNK."""
        paths, limits = self.paths, Limits.of(self.params.images)
        for how in (shrunk, self.resizing):
            if how is not None:
                paths = resized(how, paths, limits, CACHE / "resized" / f"{shrunk}-{how}")
        return ImageDataset(
            paths,
            transform_of(self.params),
            limits,
            augment=augment,
            seed=self.params.train.seed,
        )


def score(task: Task, learned: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Learn from some rows; score others: (parts, held, tags).

    The parts are the pictures as they are, and those of SHOWN_OTHERWISE.
    """
    scores = np.full((1 + len(SHOWN_OTHERWISE), len(held), task.truth.shape[1]), np.nan)
    for group, columns in task.columns.items():
        truth = task.truth[learned, columns]
        scores[:, :, columns] = TRAINERS[task.recipe.kind](task, group, learned, truth, held)
    return scores


def _project(
    task: Task, group: str, learned: np.ndarray, truth: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """Train as the stages `features` and `train` do."""
    recipe, source = task.params.train_of(group), learning_states(task, group)
    model = fitted(task, group, source, Examples(learned, truth))

    def mean_scores(*sources: Source) -> np.ndarray:
        return np.mean(
            [scores(model, s, held, recipe.freeze, task.device) for s in sources], axis=0
        )

    mirrors = task.recipe.options.get("mirror", False)
    mirrored = [_Shown(states(task, recipe, _MIRRORED, 1))] if mirrors else []
    others = _shown_otherwise(task, recipe)
    return np.stack([mean_scores(source, *mirrored), *(mean_scores(other) for other in others)])


def fit_and_score(
    task: Task, group: str, source: Source, examples: Examples, held: np.ndarray
) -> np.ndarray:
    """Fit a group's model to examples of a source; return its scores (held, tags) of other rows."""
    model, freeze = fitted(task, group, source, examples), task.params.train_of(group).freeze
    return scores(model, source, held, freeze, task.device)


def fitted(task: Task, group: str, source: Source, examples: Examples) -> TagModel:
    """Return a model of the tags of `examples`, fitted as a group's parameters say."""
    recipe, options = task.params.train_of(group), task.recipe.options
    torch.manual_seed(recipe.seed)
    tags, size = examples.truth.shape[1], task.params.images.size
    model, _ = build(recipe.arch, tags, recipe.weights, recipe.pooled, recipe.dropout, size=size)
    criterion = cross_entropy
    for name, loss in LOSSES.items():
        if name in options:
            criterion = loss(options[name])
    if "oversample" in options:
        examples = imbalance.oversampled(examples, options["oversample"], recipe.seed)
    fit(
        model, source, examples, None, recipe,
        device=task.device, on_epoch=_silent, criterion=criterion,
    )  # fmt: skip
    return model


def _probe(
    task: Task, _: str, learned: np.ndarray, truth: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """Fit a logistic regression per tag on the means of the last layer."""
    recipe = dataclasses.replace(task.params.train, freeze="layer4", pooled=("layer4",))
    source = states(task, recipe, task.params.images.augment, task.params.features.views)
    x, strength = _means(source, learned), float(task.recipe.options["strength"])
    return np.stack(
        [
            linear_probe.train_and_score(x, truth, _means(s, held), strength=strength)
            for s in (source, *_shown_otherwise(task, recipe))
        ]
    )


def _article(
    task: Task, _: str, learned: np.ndarray, truth: np.ndarray, held: np.ndarray
) -> np.ndarray:
    """Train the article's network; it scores pictures as they are alone."""
    limits = Limits.of(task.params.images)
    opened = [open_image(p.read_bytes(), limits, longest=_LONGEST) for p in task.paths]
    scored = article.train_and_score(
        [opened[row] for row in learned],
        truth,
        [opened[row] for row in held],
        seed=task.params.train.seed,
        options=task.recipe.options,
        device=task.device,
    )
    return np.stack([scored, *(np.full_like(scored, np.nan) for _ in SHOWN_OTHERWISE)])


TRAINERS: Mapping[str, Callable[[Task, str, np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "project": _project,
    "probe": _probe,
    "article": _article,
}


def _shown_otherwise(task: Task, recipe: Train) -> list[Source]:
    """Return the pictures in the ways of SHOWN_OTHERWISE, each as a source's plain view."""
    return [
        _Shown(states(task, recipe, _OTHER_BACKGROUND, 1)),
        *(states(task, recipe, _PLAIN, 1, shrunk) for shrunk in SHRUNK),
    ]


def learning_states(task: Task, group: str) -> Source:
    """Return the states that a group learns from: all augmented views, and the tagging view."""
    images, views = task.params.images, task.params.features.views
    return states(task, task.params.train_of(group), images.augment, views)


def states(
    task: Task, recipe: Train, augment: Augment, views: int, shrunk: str | None = None
) -> Source:
    """Return the states after the frozen layers, computed once for all recipes that share them."""
    freeze, dataset = recipe.freeze, task.dataset(augment, shrunk)
    torch.manual_seed(recipe.seed)
    seen, size = pooled_of(recipe.arch), task.params.images.size
    model, _ = build(recipe.arch, 1, recipe.weights, seen, dropout=0.0, size=size)
    if freeze == "none":
        return Live(model, dataset, freeze, views, task.device)
    images = dataclasses.replace(task.params.images, augment=augment)
    described = (freeze, views, recipe.arch, recipe.weights, recipe.seed)
    shown = shrunk, task.resizing
    key = digest(sources("states"), described, shown, images, task.ids)
    folder = CACHE / "states" / key
    if not (folder / "index.json").exists():
        compute(
            model.eval(),
            dataset,
            task.ids,
            freeze=freeze,
            views=views,
            max_gb=16.0,
            prefix=prefix_digests(model, dataset.transform)[freeze],
            directory=folder,
            cache=None,
            device=task.device,
            on_work=_silent,
            on_batch=_silent,
        )
    index = read_index(folder)
    return Cached(folder, index, recipe.pooled, model.layers, task.device)


def _silent(*_: object) -> None:
    """Ignore epochs and batches: the progress bar counts folds."""


class _Shown:
    """Presents the only augmented view of a source as its plain view."""

    views = 1

    def __init__(self, source: Source) -> None:
        self._source = source

    def augmented(self, rows: np.ndarray, epoch: int) -> State:
        return self._source.augmented(rows, epoch)

    def plain(self, rows: np.ndarray) -> State:
        return self._source.augmented(rows, 0)


def _means(source: Source, rows: np.ndarray) -> np.ndarray:
    pooled = source.plain(rows).pooled["layer4"].cpu().numpy()
    return pooled[:, : pooled.shape[1] // 2]  # means, then deviations


def sources(kind: str) -> list[str]:
    """Return the source code behind states or scores, so that other code gets another cache key."""
    files = [
        file
        for place in _CODE[kind]
        for file in (sorted(place.glob("*.py")) if place.is_dir() else [place])
    ]
    return [file.read_text(encoding="utf-8") for file in files]


def digest(*facts: object) -> str:
    """Return a short key of all that something kept depends on."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
