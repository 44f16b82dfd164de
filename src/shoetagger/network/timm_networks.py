"""Backbones of timm (PyTorch Image Models), which is imported when one is first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from .layers import ModelError
from .library import Normalisation, Tokens, unknown


class Timm:
    """timm's networks, such as `vit_base_patch14_dinov2` or `resnet18.a1_in1k`; see `Library`."""

    def create(self, name: str) -> nn.Module:
        return self._create(name, pretrained=False)

    def _create(self, name: str, *, pretrained: bool) -> nn.Module:
        network: nn.Module = _timm(name).create_model(name, pretrained=pretrained)
        return network

    def features(self, network: nn.Module) -> nn.Module:
        return _Features(network)

    def is_head(self, part: str, module: nn.Module) -> bool:  # noqa: ARG002 - `features` has none
        return False

    def tokens(self, network: nn.Module) -> Tokens | None:
        extra = getattr(network, "num_prefix_tokens", None)
        height, width = getattr(getattr(network, "patch_embed", None), "grid_size", (0, 1))
        if extra is None or height != width:
            return None
        return Tokens(extra, getattr(network, "cls_token", None) is not None, height)

    def side(self, name: str) -> int:
        return int(self._config(name).input_size[-1])

    def resize(self, network: nn.Module, size: int) -> None:
        if hasattr(network, "set_input_size"):
            resize: Any = network.set_input_size
            resize(img_size=(size, size))

    def normalisation(self, name: str) -> Normalisation:
        config = self._config(name)
        return Normalisation(_three(config.mean), _three(config.std))

    def pretrained(self, name: str) -> Mapping[str, Tensor]:
        try:
            return self._create(name, pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:  # as the hub's client, and timm, raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(
                f"the weights of timm's {name} are not available ({reason}): connect this machine, "
                "or copy the cache of one that has them (HF_HOME names its folder), or bring a "
                "file: train.weights=data/weights/NAME.safetensors"
            ) from None

    def origin(self, name: str) -> tuple[str, str | None]:
        config = self._config(name)
        return f"timm {config.hf_hub_id or config.url or name}", config.license

    def _config(self, name: str) -> Any:
        return _timm(name).get_pretrained_cfg(name)


def _timm(name: str) -> ModuleType:
    """Return timm, which must have a network of this name; raises ModelError."""
    try:
        import timm  # takes a second that other backbones need not wait
    except ImportError as error:
        raise ModelError(
            f"the backbone timm:{name} needs the package timm, which this Python lacks ({error}): "
            'run `make setup`, or `pip install "shoetagger[timm]"`'
        ) from None
    if not timm.is_model(name):
        raise unknown(name, "timm", timm.list_models())
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # what stands after the dot is no tag of its weights
        raise ModelError(f"train.arch: timm:{name}: {error}") from None
    return timm


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


class _Features(nn.Module):
    """A network without its head: (B, 3, S, S) to its last map or tokens."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        run: Any = self.network.forward_features
        features: Tensor = run(x)
        return features
