"""Many bundles and a batch of pictures -> scores, each shared prefix run once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .images import Transform
from .model import (
    STAGES,
    Bundle,
    State,
    TagModel,
    advance,
    load_bundle,
    load_model,
    normalise,
    pick_device,
)
from .thresholds import decide, names


class Answer(NamedTuple):
    """What one bundle says of one picture."""

    scores: tuple[float, ...]  # 0..1, one a tag, in the bundle's order
    tags: tuple[str, ...]


@dataclass(frozen=True)
class _Member:
    """A bundle and what is its own in its model: whatever it shares is kept once, elsewhere."""

    bundle: Bundle
    model: TagModel


class Engine:
    """Scores pictures with any mix of bundles.

    Stages of equal prefix digest are kept and run once, whatever the number of bundles that
    have them.
    """

    def __init__(self, directories: Sequence[Path], device: str = "auto") -> None:
        self.device = pick_device(device)
        self.bundles = tuple(load_bundle(directory) for directory in directories)
        self._stages: dict[str, nn.Module] = {}
        members = [self._load(d, b) for d, b in zip(directories, self.bundles, strict=True)]
        # Sorted by the digests from the first stage on: what is shared stands side by side.
        self._members = sorted(members, key=lambda m: [m.bundle.prefixes[s] for s in STAGES])
        self.transforms = tuple(dict.fromkeys(b.transform for b in self.bundles))

    def _load(self, directory: Path, bundle: Bundle) -> _Member:
        model = load_model(directory, bundle).to(self.device).to(memory_format=torch.channels_last)
        for name in STAGES:
            stage = self._stages.setdefault(bundle.prefixes[name], getattr(model, name))
            setattr(model, name, stage)
        return _Member(bundle, model)

    @torch.inference_mode()
    def score(
        self, views: Mapping[Transform, np.ndarray], only: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return for each bundle digest the scores (B, tags) float32 in 0..1.

        `views` holds for each of `transforms` the pictures (B, S, S, 3) uint8, in one order.
        `only` names the digests of the bundles to ask; left out, all are asked.
        """
        scores: dict[str, np.ndarray] = {}
        asked = [m for m in self._members if only is None or m.bundle.digest in only]
        for transform, pictures in views.items():
            members = [m for m in asked if m.bundle.transform == transform]
            if not members:
                continue
            batch = torch.from_numpy(pictures).to(self.device)
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                self._descend(members, STAGES, State(normalise(batch, transform), {}), scores)
        return scores

    def _descend(
        self,
        members: Sequence[_Member],
        stages: Sequence[str],
        state: State,
        scores: dict[str, np.ndarray],
    ) -> None:
        """Run the next stage once for all members that share it, then what follows for each."""
        if not stages:
            for member in members:
                scores[member.bundle.digest] = _sigmoid(member.model, state)
            return
        stage = stages[0]
        for digest, sharing in groupby(members, key=lambda m: m.bundle.prefixes[stage]):
            group = list(sharing)
            wanted = any(stage in m.bundle.pooled for m in group)
            after = advance(self._stages[digest], stage, state, pool=wanted)
            self._descend(group, stages[1:], after, scores)

    def answer(
        self, views: Mapping[Transform, np.ndarray], only: Collection[str] | None = None
    ) -> dict[str, list[Answer]]:
        """Return for each bundle digest what it says of each picture, in order; see `score`."""
        scores = self.score(views, only)
        answers = {}
        for bundle in self.bundles:
            if bundle.digest not in scores:
                continue
            mine = scores[bundle.digest]
            tags = names(decide(mine, bundle.thresholds), bundle.tags)
            rows = mine.astype(np.float64).round(4).tolist()
            answers[bundle.digest] = [Answer(tuple(r), t) for r, t in zip(rows, tags, strict=True)]
        return answers


def _sigmoid(model: TagModel, state: State) -> np.ndarray:
    logits: Tensor = model.finish(state)
    scores: np.ndarray = torch.sigmoid(logits.float()).cpu().numpy()
    return scores
