"""The network: a backbone in layers, and a head on what it pools."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..images.views import Transform
from .cut import cut_of, layers_of
from .layers import CONTRAST, HISTOGRAM, TOKEN, ModelError, layer_of
from .pooling import BINS, channel_moments, color_histogram
from .reading import Layer, Reading


class State(NamedTuple):
    """What passes from layer to layer: its output, and what heads see of earlier layers."""

    output: Tensor  # (B, ...), as the layer's Reading tells
    pooled: Mapping[str, Tensor]  # by what a head sees, (B, values)


class TagModel(nn.Module):
    """A backbone in its layers and a linear head with one logit per tag.

    The head sees the concatenation of what `pooled` names: the means and standard deviations of a
    layer's channels over the places (colours show in early layers, shapes in late ones); with
    `_contrast`, the same of what stands out from the border, so of the shoe rather than the
    background; with `_token`, the class token of a vision transformer; with `histogram`, the
    colours of what stands out.

    `size` is the side of the pictures in pixels. The backbone's weights are random, or `weights`,
    by their names in the library's own network. Raises ModelError for a backbone that there is not,
    that does not fit, or that lacks what is pooled.
    """

    def __init__(
        self,
        arch: str,
        tags: int,
        pooled: tuple[str, ...] = ("layer4",),
        dropout: float = 0.0,
        *,
        size: int = 224,
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.arch, self.pooled = arch, pooled
        layers = layers_of(arch, size, weights)
        for layer in layers:
            self.add_module(layer.name, layer.module)
        self.layers = tuple(layer.name for layer in layers)
        self._read = {layer.name: (layer.reading, layer.norms) for layer in layers}
        self.widths = tuple(self._width(name) for name in pooled)
        # Standardises the inputs: early layers are an order of magnitude smaller than late ones.
        self.norm = nn.BatchNorm1d(sum(self.widths), affine=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sum(self.widths), tags)

    def layer(self, name: str) -> Layer:
        """Return a layer of the backbone, with the module that stands there now."""
        return Layer(name, self.get_submodule(name), *self._read[name])

    def forward(self, state: State) -> Tensor:
        """Return the logits (B, tags) of the state that `begin` returns."""
        return self.finish(self.run(state, self.layers))

    def run(self, state: State, layers: Sequence[str]) -> State:
        """Run the named layers, in order, on the state after the layer before them."""
        for name in layers:
            state = advance(self.layer(name), state, self.pooled)
        return state

    def seen(self, state: State) -> Tensor:
        """Return what the head sees, (B, sum of `widths`), of the state after the last layer."""
        return torch.cat([state.pooled[name] for name in self.pooled], dim=1)

    def finish(self, state: State) -> Tensor:
        """Return the logits (B, tags) of the state after the last layer."""
        logits: Tensor = self.head(self.dropout(self.norm(self.seen(state))))
        return logits

    def _width(self, pooled: str) -> int:
        if pooled == HISTOGRAM:
            return BINS
        if pooled not in pooled_of(self.arch):
            raise ModelError(
                f"train.pooled: {self.arch} has no {pooled}: what a head can see of it is "
                f"{', '.join(pooled_of(self.arch))}"
            )
        channels = self._read[layer_of(pooled)][0].channels
        return channels if pooled.endswith(TOKEN) else 2 * channels


def pooled_of(arch: str) -> tuple[str, ...]:
    """Return all that a head can see of a backbone: colours, each layer, and what stands out."""
    read = cut_of(arch).read
    tokens = (layer + TOKEN for layer, (reading, _) in read.items() if reading.has_class_token)
    return (HISTOGRAM, *read, *(layer + CONTRAST for layer in read), *tokens)


def begin(
    views: Tensor,
    transform: Transform,
    pooled: Collection[str],
    dtype: torch.dtype = torch.float32,
) -> State:
    """Return the state of uint8 pictures (B, S, S, 3) before the first layer of a backbone."""
    colors = {HISTOGRAM: color_histogram(views)} if HISTOGRAM in pooled else {}
    return State(normalise(views, transform).to(dtype), colors)


def advance(layer: Layer, state: State, pooled: Collection[str]) -> State:
    """Run one layer of a backbone, and add what `pooled` names of it to the state."""
    x = layer.module(state.output)
    of_layer = (name for name in pooled if layer_of(name) == layer.name)
    seen = {name: pool(layer.reading, x, name) for name in of_layer}
    return State(x, {**state.pooled, **seen})


def pool(reading: Reading, output: Tensor, pooled: str) -> Tensor:
    """Return what heads see of a layer's output by a name of it, (B, values) float32."""
    if pooled.endswith(TOKEN):
        return reading.class_token(output).float()
    return channel_moments(reading.places(output), contrast=pooled.endswith(CONTRAST))


def normalise(views: Tensor, transform: Transform) -> Tensor:
    """Turn uint8 pictures (B, S, S, 3) into normalised floats (B, 3, S, S), channels last."""
    mean = torch.tensor(transform.mean, device=views.device)
    std = torch.tensor(transform.std, device=views.device)
    # By whole lines of pixels: operating on three numbers at a time is slow.
    scale, shift = (line.repeat(views.shape[2]) for line in (1 / (255 * std), -mean / std))
    x = views.flatten(2).float().mul_(scale).add_(shift)
    return x.view(views.shape).permute(0, 3, 1, 2)
