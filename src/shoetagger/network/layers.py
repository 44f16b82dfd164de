"""The parts of a network by name, and the file of its weights; imports no torch.

So whatever only reads bundle.json, such as registering a model, starts without torch.
"""

from __future__ import annotations

from collections.abc import Collection

from ..errors import ShoetaggerError

ARCHITECTURES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")
HISTOGRAM = "histogram"
CONTRAST = "_contrast"

# What a head can see: colours, each layer as a whole, and what stands out from its border.
POOLED = (HISTOGRAM, *LAYERS, *(layer + CONTRAST for layer in LAYERS))

WEIGHTS_FILE = "weights.safetensors"


class ModelError(ShoetaggerError):
    """Weights are unavailable, or a bundle is not what it claims to be."""


def layer_of(pooled: str) -> str:
    """Return the layer that a name among POOLED is about."""
    return pooled.removesuffix(CONTRAST)


def is_seen_by(pooled: str, layers: Collection[str]) -> bool:
    """Return whether a name among POOLED is available once these first layers have run."""
    return pooled == HISTOGRAM or layer_of(pooled) in layers


def frozen_layers(freeze: str) -> tuple[str, ...]:
    """Return the layers that `train.freeze` names: all up to and including it."""
    return () if freeze == "none" else LAYERS[: LAYERS.index(freeze) + 1]


def trained_layers(freeze: str) -> tuple[str, ...]:
    """Return the layers after the one that `train.freeze` names."""
    return LAYERS[len(frozen_layers(freeze)) :]
