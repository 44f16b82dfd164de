"""A vision transformer in the engine's place, to measure what a larger backbone would cost.

No bundle can hold one: weights are random, heads are linear on the class token.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import Bundle
from shoetagger.inference.engine import Engine
from shoetagger.network.backbone import normalise
from shoetagger.network.devices import pick_device, pick_dtype

from .bundles import TAGS, group_names

ARCH = "vit_b_16"


class VisionTransformerEngine(Engine):
    """Scores as an Engine does, with one transformer shared by three groups."""

    def __init__(self, transform: Transform, device: str, arch: str = ARCH) -> None:
        torch.manual_seed(0)
        self.device = pick_device(device)
        self.dtype = pick_dtype(self.device)
        self.transforms = (transform,)
        model = get_model(arch, weights=None, image_size=transform.size)
        width = model.hidden_dim
        model.heads = nn.Identity()
        self.model = model.eval().to(self.device, self.dtype)
        self.head = nn.Linear(width, sum(TAGS)).eval().to(self.device)
        self.bundles = tuple(_bundle(arch, transform, number) for number in range(len(TAGS)))
        self._projections = {bundle.digest: None for bundle in self.bundles}

    @cached_property
    def _ends(self) -> Sequence[int]:
        return list(np.cumsum(TAGS)[:-1])

    @torch.inference_mode()
    def _run(
        self, views: Mapping[Transform, np.ndarray], wanted: Collection[str]
    ) -> dict[str, np.ndarray]:
        host = torch.from_numpy(views[self.transforms[0]])
        if self.device.type == "cuda":
            host = host.pin_memory()
        images = host.to(self.device, non_blocking=True)
        parts = np.split(self.heads(self.trunk(images)), self._ends, axis=1)
        scores = {b.digest: part for b, part in zip(self.bundles, parts, strict=True)}
        return {digest: part for digest, part in scores.items() if digest in wanted}

    def trunk(self, images: Tensor) -> Tensor:
        """Return the class token (B, width) of uint8 pictures (B, S, S, 3)."""
        token: Tensor = self.model(normalise(images, self.transforms[0]).to(self.dtype))
        return token

    def heads(self, token: Tensor) -> np.ndarray:
        """Return the scores (B, tags of all groups) float32."""
        scores: np.ndarray = torch.sigmoid(self.head(token.float())).cpu().numpy()
        return scores


def _bundle(arch: str, transform: Transform, number: int) -> Bundle:
    group = group_names(len(TAGS))[number]
    tags = tuple(f"{group}_{place}" for place in range(TAGS[number]))
    return Bundle(
        group=group,
        tags=tags,
        arch=arch,
        pooled=("class token",),
        transform=transform,
        thresholds=(0.5,) * len(tags),
        support=(10,) * len(tags),
        prefixes={},
        pretrained=None,
        weights_sha256="",
    )
