"""Digests of weights and of each prefix of a backbone; imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .layers import RESNETS

if TYPE_CHECKING:
    from torch import Tensor

    from ..images.views import Transform
    from .backbone import TagModel


def prefix_digests(model: TagModel, transform: Transform) -> dict[str, str]:
    """Return per layer a digest of all that its output depends on: transform and weights so far.

    Two models with the same digest of a layer have the same output up to that layer, which then
    needs to run only once. What weights do depends on the backbone they belong to. It is left out
    for ResNets, whose weights' names and shapes differ, so that their old digests hold.
    """
    described: dict[str, Any] = {"transform": transform.as_dict()}
    if model.arch not in RESNETS:
        described["arch"] = model.arch
    chain = hashlib.sha256(canonical(described))
    digests = {}
    for layer in model.layers:
        chain.update(digest_of_tensors(model.get_submodule(layer).state_dict()).digest())
        digests[layer] = chain.hexdigest()
    return digests


def digest_of_tensors(tensors: Mapping[str, Tensor]) -> hashlib._Hash:
    """Return the sha256 of names, dtypes, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        tensor = tensor.detach().cpu()
        try:
            array = np.ascontiguousarray(tensor.numpy())
        except TypeError:  # NumPy lacks bfloat16 and floats of 8 bits: float32 holds their values
            array = np.ascontiguousarray(tensor.float().numpy())
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return a document as JSON bytes that are equal for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
