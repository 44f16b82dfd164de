"""Small bundles with random weights for tests: real models, nothing learned."""

from __future__ import annotations

import atexit
import copy
import functools
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import BUNDLE_FILE, Bundle, load_bundle, save_bundle
from shoetagger.inference.loading import load_model
from shoetagger.network.backbone import TagModel, begin
from shoetagger.network.digests import prefix_digests
from shoetagger.network.layers import WEIGHTS_FILE
from shoetagger.network.weights import save_weights

# A thirtieth of a ResNet-18: tests that are about other things spent most of their time on writing,
# hashing and reading weights.
SMALL = "shufflenet_v2_x0_5"
TRANSFORM = Transform(size=32)
POOLED = ("layer1", "layer4")
LAYERS = ("stem", "layer1", "layer2", "layer3", "layer4")


def random_model(
    tags: int,
    *,
    backbone_seed: int,
    head_seed: int,
    shared: str = "layer4",
    pooled: tuple[str, ...] = POOLED,
    arch: str = "resnet18",
) -> TagModel:
    """Make a model whose backbone is that of `backbone_seed` up to `shared`, its own after."""
    with torch.device("meta"):  # the layers are put in below
        model = TagModel(arch, tags, pooled)
    for place, layer in enumerate(LAYERS):
        seed = backbone_seed if place <= LAYERS.index(shared) else head_seed
        setattr(model, layer, copy.deepcopy(getattr(_backbone(arch, seed), layer)))
    torch.manual_seed(head_seed)
    width = sum(model.widths)
    model.norm, model.head = nn.BatchNorm1d(width, affine=False), nn.Linear(width, tags)
    return model.eval()


@functools.lru_cache(maxsize=4)  # of 45 MB or less
def _backbone(arch: str, seed: int) -> TagModel:
    """Draw a model to copy layers from: drawing eleven million numbers takes far longer."""
    torch.manual_seed(seed)
    return TagModel(arch, 1)


def write_bundle(directory: Path, group: str = "color", *arguments: Any, **options: Any) -> Bundle:
    """Write a bundle's two files into `directory`, as `make_bundle` does; return the bundle.

    Equal ones are made once per process: the weights are links to one file, never to be written in
    place. Code under test replaces whole files.
    """
    made, bundle, written = _made(group, *arguments, **options)
    assert _stamp(made) == written, f"a test wrote into the weights that others share: {made}"
    directory.mkdir(parents=True, exist_ok=True)
    save_bundle(bundle, directory / BUNDLE_FILE)
    target = directory / WEIGHTS_FILE
    target.unlink(missing_ok=True)
    try:
        os.link(made / WEIGHTS_FILE, target)
    except OSError:  # on another disk
        shutil.copy(made / WEIGHTS_FILE, target)
    return bundle


@functools.cache
def _made(*arguments: Any, **options: Any) -> tuple[Path, Bundle, tuple[int, int]]:
    folder = Path(tempfile.mkdtemp(dir=_shelf()))
    bundle = make_bundle(folder, *arguments, **options)
    return folder, bundle, _stamp(folder)


@functools.cache
def _shelf() -> Path:
    atexit.register(forget)
    return Path(tempfile.mkdtemp(prefix="shoetagger-bundles-"))


def forget() -> None:
    """Remove the bundles that this process has made for its tests."""
    if _shelf.cache_info().currsize:
        shutil.rmtree(_shelf(), ignore_errors=True)
    _made.cache_clear()
    _shelf.cache_clear()


def _stamp(folder: Path) -> tuple[int, int]:
    found = (folder / WEIGHTS_FILE).stat()
    return found.st_size, found.st_mtime_ns


def make_bundle(
    directory: Path,
    group: str = "color",
    tags: tuple[str, ...] = ("black", "white", "red"),
    *,
    backbone_seed: int = 1,
    head_seed: int = 1,
    shared: str = "layer4",
    pooled: tuple[str, ...] = POOLED,
    arch: str = SMALL,
    transform: Transform = TRANSFORM,
    thresholds: tuple[float, ...] | None = None,
    none_below: float | None = None,
    unsure_above: float | None = None,
) -> Bundle:
    """Make a small model, write the two files of its bundle into `directory`, return the bundle."""
    seeds = {"backbone_seed": backbone_seed, "head_seed": head_seed}
    model = random_model(len(tags), **seeds, shared=shared, pooled=pooled, arch=arch)
    digest = save_weights(model, directory / WEIGHTS_FILE, None)
    bundle = Bundle(
        group=group,
        tags=tags,
        arch=arch,
        pooled=pooled,
        transform=transform,
        thresholds=thresholds or (0.5,) * len(tags),
        support=(10,) * len(tags),
        prefixes=prefix_digests(model, transform),
        pretrained=None,
        weights_sha256=digest,
        none_below=none_below,
        unsure_above=unsure_above,
    )
    save_bundle(bundle, directory / BUNDLE_FILE)
    return bundle


def scores_alone(folders: Iterable[Path], batch: np.ndarray) -> dict[str, np.ndarray]:
    """Digest -> scores of each bundle's model, run by itself on pictures of its size."""
    found = {}
    for folder in folders:
        bundle = load_bundle(folder)
        with torch.inference_mode():
            state = begin(torch.from_numpy(batch), bundle.transform, bundle.pooled)
            found[bundle.digest] = torch.sigmoid(load_model(folder, bundle)(state)).numpy()
    return found
