"""The pictures that a model learns from, with their truth: batches, targets, weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Rows of a source with their truth: `rows` (N,), `truth` (N, tags) 0/1."""

    rows: np.ndarray
    truth: np.ndarray


def batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Cut an order into batches; a single row left over joins the last one, for batch norm."""
    starts = list(range(0, len(order), size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for i, start in enumerate(starts):
        yield order[start : starts[i + 1] if i + 1 < len(starts) else len(order)]


def targets(truth: np.ndarray, smoothing: float, device: torch.device) -> Tensor:
    """Return 0/1 truth (N, tags) as float32 targets, smoothed towards 0.5."""
    target = torch.from_numpy(truth.astype(np.float32)).to(device)
    return target * (1 - smoothing) + smoothing / 2


def positive_weight(truth: np.ndarray, most: float) -> Tensor:
    """Return the weight of a positive per tag: the root of negatives per positive, 1..`most`."""
    positives = np.clip(truth.sum(axis=0), 1, None)
    rarity = np.sqrt((len(truth) - positives) / positives)
    return torch.from_numpy(np.clip(rarity, 1.0, max(most, 1.0)).astype(np.float32))
