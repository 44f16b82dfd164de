"""Bundles to measure with: of real size, and sharing the layers that `train.freeze` names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import BUNDLE_FILE, Bundle, save_bundle
from shoetagger.network.backbone import TagModel
from shoetagger.network.digests import prefix_digests
from shoetagger.network.layers import WEIGHTS_FILE, trained_layers
from shoetagger.network.weights import build, save_weights

ARCH = "resnet18"
TAGS = (7, 7, 5)  # of the article's three groups; more groups repeat them


def group_names(groups: int) -> list[str]:
    return [f"group{number:02d}" for number in range(1, groups + 1)]


def make_bundles(
    folder: Path,
    groups: int,
    freeze: str,
    pooled: Sequence[tuple[str, ...]],
    transform: Transform,
    arch: str = ARCH,
) -> list[Path]:
    """Write a bundle per group below `folder`, and return their folders.

    The backbone is ImageNet's where it is cached, else random. The layers after `freeze` get
    different noise in each group, so that no two groups share a digest there. The heads take turns
    with the entries of `pooled`.
    """
    torch.manual_seed(0)
    backbone = _backbone(arch, transform.size)
    folders = []
    for number, group in enumerate(group_names(groups)):
        torch.manual_seed(number)
        tags, seen = TAGS[number % len(TAGS)], pooled[number % len(pooled)]
        model = TagModel(arch, tags, seen, size=transform.size)
        model.load_state_dict(backbone, strict=False)
        for layer in trained_layers(model.layers, freeze):
            for weights in model.get_submodule(layer).parameters():
                weights.data += 0.01 * weights.std() * torch.randn_like(weights)
        names = tuple(f"{group}_{number}" for number in range(model.head.out_features))
        folders.append(write_bundle(folder / group, group, names, model, transform))
    return folders


def _backbone(arch: str, size: int) -> dict[str, Tensor]:
    weights = "imagenet" if imagenet_cached(arch) else "none"
    model, _ = build(arch, 1, weights, ("layer4",), 0.0, size=size)
    return {k: v for k, v in model.state_dict().items() if not k.startswith(("head", "norm"))}


def imagenet_cached(arch: str = ARCH) -> bool:
    """Return whether torch's cache has the weights: a measurement downloads nothing."""
    return any((Path(torch.hub.get_dir()) / "checkpoints").glob(f"{arch}-*.pth"))


def write_bundle(
    folder: Path, group: str, tags: tuple[str, ...], model: TagModel, transform: Transform
) -> Path:
    """Write the two files of a model's bundle, with thresholds of 0.5, and return the folder."""
    digest = save_weights(model.eval(), folder / WEIGHTS_FILE, None)
    bundle = Bundle(
        group=group,
        tags=tags,
        arch=model.arch,
        pooled=model.pooled,
        transform=transform,
        thresholds=(0.5,) * len(tags),
        support=(10,) * len(tags),
        prefixes=prefix_digests(model, transform),
        pretrained=None,
        weights_sha256=digest,
    )
    save_bundle(bundle, folder / BUNDLE_FILE)
    return folder
