"""A short vector of what a head sees of a picture, by which alike pictures are found."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..network.backbone import TagModel
from ..network.digests import canonical
from .bundle import Bundle

DIMENSIONS = 64
_SPACE_BYTES = 8


class Projection(NamedTuple):
    """Maps what a bundle's head sees to vectors, all of one space."""

    space: bytes  # vectors can be compared if it is equal
    weight: Tensor  # (DIMENSIONS, width)
    bias: Tensor  # (DIMENSIONS,)

    def vectors(self, pooled: Tensor) -> np.ndarray:
        """Return the vectors (B, DIMENSIONS) int8 of what a head sees, (B, width).

        Their lengths mean nothing: alike pictures have vectors of a small angle.
        """
        projected = torch.nn.functional.linear(pooled, self.weight, self.bias)
        largest = projected.abs().amax(1, keepdim=True).clamp_min(1e-12)
        vectors: np.ndarray = (127 * projected / largest).round().to(torch.int8).cpu().numpy()
        return vectors


def projection_of(bundle: Bundle, model: TagModel, device: torch.device) -> Projection:
    """Return the projection that belongs to a bundle.

    Random signs keep angles (Johnson and Lindenstrauss, 1984; Achlioptas, 2003). Two versions that
    share their layers share the space, although what is usual in training may differ a little.
    """
    seen = {name: tensor.double() for name, tensor in model.norm.state_dict().items()}
    width = sum(model.widths)
    bits = hashlib.shake_256(b"shoetagger vectors").digest(-(-DIMENSIONS * width // 8))
    signs = np.unpackbits(np.frombuffer(bits, np.uint8))[: DIMENSIONS * width]
    weight = torch.from_numpy(2.0 * signs - 1).reshape(DIMENSIONS, width)
    weight = weight / torch.sqrt(seen["running_var"] + model.norm.eps)
    bias = -weight @ seen["running_mean"]
    named = {"backbone": bundle.prefixes[bundle.layers[-1]], "pooled": list(bundle.pooled)}
    space = hashlib.sha256(canonical(named)).digest()[:_SPACE_BYTES]
    return Projection(space, weight.float().to(device), bias.float().to(device))
