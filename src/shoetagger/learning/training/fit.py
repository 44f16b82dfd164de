"""Fit one group: its head, and the layers of its backbone that are not frozen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ...config.recipe import Train
from ...errors import ShoetaggerError
from ...network.backbone import TagModel
from ...network.layers import LAYERS, frozen_layers, trained_layers
from .features import Examples, Source
from .head import ROUNDS, Criterion, cross_entropy, fit_head, start_from_frequencies

_WARM_UP = 0.1  # share of the steps in which the learning rate rises
_MAX_NORM = 5.0  # of the gradient
_EVALUATION_BATCH = 64


class TrainError(ShoetaggerError):
    """Training cannot start, or its loss is no longer finite."""


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
    return ROUNDS * _is_pretrained(recipe) + recipe.epochs * bool(trained_layers(recipe.freeze))


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
    make_deterministic(recipe.seed)
    model.to(device).to(memory_format=torch.channels_last)
    weight = positive_weight(training.truth, recipe.positive_weight).to(device)
    start_from_frequencies(model, training.truth)
    numbers = itertools.count(1)

    def on_losses(train_loss: float, rate: float | None) -> None:
        loss = None if validation is None else _loss_of(model, source, validation, recipe, device)
        on_epoch(Epoch(next(numbers), train_loss, loss, rate))

    def on_round(loss: float) -> None:
        if not math.isfinite(loss):
            raise TrainError(
                f"the loss became {loss} while the head was fitted: raise train.head_l2 "
                f"({recipe.head_l2}), or check that the backbone's weights are intact"
            )
        on_losses(loss, None)

    if _is_pretrained(recipe):
        fit_head(
            model,
            _all_seen(model, source, training, recipe, device),
            _target(training.truth, recipe.label_smoothing, device),
            weight,
            l2=recipe.head_l2,
            criterion=criterion,
            on_round=on_round,
        )
    if trained_layers(recipe.freeze):
        _train_layers(model, source, training, recipe, weight, criterion, device, on_losses)
    model.eval()


def _is_pretrained(recipe: Train) -> bool:
    return recipe.weights != "none"


@torch.inference_mode()
def _all_seen(
    model: TagModel, source: Source, training: Examples, recipe: Train, device: torch.device
) -> Tensor:
    """Return what the head sees of all views, the plain one last: (views * N, width) float16."""
    model.eval()
    rest, count = trained_layers(recipe.freeze), len(training.rows)
    seen = torch.empty(
        ((source.views + 1) * count, sum(model.widths)), dtype=torch.float16, device=device
    )
    for view in range(source.views + 1):
        start = view * count
        for rows in _batches(training.rows, _EVALUATION_BATCH):
            plain = view == source.views
            state = source.plain(rows) if plain else source.augmented(rows, view)
            with _scoring_precision(device):
                values = model.seen(model.run(state, rest))
            seen[start : start + len(rows)] = values.half()
            start += len(rows)
    return seen


def _train_layers(
    model: TagModel,
    source: Source,
    training: Examples,
    recipe: Train,
    weight: Tensor,
    criterion: Criterion,
    device: torch.device,
    on_losses: Callable[[float, float | None], None],
) -> None:
    """Train the layers that are not frozen together with the head."""
    frozen, trained = frozen_layers(recipe.freeze), trained_layers(recipe.freeze)
    optimizer, schedule = _optimizer(model, frozen, recipe, _steps(training, recipe))
    average, equal = _averaged(model, recipe.ema), torch.ones_like(weight)
    shuffle = np.random.default_rng(recipe.seed)
    for number in range(recipe.epochs):
        _training_mode(model, frozen, pretrained=_is_pretrained(recipe))
        losses = []
        for batch in _batches(shuffle.permutation(len(training.rows)), recipe.batch_size):
            state = source.augmented(training.rows[batch], number)
            target = _target(training.truth[batch], recipe.label_smoothing, device)
            with _training_precision(device):
                logits = model.finish(model.run(state, trained))
            loss = criterion(logits.float(), target, weight)
            if not torch.isfinite(loss):
                raise TrainError(
                    f"the loss became {loss.item()} in epoch {number + 1} of the layers: lower "
                    f"train.head_lr ({recipe.head_lr}) or train.backbone_lr ({recipe.backbone_lr})"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), _MAX_NORM)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update_parameters(model)
            plain = cross_entropy(logits.detach().float(), target, equal)
            losses.append(plain.item() * len(batch))
        on_losses(sum(losses) / len(training.rows), float(schedule.get_last_lr()[-1]))
    if average is not None:
        model.load_state_dict(average.module.state_dict())


def make_deterministic(seed: int) -> None:
    """Seed torch and choose deterministic algorithms for this process."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


@torch.inference_mode()
def scores(
    model: TagModel, source: Source, rows: np.ndarray, freeze: str, device: torch.device
) -> np.ndarray:
    """Return the scores (N, tags) float32 in 0..1 of rows of a source, in their tagging view."""
    model.to(device).to(memory_format=torch.channels_last).eval()
    rest = trained_layers(freeze)
    parts = []
    for batch in _batches(np.arange(len(rows)), _EVALUATION_BATCH):
        state = source.plain(rows[batch])
        with _scoring_precision(device):
            logits = model.finish(model.run(state, rest))
        parts.append(torch.sigmoid(logits.float()).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, model.head.out_features), np.float32)


def positive_weight(truth: np.ndarray, most: float) -> Tensor:
    """Return the weight of a positive per tag: the root of negatives per positive, 1..`most`."""
    positives = np.clip(truth.sum(axis=0), 1, None)
    rarity = np.sqrt((len(truth) - positives) / positives)
    return torch.from_numpy(np.clip(rarity, 1.0, max(most, 1.0)).astype(np.float32))


def _steps(training: Examples, recipe: Train) -> int:
    return recipe.epochs * math.ceil(len(training.rows) / recipe.batch_size)


def _optimizer(
    model: TagModel, frozen: tuple[str, ...], recipe: Train, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW with separate rates for backbone and head, warm-up and cosine decay."""
    for layer in frozen:
        getattr(model, layer).requires_grad_(False)
    backbone = [p for s in LAYERS[len(frozen) :] for p in getattr(model, s).parameters()]
    groups = [
        {"params": backbone, "lr": recipe.backbone_lr},
        {"params": list(model.head.parameters()), "lr": recipe.head_lr},
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]], weight_decay=recipe.weight_decay
    )
    warm = max(1, round(_WARM_UP * steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _training_mode(model: TagModel, frozen: tuple[str, ...], *, pretrained: bool) -> None:
    model.train()
    for layer in frozen:  # frozen layers keep their batch-norm statistics, to stay shareable
        getattr(model, layer).eval()
    if pretrained:
        model.norm.eval()  # the head was fitted with its statistics
        # ImageNet's million pictures gave better batch statistics than a few hundred can.
        for layer in LAYERS:
            for module in getattr(model, layer).modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()


def _batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut an order into batches; a single row left over joins the last one, for batch norm."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for i, start in enumerate(starts):
        yield order[start : starts[i + 1] if i + 1 < len(starts) else len(order)]


def _target(truth: np.ndarray, smoothing: float, device: torch.device) -> Tensor:
    target = torch.from_numpy(truth.astype(np.float32)).to(device)
    return target * (1 - smoothing) + smoothing / 2


def _training_precision(device: torch.device) -> torch.autocast:
    """Train in bfloat16 on a GPU and on a CPU with matrix units for it (AMX), else in float32.

    AVX-512 alone multiplies bfloat16 as well, but its gradients of convolutions are slow: of small
    activation maps they were measured at four times the time of float32.
    """
    able = device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=able)


def _scoring_precision(device: torch.device) -> torch.autocast:
    """Score in bfloat16 on a GPU, in float32 on a CPU."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")


def _loss_of(
    model: TagModel, source: Source, examples: Examples, recipe: Train, device: torch.device
) -> float:
    scored = scores(model, source, examples.rows, recipe.freeze, device)
    likely = np.clip(np.where(examples.truth == 1, scored, 1 - scored), 1e-7, 1.0)
    return float(-np.log(likely).mean())


def _averaged(model: TagModel, decay: float) -> AveragedModel | None:
    """Return a running average of a model's weights and buffers; None for a decay of 0."""
    if not decay:
        return None

    def follow(average: Tensor, current: Tensor, steps: Tensor | int) -> Tensor:
        if not average.is_floating_point():  # batch norm's count of batches
            return current
        # Early on the average follows quickly, or it would remember the random start.
        warm = (int(steps) + 1) / (int(steps) + 11)
        return average.lerp(current, 1 - min(decay, warm))

    return AveragedModel(model, avg_fn=follow, use_buffers=True)
