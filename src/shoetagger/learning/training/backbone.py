"""Trains the layers of a backbone that are not frozen, together with the head."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ...config.recipe import Train
from ...errors import ShoetaggerError
from ...network.backbone import TagModel
from ...network.layers import frozen_layers, trained_layers
from .examples import Examples, batches, targets
from .features import Source
from .head import Criterion, cross_entropy

_WARM_UP = 0.1  # share of the steps in which the learning rate rises
_MAX_NORM = 5.0  # of the gradient


class TrainError(ShoetaggerError):
    """Training cannot start, or its loss is no longer finite."""


def train_layers(
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
    frozen = frozen_layers(model.layers, recipe.freeze)
    trained = trained_layers(model.layers, recipe.freeze)
    optimizer, schedule = _optimizer(model, frozen, trained, recipe, _steps(training, recipe))
    average, equal = averaged(model, recipe.ema), torch.ones_like(weight)
    shuffle = np.random.default_rng(recipe.seed)
    for number in range(recipe.epochs):
        _training_mode(model, frozen, pretrained=is_pretrained(recipe))
        losses = []
        for batch in batches(shuffle.permutation(len(training.rows)), recipe.batch_size):
            state = source.augmented(training.rows[batch], number)
            target = targets(training.truth[batch], recipe.label_smoothing, device)
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


def is_pretrained(recipe: Train) -> bool:
    return recipe.weights != "none"


def _steps(training: Examples, recipe: Train) -> int:
    return recipe.epochs * math.ceil(len(training.rows) / recipe.batch_size)


def _optimizer(
    model: TagModel,
    frozen: tuple[str, ...],
    trained: tuple[str, ...],
    recipe: Train,
    steps: int,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW with separate rates for backbone and head, warm-up and cosine decay."""
    for layer in frozen:
        model.get_submodule(layer).requires_grad_(False)
    backbone = [p for layer in trained for p in model.get_submodule(layer).parameters()]
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
        model.get_submodule(layer).eval()
    if pretrained:
        model.norm.eval()  # the head was fitted with its statistics
        # ImageNet's million pictures gave better batch statistics than a few hundred can.
        for layer in model.layers:
            for module in model.get_submodule(layer).modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()


def _training_precision(device: torch.device) -> torch.autocast:
    """Train in bfloat16 on a GPU and on a CPU with matrix units for it (AMX), else in float32.

    AVX-512 alone multiplies bfloat16 as well, but its gradients of convolutions are slow: of small
    activation maps they were measured at four times the time of float32.
    """
    supported = device.type == "cuda" or bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=supported)


def averaged(model: TagModel, decay: float) -> AveragedModel | None:
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
