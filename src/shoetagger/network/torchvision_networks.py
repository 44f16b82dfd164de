"""Backbones of torchvision."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.models.vision_transformer import interpolate_embeddings

from ..images.views import IMAGENET_MEAN, IMAGENET_STD
from .layers import ModelError
from .library import Normalisation, Tokens, unknown

_HEADS = ("classifier", "fc", "head", "heads")
_WEIGHTS = "IMAGENET1K_V1"  # pinned: `DEFAULT`, and the digests with it, would change
# Their weights take values from -1 to 1; the last two turn those of the others into these, in a
# step outside their layers.
_FROM_MINUS_ONE = ("efficientnet_v2_l", "googlenet", "inception_v3")
_LICENSE = "bsd-3-clause"  # torchvision's own; its weights state no other


class Torchvision:
    """torchvision's classification networks, such as `resnet18`; see `Library`."""

    def create(self, name: str) -> nn.Module:
        known = torchvision.models.list_models(module=torchvision.models)
        if name not in known:
            raise unknown(name, "torchvision", known)
        options = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
        network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
        return network

    def features(self, network: nn.Module) -> nn.Module:
        return _Tokens(network) if isinstance(network, VisionTransformer) else network

    def is_head(self, part: str, module: nn.Module) -> bool:
        return isinstance(module, nn.AdaptiveAvgPool2d) or part.partition(".")[0] in _HEADS

    def tokens(self, network: nn.Module) -> Tokens | None:
        if not isinstance(network, VisionTransformer):
            return None
        return Tokens(1, True, network.image_size // network.patch_size)

    def side(self, name: str) -> int:  # noqa: ARG002 - the vision transformers are built for it
        return 224

    def resize(self, network: nn.Module, size: int) -> None:
        if not isinstance(network, VisionTransformer) or size == network.image_size:
            return
        patch = network.patch_size
        if size % patch:
            raise ModelError(f"images.size: {size} is no multiple of the {patch} pixels of a patch")
        at = "encoder.pos_embedding"
        embedding = network.encoder.pos_embedding
        resized = interpolate_embeddings(size, patch, {at: embedding.detach()})[at]
        network.encoder.pos_embedding = nn.Parameter(resized)
        network.image_size = size

    def normalisation(self, name: str) -> Normalisation:
        if name in _FROM_MINUS_ONE:
            return Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        return Normalisation(IMAGENET_MEAN, IMAGENET_STD)

    def pretrained(self, name: str) -> Mapping[str, Tensor]:
        named = torchvision.models.get_model_weights(name).__members__
        if _WEIGHTS not in named:
            raise ModelError(
                f"train.weights: torchvision has no {_WEIGHTS} of {name}: bring a file"
            )
        weights = named[_WEIGHTS]
        try:
            state: Mapping[str, Tensor] = weights.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
            return state
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            damaged = (
                f"remove the damaged {cache} and" if cache.exists() else "connect this machine or"
            )
            raise ModelError(
                f"the ImageNet weights of {name} are not available ({reason}): {damaged} copy the "
                f"file there ({cache}; TORCH_HOME moves that folder), or train without them: "
                "train.weights=none with train.freeze=none"
            ) from None

    def origin(self, name: str) -> tuple[str, str | None]:
        return f"torchvision {name} {_WEIGHTS}", _LICENSE


class _Tokens(nn.Module):
    """A vision transformer without its head: (B, 3, S, S) to (B, 1 + places, channels)."""

    def __init__(self, network: VisionTransformer) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        patches = self.network._process_input(x)
        token = self.network.class_token.expand(len(x), -1, -1)
        tokens: Tensor = self.network.encoder(torch.cat([token, patches], dim=1))
        return tokens
