"""Fits one group: its head, and the layers of its backbone that are not frozen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...config.recipe import Train
from ...network.backbone import TagModel
from ...network.cut import cut_of
from ...network.layers import trained_layers
from .backbone import TrainError, is_pretrained, train_layers
from .examples import Examples, batches, positive_weight, targets
from .features import Source
from .head import ROUNDS, Criterion, cross_entropy, fit_head, start_from_frequencies
from .scoring import BATCH, mean_loss, scoring_precision


@dataclass(frozen=True)
class Epoch:
    """The outcome of one epoch, or of one round of fitting the head, for a callback.

    Losses are plain binary cross-entropies, means over pictures and tags, without the weights and
    the criterion of training: the two sides can be compared.
    """

    number: int  # from 1
    train_loss: float
    validation_loss: float | None
    learning_rate: float | None  # None while the head alone is fitted


def epochs_of(recipe: Train) -> int:
    """Return how often `fit` calls `on_epoch`: rounds of the head, then epochs of the backbone."""
    trained = bool(trained_layers(tuple(cut_of(recipe.arch).layers), recipe.freeze))
    return ROUNDS * is_pretrained(recipe) + recipe.epochs * trained


def fit(
    model: TagModel,
    source: Source,
    training: Examples,
    validation: Examples | None,
    recipe: Train,
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None],
    criterion: Criterion = cross_entropy,
) -> None:
    """Train the head and the layers after `recipe.freeze`, in place.

    On a pretrained backbone the head is fitted first; the layers that are not frozen, if any, are
    then trained from there (Kumar et al., 2022), because a random head would make them forget what
    they know. A random backbone and its head learn together.

    Keeps the weights of the last epoch, or their running average (`recipe.ema`): the validation
    side, whose loss is only reported, chooses nothing. Training minimises `criterion`. It is
    deterministic on one machine for a seed and a number of threads. Raises TrainError when the loss
    is not finite.
    """
    if len(training.rows) < 2:
        raise TrainError(f"{len(training.rows)} training pictures: at least 2 are needed")
    _make_deterministic(recipe.seed)
    model.to(device).to(memory_format=torch.channels_last)
    weight = positive_weight(training.truth, recipe.positive_weight).to(device)
    start_from_frequencies(model, training.truth)
    numbers = itertools.count(1)

    def on_losses(train_loss: float, rate: float | None) -> None:
        loss = None
        if validation is not None:
            loss = mean_loss(model, source, validation, recipe.freeze, device)
        on_epoch(Epoch(next(numbers), train_loss, loss, rate))

    def on_round(loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainError(
                f"the loss became {loss} while the head was fitted: raise train.head_l2 "
                f"({recipe.head_l2}), or check that the backbone's weights are intact"
            )
        on_losses(loss, None)

    if is_pretrained(recipe):
        fit_head(
            model,
            _all_seen(model, source, training, recipe, device),
            targets(training.truth, recipe.label_smoothing, device),
            weight,
            l2=recipe.head_l2,
            criterion=criterion,
            on_round=on_round,
        )
    if trained_layers(model.layers, recipe.freeze):
        train_layers(model, source, training, recipe, weight, criterion, device, on_losses)
    model.eval()


@torch.inference_mode()
def _all_seen(
    model: TagModel, source: Source, training: Examples, recipe: Train, device: torch.device
) -> Tensor:
    """Return what the head sees of all views, the plain one last: (views * N, width) float16."""
    model.eval()
    rest, count = trained_layers(model.layers, recipe.freeze), len(training.rows)
    seen = torch.empty(
        ((source.views + 1) * count, sum(model.widths)), dtype=torch.float16, device=device
    )
    for view in range(source.views + 1):
        start = view * count
        for rows in batches(training.rows, BATCH):
            plain = view == source.views
            state = source.plain(rows) if plain else source.augmented(rows, view)
            with scoring_precision(device):
                values = model.seen(model.run(state, rest))
            seen[start : start + len(rows)] = values.half()
            start += len(rows)
    return seen


def _make_deterministic(seed: int) -> None:
    """Seed torch and choose deterministic algorithms for this process."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # A guard against reading what nobody wrote, which takes 4 % of a training on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
