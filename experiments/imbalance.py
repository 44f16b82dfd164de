"""Losses and sampling that may help rare tags and small data sets."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from shoetagger.learning.training.examples import Examples
from shoetagger.learning.training.head import Criterion


def focal(gamma: float) -> Criterion:
    """Return the focal loss, which weighs confident predictions less (Lin et al., 2017)."""
    return partial(_focused, on_positives=gamma, on_negatives=gamma)


def asymmetric(gamma: float) -> Criterion:
    """Return the asymmetric loss, which weighs confident negatives less (Ridnik et al., 2021)."""
    return partial(_focused, on_positives=0.0, on_negatives=gamma)


def _focused(
    logits: Tensor, target: Tensor, weight: Tensor, *, on_positives: float, on_negatives: float
) -> Tensor:
    loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    likely = torch.sigmoid(logits)
    positive = target > 0.5
    wrong = torch.where(positive, (1 - likely) ** on_positives, likely**on_negatives)
    return (loss * wrong).mean()


def oversampled(examples: Examples, often: float, seed: int) -> Examples:
    """Repeat pictures with a tag that fewer than the share `often` have (Gupta et al., 2019).

    On average, the root of the rarity times; fractions of a repetition are drawn at random.
    """
    shares = np.clip(examples.truth.mean(axis=0), 1 / len(examples.truth), None)
    worth = np.maximum(1.0, np.sqrt(often / shares))
    wanted = np.where(examples.truth == 1, worth, 1.0).max(axis=1)
    times = np.floor(wanted + np.random.default_rng(seed).random(len(wanted))).astype(int)
    return Examples(np.repeat(examples.rows, times), np.repeat(examples.truth, times, axis=0))
