"""The parts of a network by name, and the file of its weights; imports no torch.

So whatever only reads bundle.json, such as registering a model, starts without torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from ..errors import ShoetaggerError

HISTOGRAM = "histogram"
CONTRAST = "_contrast"
TOKEN = "_token"

WEIGHTS_FILE = "weights.safetensors"

# Backbones that were there before all others: their bundles keep their digests.
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

STEM = "stem"
_LAYER = re.compile(r"stem|layer[1-9]")
_ARCH = re.compile(r"(timm:)?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?")


class ModelError(ShoetaggerError):
    """Weights are unavailable, or a bundle is not what it claims to be."""


def is_arch(name: str) -> bool:
    """Tell whether a name is written as backbones are: resnet18, timm:NAME or timm:NAME.TAG."""
    return _ARCH.fullmatch(name) is not None


def library_of(arch: str) -> str:
    """Return the package that a backbone is from."""
    return "timm" if arch.startswith("timm:") else "torchvision"


def is_layer(name: str) -> bool:
    """Tell whether a layer of some backbone may have a name; `cut` says which ones there are."""
    return _LAYER.fullmatch(name) is not None


def in_order(layers: Collection[str]) -> tuple[str, ...]:
    """Return the names of a backbone's layers in the order in which they run."""
    return tuple(sorted(layers, key=lambda name: (name != STEM, name)))


def layer_of(pooled: str) -> str:
    """Return the layer that a name of what a head sees is about."""
    return pooled.removesuffix(CONTRAST).removesuffix(TOKEN)


def is_seen_by(pooled: str, layers: Collection[str]) -> bool:
    """Return whether what a name stands for is available once these first layers have run."""
    return pooled == HISTOGRAM or layer_of(pooled) in layers


def frozen_layers(layers: Sequence[str], freeze: str) -> tuple[str, ...]:
    """Return the layers that `train.freeze` names: all up to and including it."""
    if freeze == "none":
        return ()
    if freeze not in layers:
        raise ModelError(
            f"train.freeze: the backbone has no layer {freeze!r}: name one of "
            f"{', '.join(layers)}, or none"
        )
    return tuple(layers[: layers.index(freeze) + 1])


def trained_layers(layers: Sequence[str], freeze: str) -> tuple[str, ...]:
    """Return the layers after the one that `train.freeze` names."""
    return tuple(layers[len(frozen_layers(layers, freeze)) :])
