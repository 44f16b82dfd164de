"""Digests of weights and of each prefix of a backbone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..images.views import Transform
from .backbone import LAYERS, TagModel


def prefix_digests(model: TagModel, transform: Transform) -> dict[str, str]:
    """Return for each layer a digest of all that its output depends on: transform and weights.

    Two models whose digest of a layer is equal give equal outputs up to that layer, so that it
    needs to run once for both.
    """
    chain = hashlib.sha256(canonical({"transform": transform.as_dict()}))
    digests = {}
    for layer in LAYERS:
        chain.update(digest_of_tensors(getattr(model, layer).state_dict()).digest())
        digests[layer] = chain.hexdigest()
    return digests


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> hashlib._Hash:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest


def canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
