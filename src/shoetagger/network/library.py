"""What a library that backbones come from has to tell of its networks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from .layers import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn


class Normalisation(NamedTuple):
    """What is subtracted from the channels of pixels in 0..1, and what they are divided by."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Tokens(NamedTuple):
    """The tokens of a vision transformer: some `extra` ones, then `side` times `side` places."""

    extra: int
    has_class_token: bool  # as the first of the extra ones
    side: int


class Library(Protocol):
    """A package of networks, which it makes by their name."""

    def create(self, name: str) -> nn.Module:
        """Return a network with random weights; raises ModelError where there is none."""

    def features(self, network: nn.Module) -> nn.Module:
        """Return what runs a network on (B, 3, S, S) up to its last map, or whole."""

    def is_head(self, part: str, module: nn.Module) -> bool:
        """Tell whether a part of a network comes after its last map."""

    def tokens(self, network: nn.Module) -> Tokens | None:
        """Return what the tokens of a vision transformer are; None of other networks."""

    def side(self, name: str) -> int:
        """Return the side, in pixels, of the pictures that a network is made for."""

    def resize(self, network: nn.Module, size: int) -> None:
        """Make a network take pictures of another size."""

    def normalisation(self, name: str) -> Normalisation:
        """Return how pictures are normalised for a network."""

    def pretrained(self, name: str) -> Mapping[str, Tensor]:
        """Return the library's own weights of a network, downloaded or from its cache.

        Raises ModelError where there are none, or they are not available.
        """

    def origin(self, name: str) -> tuple[str, str | None]:
        """Return where these weights come from, and the name of their licence."""


def unknown(name: str, where: str, known: Iterable[str]) -> ModelError:
    """Return the error for a backbone that a library does not have."""
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return ModelError(f"train.arch: {where} has no backbone {name!r}{hint}")
