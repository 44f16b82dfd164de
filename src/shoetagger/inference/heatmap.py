"""Why a picture has a score: what each place of it adds to the logit of a tag.

The head is linear, and all that it sees are weighted sums over places: so a logit is the head's
bias and a sum of what places add, each by its weight, its values and the head's. What is usual, the
mean that the head's inputs are standardised by, adds nothing. This holds for every layer, frozen or
not, as its values are those of the bundle's own network.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..network.backbone import TagModel, advance, begin
from ..network.layers import CONTRAST, HISTOGRAM, TOKEN, layer_of
from ..network.pooling import LEAST_VARIANCE, color_places, place_weights
from ..network.reading import Reading
from .bundle import Bundle


class Explanation(NamedTuple):
    """What adds up to the logits of a picture, in the order of a bundle's tags.

    `maps` (tags, G, G) float64 are what the places of the tagging view add, `bias` (tags,) is what
    the head adds to every picture; the score is the sigmoid of the bias and the sum of the map.
    """

    maps: np.ndarray
    bias: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        """The sums, (tags,) float64."""
        sums: np.ndarray = self.bias + self.maps.sum(axis=(1, 2))
        return sums


@torch.inference_mode()
def explain(model: TagModel, bundle: Bundle, view: np.ndarray) -> Explanation:
    """Explain the scores of a bundle's model, on the CPU, for one tagging view (S, S, 3) uint8."""
    images = torch.from_numpy(view)[None]
    mean, variance = model.norm.running_mean, model.norm.running_var
    assert mean is not None
    assert variance is not None
    weight = model.head.weight.double() / torch.sqrt(variance.double() + model.norm.eps)
    widths = list(model.widths)
    heads = torch.split(weight, widths, dim=1)
    usual = torch.split(mean.double(), widths)
    grid = max(1, view.shape[0] // 4)
    total = torch.zeros(len(bundle.tags), grid, grid, dtype=torch.float64)
    state = begin(images, bundle.transform, ())
    for layer in (HISTOGRAM, *model.layers):
        if layer != HISTOGRAM:
            state = advance(model.layer(layer), state, ())
        for name, head, means in zip(bundle.pooled, heads, usual, strict=True):
            if layer_of(name) != layer:
                continue
            if name == HISTOGRAM:
                added = _of_colors(images, head, means)
            else:
                added = _of_layer(model.layer(layer).reading, state.output, name, head, means)
            total += _spread(added, grid)
    return Explanation(total.numpy(), model.head.bias.double().numpy())


def _of_layer(reading: Reading, output: Tensor, pooled: str, head: Tensor, usual: Tensor) -> Tensor:
    """Return what places add by what a head sees of a layer: (tags, height, width)."""
    if pooled.endswith(TOKEN):  # it tells nothing of places: all add alike
        seen = reading.class_token(output).double() - usual
        return (seen @ head.T).reshape(-1, 1, 1)
    return _of_moments(reading.places(output), head, usual, contrast=pooled.endswith(CONTRAST))


def _of_moments(x: Tensor, head: Tensor, usual: Tensor, *, contrast: bool) -> Tensor:
    """Return what places add by the means and deviations of (1, height, width, C) channels.

    `head` (tags, 2 C) are weights of the standardised moments, `usual` (2 C,) their means in
    training. Returns (tags, height, width).
    """
    height, width = x.shape[1:3]
    places = x.float()
    weights = place_weights(places, contrast=contrast).double().flatten()  # (places,)
    values = places.double().flatten(0, 2)  # (places, C)
    mean = weights @ values
    square = (values - mean).square()
    # As pooling adds a least variance, in equal parts from all places.
    variance = weights @ square + LEAST_VARIANCE
    deviation = variance.sqrt()
    seen = torch.cat([values, (square + LEAST_VARIANCE) / deviation], dim=1) - usual
    return ((seen @ head.T) * weights[:, None]).T.reshape(-1, height, width)


def _of_colors(images: Tensor, head: Tensor, usual: Tensor) -> Tensor:
    """Return what places add by the histogram of (1, S, S, 3) images: (tags, height, width)."""
    near, weights = (part.double() for part in color_places(images))
    weights = weights.flatten()
    shares = weights @ near[0]
    # A root of a sum is the sum of its parts, each divided by the root.
    seen = near[0] / shares.sqrt().clamp_min(1e-30) - usual
    side = round(len(weights) ** 0.5)
    return ((seen @ head.T) * weights[:, None]).T.reshape(-1, side, side)


def _spread(added: Tensor, grid: int) -> Tensor:
    """Spread (tags, height, width) evenly over a grid (tags, grid, grid); sums stay."""
    down, across = (_overlaps(size, grid) for size in added.shape[1:])
    return down @ added @ across.T


def _overlaps(cells: int, grid: int) -> Tensor:
    """Return which share of each of `cells` on a line lies in each of `grid`: (grid, cells)."""
    edges = torch.arange(grid + 1, dtype=torch.float64)[:, None] * cells / grid
    own = torch.arange(cells + 1, dtype=torch.float64)[None]
    common = torch.minimum(edges[1:], own[:, 1:]) - torch.maximum(edges[:-1], own[:, :-1])
    return common.clamp_min(0)
