"""Weights of a network: pretrained, saved and loaded."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ..atomic import atomic_write
from .backbone import TagModel
from .digests import digest_of_tensors, file_sha256
from .layers import ModelError


def build(
    arch: str, tags: int, weights: str, pooled: tuple[str, ...], dropout: float
) -> tuple[TagModel, str | None]:
    """Return a model to train, and the digest of the pretrained backbone it starts from, if any.

    `weights` is "imagenet" (through torchvision's own download and cache) or "none" (random).
    """
    model = TagModel(arch, tags, pooled, dropout)
    if weights == "none":
        return model, None
    pretrained = _imagenet(arch)
    backbone = {k: v for k, v in pretrained.items() if not k.startswith("fc.")}
    state = model.state_dict()
    for name, tensor in backbone.items():
        state[name if name.startswith("layer") else f"stem.{name}"].copy_(tensor)
    return model, digest_of_tensors(backbone).hexdigest()


def _imagenet(arch: str) -> Mapping[str, Tensor]:
    weights = torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"]
    try:
        # Pinned to V1: `DEFAULT`, and the digests with it, would change with torchvision.
        state: Mapping[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
        return state
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        damaged = f"remove the damaged {cache} and" if cache.exists() else "connect this machine or"
        raise ModelError(
            f"the ImageNet weights of {arch} are not available ({reason}): {damaged} copy the file "
            f"there ({cache}; TORCH_HOME moves that folder), or train without them: "
            "train.weights=none with train.freeze=none"
        ) from None


def save_weights(model: TagModel, path: Path, pretrained: str | None) -> str:
    """Write the weights atomically as safetensors, and return the sha256 of the file.

    The file's header carries the digest of the pretrained backbone they come from.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={"pretrained": pretrained or ""}))
    return file_sha256(path)


def load_weights(model: TagModel, path: Path) -> TagModel:
    """Fill a model with saved weights, strictly; raises ModelError where they do not fit."""
    try:
        model.load_state_dict(load_file(path), assign=True)
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing: restore it with `dvc checkout` or `dvc repro`"
        ) from None
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} does not contain the weights of this model: {error}") from None
    return model


def pretrained_of(path: Path) -> str | None:
    """Return the digest of the pretrained backbone that a weights file was trained from."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("pretrained") or None
