"""The frozen prefix of the backbone, computed once for all groups and many augmented views.

What training consumes is a `Source`: the states that enter the trained layers, either read from
the stage's files (`Cached`) or computed from the pictures each time (`Live`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ...errors import ShoetaggerError
from ...network.backbone import State, TagModel, begin
from ...network.digests import prefix_digests
from ...network.layers import frozen_layers, is_seen_by
from .images import ImageDataset

INDEX_FILE = "index.json"

# Augmented views to fit a head to where none are cached: each takes a pass over all pictures.
_LIVE_VIEWS = 1


class FeaturesError(ShoetaggerError):
    """The files of the stage `features` do not fit the pictures or the parameters."""


class Source(Protocol):
    """States of pictures, by row of the picture list, as they enter the trained layers."""

    @property
    def views(self) -> int:
        """Number of augmented views to fit a head to; cached views recur after as many epochs."""

    def augmented(self, rows: np.ndarray, epoch: int) -> State:
        """Return one augmented view per row, a different one in each epoch."""

    def plain(self, rows: np.ndarray) -> State:
        """Return the tagging view of each row."""


@dataclass(frozen=True)
class Index:
    """What the files contain: `views` augmented views of `image_ids` up to the layer `freeze`."""

    freeze: str
    views: int
    image_ids: tuple[str, ...]
    prefix: str | None  # digest of the frozen prefix


class Live:
    """States computed from the pictures at each call."""

    def __init__(
        self, model: TagModel, dataset: ImageDataset, freeze: str, views: int, device: torch.device
    ) -> None:
        self._model, self.views = model.to(device), views
        self._dataset, self._device = dataset, device
        self._layers = frozen_layers(model.layers, freeze)

    def augmented(self, rows: np.ndarray, epoch: int) -> State:
        return self.state([self._dataset.view(int(row), epoch) for row in rows])

    def plain(self, rows: np.ndarray) -> State:
        return self.state([self._dataset.plain(int(row)) for row in rows])

    @torch.no_grad()
    def state(self, views: Sequence[np.ndarray]) -> State:
        """Return the state of some views, each (S, S, 3) uint8, after the frozen layers."""
        batch = torch.from_numpy(np.stack(views)).to(self._device)
        state = begin(batch, self._dataset.transform, self._model.pooled)
        if not self._layers:
            return state
        # The prefix alone goes to eval mode: the layers after it may be in training.
        for layer in self._layers:
            self._model.get_submodule(layer).eval()
        return self._model.run(state, self._layers)


class Cached:
    """States read from what the stage `features` wrote."""

    def __init__(
        self,
        directory: Path,
        index: Index,
        pooled: Sequence[str],
        layers: Sequence[str],
        device: torch.device,
    ) -> None:
        self.views, self._device = index.views, device
        frozen = frozen_layers(layers, index.freeze)
        names = [f"pooled_{name}" for name in pooled if is_seen_by(name, frozen)]
        if len(frozen) < len(layers):  # after the last layer only the head runs
            names.append("map")
        try:
            self._files = {n: np.load(file_of(directory, n), mmap_mode="r") for n in names}
        except FileNotFoundError as error:
            raise FeaturesError(
                f"{error.filename} is missing: {directory} was computed for other heads; run "
                "`dvc repro --force features`"
            ) from None

    def augmented(self, rows: np.ndarray, epoch: int) -> State:
        # Each picture starts its cycle of views at another one, so that a batch mixes views.
        return self._state((rows + epoch) % self.views, rows)

    def plain(self, rows: np.ndarray) -> State:
        return self._state(np.full(len(rows), self.views), rows)

    def _state(self, views: np.ndarray, rows: np.ndarray) -> State:
        tensors = {
            name: torch.from_numpy(np.asarray(file[views, rows])).to(self._device).float()
            for name, file in self._files.items()
        }
        pooled = {k.removeprefix("pooled_"): t for k, t in tensors.items() if k != "map"}
        nothing = torch.empty(len(rows), 0, device=self._device)
        return State(tensors.get("map", nothing), pooled)


def open_source(
    directory: Path,
    model: TagModel,
    dataset: ImageDataset,
    image_ids: Sequence[str],
    freeze: str,
    device: torch.device,
) -> Source:
    """Return the cached states of the pictures, or live ones where nothing was cached."""
    index = read_index(directory)
    if index.views and index.prefix != prefix_digests(model, dataset.transform)[freeze]:
        raise FeaturesError(
            f"{directory} was computed with another backbone (train.arch, its weights, or "
            "images.size): run `dvc repro features`"
        )
    if index.freeze != freeze or index.image_ids != tuple(image_ids):
        raise FeaturesError(
            f"{directory} was computed for other pictures or another train.freeze: run "
            "`dvc repro features`"
        )
    if index.views:
        return Cached(directory, index, model.pooled, model.layers, device)
    return Live(model, dataset, freeze, _LIVE_VIEWS, device)


def file_of(directory: Path, name: str) -> Path:
    """Return the file of the stage's folder that has the map, or what `name` pools."""
    return directory / f"{name}.npy"


def read_index(directory: Path) -> Index:
    """Read `index.json` of the stage's folder."""
    document = json.loads((directory / INDEX_FILE).read_text())
    return Index(**{**document, "image_ids": tuple(document["image_ids"])})
