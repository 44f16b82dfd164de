"""How far a picture is from all that a model has learned from, by what its head sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..network.backbone import TagModel


class Usual(NamedTuple):
    """What is usual on a training side: the mean of what a head sees, and by how much it varies."""

    mean: Tensor  # (width,)
    scale: Tensor  # (width,)

    def distances(self, seen: Tensor) -> Tensor:
        """Return how far pictures are from what is usual, (B,), by what a head sees, (B, width).

        This is a squared Mahalanobis distance with a diagonal covariance, each block of the input,
        such as one layer's channels, by its mean over the block: blocks count alike, and a picture
        of the training side is at about their number.
        """
        return ((seen - self.mean) * self.scale).square().sum(1)


def usual(mean: Tensor, variance: Tensor, widths: Sequence[int], eps: float) -> Usual:
    """Return what is usual by the mean and variance (width,) of what a head sees."""
    block = torch.cat([mean.new_full((width,), width**-0.5) for width in widths])
    return Usual(mean, block / torch.sqrt(variance + eps))


def usual_of(model: TagModel, device: torch.device) -> Usual:
    """Return what was usual when a model was trained: its weights have it."""
    seen = {name: tensor.float().to(device) for name, tensor in model.norm.state_dict().items()}
    return usual(seen["running_mean"], seen["running_var"], model.widths, model.norm.eps)
