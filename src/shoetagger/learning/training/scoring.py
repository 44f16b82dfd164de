"""Scores pictures by a model, as training, cross-validation and evaluation do."""

from __future__ import annotations

import numpy as np
import torch

from ...network.backbone import TagModel
from ...network.layers import trained_layers
from .examples import Examples, batches
from .features import Source

BATCH = 64  # pictures


@torch.inference_mode()
def scores(
    model: TagModel, source: Source, rows: np.ndarray, freeze: str, device: torch.device
) -> np.ndarray:
    """Return the scores (N, tags) float32 in 0..1 of rows of a source, in their tagging view."""
    model.to(device).to(memory_format=torch.channels_last).eval()
    rest = trained_layers(model.layers, freeze)
    parts = []
    for batch in batches(np.arange(len(rows)), BATCH):
        state = source.plain(rows[batch])
        with scoring_precision(device):
            logits = model.finish(model.run(state, rest))
        parts.append(torch.sigmoid(logits.float()).cpu().numpy())
    return np.concatenate(parts) if parts else np.empty((0, model.head.out_features), np.float32)


def mean_loss(
    model: TagModel, source: Source, examples: Examples, freeze: str, device: torch.device
) -> float:
    """Return the mean binary cross-entropy of examples, without weights and smoothing."""
    scored = scores(model, source, examples.rows, freeze, device)
    likelihood = np.clip(np.where(examples.truth == 1, scored, 1 - scored), 1e-7, 1.0)
    return float(-np.log(likelihood).mean())


def scoring_precision(device: torch.device) -> torch.autocast:
    """Score in bfloat16 on a GPU, in float32 on a CPU."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")
