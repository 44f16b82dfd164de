"""The libraries that backbones come from."""

from __future__ import annotations

from .layers import library_of
from .library import Library
from .timm_networks import Timm
from .torchvision_networks import Torchvision


def library(arch: str) -> tuple[Library, str]:
    """Return the library of a backbone, and the backbone's name there."""
    if library_of(arch) == "torchvision":
        return Torchvision(), arch
    return Timm(), arch.removeprefix("timm:")
