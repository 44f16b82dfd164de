"""Fit a head on what a backbone shows: a logistic regression a tag."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ...network.backbone import TagModel

# Logits and targets (B, tags), and what a positive of each tag weighs (tags,) -> the mean loss.
Criterion = Callable[[Tensor, Tensor, Tensor], Tensor]
ROUNDS = 10  # in which a head is fitted; after each the loss is told
_ITERATIONS_A_ROUND = 10
_REMEMBERED = 10  # steps, from which L-BFGS guesses the curvature
_ROWS_AT_ONCE = 4096  # that become float32


def cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits and targets (B, tags)."""
    return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)


@torch.no_grad()
def start_from_frequencies(model: TagModel, truth: np.ndarray) -> None:
    """Let the head begin by answering each tag as often as it is true in `truth` (N, tags)."""
    often = np.clip(truth.mean(axis=0), 1 / (len(truth) + 1), len(truth) / (len(truth) + 1))
    model.head.weight.zero_()
    model.head.bias.copy_(torch.from_numpy(np.log(often / (1 - often)).astype(np.float32)))


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

    `seen` (views * N, width) float16 holds all pictures of the first view, then those of the second
    and so on; `target` (N, tags) is what is true of them, `weight` (tags,) what a positive weighs.
    Made small is `criterion`, summed over the tags, and `l2` times the squared weights, by L-BFGS.
    A block of the input, such as one layer's channels, may say as much as any other, however wide
    it is. `on_round` hears the plain cross-entropy, without weights and penalty, ROUNDS times.
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
        """Yield each part's share of the mean of a loss."""
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
        max_iter=_ITERATIONS_A_ROUND,
        history_size=_REMEMBERED,
        line_search_fn="strong_wolfe",
    )
    for _ in range(ROUNDS):
        optimizer.step(closure)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            model.head.weight.copy_((block * weights).T)
            model.head.bias.copy_(bias)
            told = sum(loss.item() for loss in losses(cross_entropy, torch.ones_like(weight)))
        on_round(told)


def _moments(seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and the variance (width,) float32 of the columns of `seen`."""
    total = seen.new_zeros(seen.shape[1], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in torch.split(seen, _ROWS_AT_ONCE):
        total += part.double().sum(0)
        squares += part.double().square().sum(0)
    mean = total / len(seen)
    return mean.float(), (squares / len(seen) - mean.square()).clamp_min(0).float()
