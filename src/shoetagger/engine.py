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
from torch.nn.utils.fusion import fuse_conv_bn_eval

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
    pick_dtype,
)
from .thresholds import decide, names

_LARGEST_BATCH = 1024


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
    have them. Trunks are computed in bfloat16 where the processor does that natively, heads in
    float32: scores differ from those of the plain models by some hundredths at most.
    """

    def __init__(self, directories: Sequence[Path], device: str = "auto") -> None:
        self.device = pick_device(device)
        self.dtype = pick_dtype(self.device)
        self.bundles = tuple(load_bundle(directory) for directory in directories)
        self._stages: dict[str, nn.Module] = {}
        members = [self._load(d, b) for d, b in zip(directories, self.bundles, strict=True)]
        # Sorted by the digests from the first stage on: what is shared stands side by side.
        self._members = sorted(members, key=lambda m: [m.bundle.prefixes[s] for s in STAGES])
        self.transforms = tuple(dict.fromkeys(b.transform for b in self.bundles))

    def _load(self, directory: Path, bundle: Bundle) -> _Member:
        model = load_model(directory, bundle)
        for name in STAGES:
            digest = bundle.prefixes[name]
            if digest not in self._stages:
                stage = for_inference(getattr(model, name)).to(self.device, self.dtype)
                self._stages[digest] = stage.to(memory_format=torch.channels_last)
            setattr(model, name, self._stages[digest])
        for own in (model.norm, model.head):
            own.to(self.device)
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
            batch = normalise(_onto(self.device, pictures), transform)
            self._descend(members, STAGES, State(batch.to(self.dtype), {}), scores)
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

    def batch_size(self, least: int) -> int:
        """Return how many pictures to ask at once: `least`, or what a GPU has room for."""
        if self.device.type != "cuda":
            return least
        trial = {t: np.zeros((least, t.size, t.size, 3), np.uint8) for t in self.transforms}
        held = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.score(trial)
        taken = torch.cuda.max_memory_allocated(self.device) - held
        free, _ = torch.cuda.mem_get_info(self.device)
        return batch_that_fits(free, taken / least, least)

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


def batch_that_fits(free: int, a_picture: float, least: int) -> int:
    """Return `least`, doubled while half of the free bytes hold it, up to 1024 pictures.

    More at once keeps a GPU no busier, and takes the decoding processes' memory.
    """
    size = least
    while 2 * size <= _LARGEST_BATCH and 2 * size * a_picture <= free / 2:
        size *= 2
    return size


def _onto(device: torch.device, pictures: np.ndarray) -> Tensor:
    """Copy pictures to the device; from pinned memory, so that the copy runs beside the GPU."""
    host = torch.from_numpy(pictures)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def for_inference(stage: nn.Module) -> nn.Module:
    """Fold each batch normalisation of a stage into the convolution before it, in place."""
    for block in list(stage.modules()):
        children = list(block.named_children())
        convolutions = [(name, m) for name, m in children if isinstance(m, nn.Conv2d)]
        norms = [(name, m) for name, m in children if isinstance(m, nn.BatchNorm2d)]
        for (name, convolution), (after, norm) in zip(convolutions, norms, strict=True):
            setattr(block, name, fuse_conv_bn_eval(convolution, norm))
            setattr(block, after, nn.Identity())
    return stage
