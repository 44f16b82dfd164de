"""The network: a ResNet backbone in layers, and a head on what it pools."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from ..images.views import Transform
from .layers import CONTRAST, HISTOGRAM, LAYERS, layer_of
from .pooling import BINS, channel_moments, color_histogram


class State(NamedTuple):
    """What passes from layer to layer: the activation map, and what heads see of earlier layers."""

    map: Tensor  # (B, channels, height, width)
    pooled: Mapping[str, Tensor]  # name among POOLED -> (B, values), where a head uses it


class TagModel(nn.Module):
    """A ResNet backbone in five layers and a linear head with one logit per tag.

    The head sees the concatenation of what `pooled` names: the spatial means and standard
    deviations of a layer's channels (colours show in early layers, shapes in late ones); with
    `_contrast`, the same of what stands out from the layer's border, so of the shoe rather than the
    background; with `histogram`, the colours of what stands out.
    """

    def __init__(
        self, arch: str, tags: int, pooled: tuple[str, ...] = ("layer4",), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.arch, self.pooled = arch, pooled
        resnet = torchvision.models.get_model(arch, weights=None)
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=resnet.conv1, bn1=resnet.bn1, relu=resnet.relu, maxpool=resnet.maxpool
            )
        )
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        self.widths = tuple(self._width(name) for name in pooled)
        # Standardises the inputs: early layers are an order of magnitude smaller than late ones.
        self.norm = nn.BatchNorm1d(sum(self.widths), affine=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sum(self.widths), tags)

    def forward(self, state: State) -> Tensor:
        """Return the logits (B, tags) of the state that `begin` returns."""
        return self.finish(self.run(state, LAYERS))

    def run(self, state: State, layers: tuple[str, ...]) -> State:
        """Run the named layers, in order, on the state after the layer before them."""
        for layer in layers:
            state = advance(getattr(self, layer), layer, state, self.pooled)
        return state

    def seen(self, state: State) -> Tensor:
        """Return what the head sees, (B, sum of `widths`), of the state after the last layer."""
        return torch.cat([state.pooled[name] for name in self.pooled], dim=1)

    def finish(self, state: State) -> Tensor:
        """Return the logits (B, tags) of the state after the last layer."""
        logits: Tensor = self.head(self.dropout(self.norm(self.seen(state))))
        return logits

    def _width(self, pooled: str) -> int:
        return BINS if pooled == HISTOGRAM else 2 * layer_channels(self, layer_of(pooled))


def begin(
    views: Tensor,
    transform: Transform,
    pooled: Collection[str],
    dtype: torch.dtype = torch.float32,
) -> State:
    """Return the state of uint8 pictures (B, S, S, 3) before the first layer of a backbone."""
    colors = {HISTOGRAM: color_histogram(views)} if HISTOGRAM in pooled else {}
    return State(normalise(views, transform).to(dtype), colors)


def advance(layer: nn.Module, name: str, state: State, pooled: Collection[str]) -> State:
    """Run one layer of a backbone, and add what `pooled` names of it to the state."""
    x = layer(state.map)
    moments = {
        seen: channel_moments(x, contrast=seen.endswith(CONTRAST))
        for seen in pooled
        if layer_of(seen) == name
    }
    return State(x, {**state.pooled, **moments})


def layer_channels(model: TagModel, layer: str) -> int:
    """Return the number of channels that a layer of the backbone outputs."""
    convolutions = [m for m in getattr(model, layer).modules() if isinstance(m, nn.Conv2d)]
    # A block's downsampling convolution comes after its main path and has as many channels.
    return convolutions[-1].out_channels


def normalise(views: Tensor, transform: Transform) -> Tensor:
    """Turn uint8 pictures (B, S, S, 3) into normalised floats (B, 3, S, S), channels last."""
    mean = torch.tensor(transform.mean, device=views.device)
    std = torch.tensor(transform.std, device=views.device)
    # By whole lines of pixels: operating on three numbers at a time is slow.
    scale, shift = (line.repeat(views.shape[2]) for line in (1 / (255 * std), -mean / std))
    x = views.flatten(2).float().mul_(scale).add_(shift)
    return x.view(views.shape).permute(0, 3, 1, 2)
