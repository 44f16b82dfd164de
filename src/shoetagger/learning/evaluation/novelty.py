"""The distance from which on a picture counts as far from all labelled ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...inference.novelty import usual, usual_of
from ...network.backbone import State, TagModel
from ...network.layers import trained_layers
from ..training.examples import batches
from ..training.features import Source
from ..training.scoring import BATCH, scoring_precision


@torch.inference_mode()
def unsure_above(
    model: TagModel,
    source: Source,
    rows: np.ndarray,
    folds: np.ndarray,
    *,
    quantile: float,
    freeze: str,
    device: torch.device,
) -> float:
    """Return the distance that a share `quantile` of the training side does not exceed.

    `rows` (N,) are its pictures, `folds` (N,) their folds. A picture's distance is out of fold:
    from what is usual in the others, over all views, as a head is fitted to them. Layers that are
    not frozen have seen all of them, so with these the distance is a little too small.
    """
    seen = _seen(model, freeze, device)
    numbers, place = np.unique(folds, return_inverse=True)
    count = torch.zeros(len(numbers), 1, dtype=torch.float64, device=device)
    total = torch.zeros(len(numbers), sum(model.widths), dtype=torch.float64, device=device)
    squares, plain = torch.zeros_like(total), []
    for batch in batches(np.arange(len(rows)), BATCH):
        fold = torch.from_numpy(place[batch]).to(device)
        plain.append(seen(source.plain(rows[batch])))
        views = [seen(source.augmented(rows[batch], view)) for view in range(source.views)]
        for values in (plain[-1], *views):
            total.index_add_(0, fold, values)
            squares.index_add_(0, fold, values.square())
            count.index_add_(0, fold, torch.ones_like(values[:, :1]))
    found = np.empty(len(rows))
    held = torch.cat(plain)
    for number in range(len(numbers)):
        others = count.sum(0) - count[number]
        mean = (total.sum(0) - total[number]) / others
        variance = ((squares.sum(0) - squares[number]) / others - mean.square()).clamp_min(0)
        near = usual(mean, variance, model.widths, model.norm.eps)
        here = np.flatnonzero(place == number)
        found[here] = near.distances(held[torch.from_numpy(here).to(device)]).cpu().numpy()
    return round(float(np.quantile(found, quantile)), 4)


@torch.inference_mode()
def distances(
    model: TagModel, source: Source, rows: np.ndarray, freeze: str, device: torch.device
) -> np.ndarray:
    """Return how far the plain views of rows of a source are from the training side, (N,)."""
    seen, near = _seen(model, freeze, device), usual_of(model, device)
    parts = [
        near.distances(seen(source.plain(rows[batch])).float()).cpu().numpy()
        for batch in batches(np.arange(len(rows)), BATCH)
    ]
    return np.concatenate(parts) if parts else np.empty(0, np.float32)


def _seen(model: TagModel, freeze: str, device: torch.device) -> Callable[[State], Tensor]:
    """Return what maps states to what the head sees of them, (B, width) float64."""
    model.to(device).to(memory_format=torch.channels_last).eval()
    rest = trained_layers(model.layers, freeze)

    def seen(state: State) -> Tensor:
        with scoring_precision(device):
            return model.seen(model.run(state, rest)).double()

    return seen
