"""How the output of a layer is read: as places of a map, and as a class token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor, nn


@dataclass(frozen=True)
class Reading:
    """How the output of a layer is read.

    It is a map (B, channels, height, width), or with the channels last, or tokens (B, N, channels):
    `extra` ones, of which the first may be a class token, and one for each place, line by line.
    """

    kind: Literal["channels first", "channels last", "tokens"]
    channels: int
    extra: int = 0
    has_class_token: bool = False

    def places(self, output: Tensor) -> Tensor:
        """Return what is known of each place, (B, height, width, channels)."""
        if self.kind == "channels first":
            return output.permute(0, 2, 3, 1)
        if self.kind == "channels last":
            return output
        side = math.isqrt(output.shape[1] - self.extra)
        return output[:, self.extra :].view(len(output), side, side, self.channels)

    def class_token(self, output: Tensor) -> Tensor:
        """Return the class token, (B, channels)."""
        return output[:, 0]


class Layer(NamedTuple):
    """A layer of a backbone.

    `norms` are the pairs of a convolution and the batch normalisation of what it outputs, by their
    names in the module.
    """

    name: str
    module: nn.Module
    reading: Reading
    norms: tuple[tuple[str, str], ...] = ()
