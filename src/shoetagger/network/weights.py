"""Weights of a network: pretrained, saved and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ..atomic import atomic_write
from ..images.detector import TENSOR
from .backbone import TagModel
from .cut import cut_of
from .digests import digest_of_tensors, file_sha256
from .layers import ModelError, library_of
from .libraries import library
from .origin import Origin


def build(
    arch: str, tags: int, weights: str, pooled: tuple[str, ...], dropout: float, *, size: int
) -> tuple[TagModel, str | None]:
    """Return a model to train, and the digest of the pretrained backbone it starts from, if any.

    `weights` is "none" (random), "imagenet" (torchvision's, through its own download and cache),
    "pretrained" (those of the backbone's library) or a safetensors file, whose tensors have the
    names of the library's own network. `size` is the side of the pictures in pixels. Raises
    ModelError where weights are not available or do not fit.
    """
    if weights == "none":
        return TagModel(arch, tags, pooled, dropout, size=size), None
    state = _pretrained(arch, weights)
    model = TagModel(arch, tags, pooled, dropout, size=size, weights=state)
    backbone = {name: t for name, t in state.items() if name in cut_of(arch).tensors}
    return model, digest_of_tensors(backbone).hexdigest()


def origin_of(arch: str, weights: str) -> Origin | None:
    """Return where the weights that `build` starts from come from; None for random ones."""
    if weights == "none":
        return None
    package = library_of(arch)
    runs = f"{package} {version(package).partition('+')[0]}"
    if weights in _WORDS:
        source, name = library(arch)
        return Origin(*source.origin(name), runs)
    header = _header(Path(weights))
    return Origin(header.get("source") or Path(weights).name, header.get("license"), runs)


_WORDS = ("imagenet", "pretrained")


def _pretrained(arch: str, weights: str) -> Mapping[str, Tensor]:
    source, name = library(arch)
    if weights == "imagenet" and library_of(arch) != "torchvision":
        raise ModelError(
            f"train.weights: imagenet are torchvision's weights; those that timm has of {arch} are "
            "train.weights=pretrained"
        )
    if weights in _WORDS:
        return source.pretrained(name)
    path = Path(weights)
    _header(path)
    tensors: Mapping[str, Tensor] = load_file(path)
    return tensors


def _header(path: Path) -> Mapping[str, str]:
    """Return the metadata of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise ModelError(
            f"train.weights: {path} is missing: put the file there and run `dvc add data`, or "
            "restore it with `dvc checkout data.dvc`"
        ) from None
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"train.weights: {path} is no safetensors file ({error}); "
            "`safetensors.torch.save_file` writes one from a state_dict"
        ) from None


def save_weights(
    model: TagModel, path: Path, pretrained: str | None, detector: bytes | None = None
) -> str:
    """Write the weights atomically as safetensors, and return the sha256 of the file.

    The file's header carries the digest of the pretrained backbone they come from. A shoe detector,
    the bytes of a TFLite file, goes with them wherever the model goes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if detector is not None:
        tensors[TENSOR] = torch.frombuffer(bytearray(detector), dtype=torch.uint8)
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={"pretrained": pretrained or ""}))
    return file_sha256(path)


def load_trained(
    arch: str, tags: int, pooled: tuple[str, ...], path: Path, *, size: int, dropout: float = 0.0
) -> TagModel:
    """Return a model with saved weights, on the CPU; raises ModelError where they do not fit."""
    model = _blank(arch, tags, pooled, dropout, size)
    try:
        tensors = load_file(path)
        tensors.pop(TENSOR, None)
        model.load_state_dict(tensors, assign=True)
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing: restore it with `dvc checkout` or `dvc repro`"
        ) from None
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} does not contain the weights of this model: {error}") from None
    return model


def _blank(arch: str, tags: int, pooled: tuple[str, ...], dropout: float, size: int) -> TagModel:
    """Return a model without weights where possible: a random start for nothing takes time."""
    try:
        with torch.device("meta"):
            model = TagModel(arch, tags, pooled, dropout, size=size)
    except NotImplementedError:  # it computes something from numbers while it is made
        return TagModel(arch, tags, pooled, dropout, size=size)
    # What is computed rather than saved, such as a table of positions.
    if model.state_dict().keys() != {name for name, _ in _tensors(model)}:
        return TagModel(arch, tags, pooled, dropout, size=size)
    return model


def _tensors(model: TagModel) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def pretrained_of(path: Path) -> str | None:
    """Return the digest of the pretrained backbone that a weights file was trained from."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("pretrained") or None
