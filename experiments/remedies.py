"""What is said to help rare tags and small sets, to be tried: losses, mixed pictures, sampling."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shoetagger.features import Source
from shoetagger.model import State
from shoetagger.train import Criterion, Examples


def focal(gamma: float) -> Criterion:
    """Return the loss that looks away from what is answered well (Lin et al., 2017)."""
    return partial(_focused, on_positives=gamma, on_negatives=gamma)


def asymmetric(gamma: float) -> Criterion:
    """Return the loss that looks away from well answered negatives alone (Ridnik et al., 2021)."""
    return partial(_focused, on_positives=0.0, on_negatives=gamma)


def _focused(
    logits: Tensor, target: Tensor, weight: Tensor, *, on_positives: float, on_negatives: float
) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    likely = torch.sigmoid(logits)
    positive = target > 0.5
    wrong = torch.where(positive, (1 - likely) ** on_positives, likely**on_negatives)
    return (loss * wrong).mean()


class Mixup:
    """Shows each picture of a batch mixed with another one, and has them judged by the mixed truth.

    Zhang et al., 2018; what is mixed are the states that enter the trained stages.
    """

    def __init__(self, source: Source, alpha: float, seed: int, inner: Criterion) -> None:
        self._source, self._alpha, self._inner = source, alpha, inner
        self._rng = np.random.default_rng(seed)
        self._share, self._partner = 1.0, torch.empty(0, dtype=torch.long)

    def augmented(self, rows: np.ndarray, epoch: int) -> State:
        state = self._source.augmented(rows, epoch)
        share = float(self._rng.beta(self._alpha, self._alpha))
        self._share = max(share, 1 - share)
        self._partner = torch.from_numpy(self._rng.permutation(len(rows)))
        pooled = {stage: self._mixed(values) for stage, values in state.pooled.items()}
        return State(self._mixed(state.map), pooled)

    def plain(self, rows: np.ndarray) -> State:
        return self._source.plain(rows)

    def criterion(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Judge the answers to the batch shown last."""
        return self._inner(logits, self._mixed(target), weight)

    def _mixed(self, x: Tensor) -> Tensor:
        return self._share * x + (1 - self._share) * x[self._partner]


def oversampled(examples: Examples, often: float, seed: int) -> Examples:
    """Repeat pictures with a tag that fewer than the share `often` have (Gupta et al., 2019).

    By the root of its rarity on average; chance decides what is between two whole numbers.
    """
    shares = np.clip(examples.truth.mean(axis=0), 1 / len(examples.truth), None)
    worth = np.maximum(1.0, np.sqrt(often / shares))
    wanted = np.where(examples.truth == 1, worth, 1.0).max(axis=1)
    times = np.floor(wanted + np.random.default_rng(seed).random(len(wanted))).astype(int)
    return Examples(np.repeat(examples.rows, times), np.repeat(examples.truth, times, axis=0))
