"""Fits a head on the features of a backbone: one logistic regression per tag."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...network.backbone import TagModel

# Logits and targets (B, tags), and the weight of a positive per tag (tags,) -> the mean loss.
Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]
ROUNDS = 10  # of fitting a head; the loss is reported after each
_ITERATIONS_PER_ROUND = 10
_HISTORY = 10  # steps from which L-BFGS estimates the curvature
_ROWS_AT_ONCE = 4096  # converted to float32


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits and targets (B, tags)."""
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)


@torch.no_grad()
def start_from_frequencies(model: TagModel, truth: np.ndarray) -> None:
    """Set the head to score each tag with its frequency in `truth` (N, tags)."""
    frequency = np.clip(truth.mean(axis=0), 1 / (len(truth) + 1), len(truth) / (len(truth) + 1))
    model.head.weight.zero_()
    model.head.bias.copy_(torch.from_numpy(np.log(frequency / (1 - frequency)).astype(np.float32)))


def fit_head(
    model: TagModel,
    seen: Tensor,
    target: Tensor,
    weight: Tensor,
    *,
    l2: float,
    criterion: Criterion,
    on_round: Callable[[float], None],
) -> None:
    """Fit standardisation and head, in place, to what the head sees of some views of pictures.

    `seen` (views * N, width) float16 has all pictures in the first view, then in the second and
    so on; `target` (N, tags) is their truth, `weight` (tags,) the weight of a positive. L-BFGS
    minimises `criterion`, summed over the tags, plus `l2` times the squared weights. Blocks of the
    input, such as one layer's channels, are scaled to count alike, however wide they are.
    `on_round` gets the plain cross-entropy, without weights and penalty, ROUNDS times.
    """
    mean, variance = _moments(seen)
    model.norm.load_state_dict(
        {"running_mean": mean, "running_var": variance, "num_batches_tracked": torch.tensor(0)}
    )
    block = torch.cat([seen.new_full((w, 1), w**-0.5, dtype=torch.float32) for w in model.widths])
    scale = block / torch.sqrt(variance + model.norm.eps).unsqueeze(1)
    weights = torch.zeros(seen.shape[1], target.shape[1], device=seen.device, requires_grad=True)
    bias = model.head.bias.detach().clone().requires_grad_(True)

    def losses(measure: Criterion, weight: Tensor) -> Iterator[Tensor]:
        """Yield the share of each part in the mean of a loss."""
        for start in range(0, len(seen), _ROWS_AT_ONCE):
            part, slope = seen[start : start + _ROWS_AT_ONCE], scale * weights
            logits = part.float() @ slope + bias - mean @ slope
            rows = torch.arange(start, start + len(part), device=seen.device) % len(target)
            yield measure(logits, target[rows], weight) * (len(part) / len(seen))

    def closure() -> float:
        optimizer.zero_grad()
        penalty = l2 * weights.square().sum()
        penalty.backward()  # type: ignore[no-untyped-call]
        total = penalty.item()
        for loss in losses(criterion, weight):
            (loss * target.shape[1]).backward()  # type: ignore[no-untyped-call]
            total += loss.item() * target.shape[1]
        return total

    optimizer = torch.optim.LBFGS(
        [weights, bias],
        max_iter=_ITERATIONS_PER_ROUND,
        history_size=_HISTORY,
        line_search_fn="strong_wolfe",
    )
    for _ in range(ROUNDS):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            model.head.weight.copy_((block * weights).T)
            model.head.bias.copy_(bias)
            loss = sum(loss.item() for loss in losses(cross_entropy, torch.ones_like(weight)))
        on_round(loss)


def _moments(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance (width,) float32 of the columns of `seen`."""
    total = seen.new_zeros(seen.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in torch.split(seen, _ROWS_AT_ONCE):
        total += part.double().sum(0)
        squares += part.double().square().sum(0)
    mean = total / len(seen)
    return mean.float(), (squares / len(seen) - mean.square()).clamp_min(0).float()
