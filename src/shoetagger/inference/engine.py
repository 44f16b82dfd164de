"""Many bundles and a batch of pictures -> scores, each shared prefix run once."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..images.views import Transform
from ..network.backbone import LAYERS, State, TagModel, advance, begin
from ..network.devices import pick_device, pick_dtype
from .bundle import Bundle, load_bundle, load_model
from .decision import predict, tags_of

_LARGEST_BATCH = 1024
_AT_ONCE_A_CORE = 16  # fewer, and weights are fetched too often; more, and maps leave the cache


class Prediction(NamedTuple):
    """What one bundle says of one picture."""

    scores: tuple[float, ...]  # 0..1, one a tag, in the bundle's order
    tags: tuple[str, ...]


@dataclass(frozen=True)
class _Heads:
    """The heads of bundles that see the same pooled values: one matrix product answers for all."""

    bundles: tuple[Bundle, ...]
    weight: Tensor  # (tags of all, width)
    bias: Tensor

    def scores(self, state: State) -> dict[str, np.ndarray]:
        """Return for each bundle digest the scores (B, tags) float32."""
        pooled = torch.cat([state.pooled[name] for name in self.bundles[0].pooled], dim=1)
        scores = torch.sigmoid(F.linear(pooled, self.weight, self.bias)).cpu().numpy()
        ends = np.cumsum([len(bundle.tags) for bundle in self.bundles])
        parts = np.split(scores, ends[:-1], axis=1)
        return {bundle.digest: part for bundle, part in zip(self.bundles, parts, strict=True)}


class Engine:
    """Scores pictures with any mix of bundles.

    Stages of equal prefix digest are kept and run once, whatever the number of bundles that
    have them. Backbones are computed in bfloat16 where the processor does that natively, heads in
    float32: scores differ from those of the plain models by some hundredths at most. With
    `precision` float32 backbones are computed in that as well, and scores are equal to rounding.

    On a CPU each core runs the backbones on some pictures by itself, so that none waits for another
    at the end of every layer. Several threads may ask one engine at a time.
    """

    def __init__(
        self, directories: Sequence[Path], device: str = "auto", precision: str = "auto"
    ) -> None:
        self.device = pick_device(device)
        self.dtype = torch.float32 if precision == "float32" else pick_dtype(self.device)
        self.bundles = tuple(load_bundle(directory) for directory in directories)
        self._layers: dict[str, nn.Module] = {}
        heads = [self._load(d, b) for d, b in zip(directories, self.bundles, strict=True)]
        # Sorted by the digests from the first layer on: what is shared stands side by side.
        heads.sort(key=_what_is_seen)
        self._heads = [_together(list(alike)) for _, alike in groupby(heads, _what_is_seen)]
        self.transforms = tuple(dict.fromkeys(b.transform for b in self.bundles))
        self._threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self._cores = _cores(self._threads) if self._threads > 1 else None

    def _load(self, directory: Path, bundle: Bundle) -> _Heads:
        model = load_model(directory, bundle)
        for name in LAYERS:
            digest = bundle.prefixes[name]
            if digest not in self._layers:
                layer = for_inference(getattr(model, name)).to(self.device, self.dtype)
                self._layers[digest] = layer.to(memory_format=torch.channels_last)
        return _folded(bundle, model, self.device)

    def score(
        self, views: Mapping[Transform, np.ndarray], only: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return for each bundle digest the scores (B, tags) float32 in 0..1.

        `views` holds for each of `transforms` the pictures (B, S, S, 3) uint8, in one order.
        `only` names the digests of the bundles to ask; left out, all are asked.
        """
        wanted = {b.digest for b in self.bundles if only is None or b.digest in only}
        asked = [h for h in self._heads if any(b.digest in wanted for b in h.bundles)]
        pictures = max((len(batch) for batch in views.values()), default=0)
        if self._cores is None or pictures < self._threads:
            parts = [self._score(asked, views)]
        else:
            shared_out = self._shared_out(views, pictures)
            parts = list(self._cores.map(partial(self._score, asked), shared_out))
        return {
            digest: np.concatenate([part[digest] for part in parts])
            for digest in parts[0]
            if digest in wanted
        }

    def _shared_out(
        self, views: Mapping[Transform, np.ndarray], pictures: int
    ) -> list[Mapping[Transform, np.ndarray]]:
        """Cut a batch into parts for the cores."""
        size = min(_AT_ONCE_A_CORE, math.ceil(pictures / self._threads))
        return [
            {transform: batch[start : start + size] for transform, batch in views.items()}
            for start in range(0, pictures, size)
        ]

    @torch.inference_mode()
    def _score(
        self, asked: Sequence[_Heads], views: Mapping[Transform, np.ndarray]
    ) -> dict[str, np.ndarray]:
        scores: dict[str, np.ndarray] = {}
        for transform, pictures in views.items():
            heads = [h for h in asked if h.bundles[0].transform == transform]
            if not heads:
                continue
            pooled = {name for h in heads for name in h.bundles[0].pooled}
            state = begin(_onto(self.device, pictures), transform, pooled, self.dtype)
            self._descend(heads, LAYERS, state, scores)
        return scores

    def _descend(
        self,
        heads: Sequence[_Heads],
        layers: Sequence[str],
        state: State,
        scores: dict[str, np.ndarray],
    ) -> None:
        """Run the next layer once for all heads below it, then what follows for each."""
        if not layers:
            for alike in heads:
                scores |= alike.scores(state)
            return
        layer = layers[0]
        for digest, sharing in groupby(heads, key=lambda h: h.bundles[0].prefixes[layer]):
            below = list(sharing)
            pooled = {name for h in below for name in h.bundles[0].pooled}
            after = advance(self._layers[digest], layer, state, pooled)
            self._descend(below, layers[1:], after, scores)

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

    def predict(
        self, views: Mapping[Transform, np.ndarray], only: Collection[str] | None = None
    ) -> dict[str, list[Prediction]]:
        """Return for each bundle digest what it says of each picture, in order; see `score`."""
        scores = self.score(views, only)
        answers = {}
        for bundle in self.bundles:
            if bundle.digest not in scores:
                continue
            mine = scores[bundle.digest]
            tags = tags_of(predict(mine, bundle.thresholds), bundle.tags)
            rows = mine.astype(np.float64).round(4).tolist()
            answers[bundle.digest] = [
                Prediction(tuple(r), t) for r, t in zip(rows, tags, strict=True)
            ]
        return answers


def _cores(threads: int) -> ThreadPoolExecutor:
    """Return threads that compute by themselves; what torch does elsewhere stays as it was."""

    def alone() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # at its first use a thread takes up the process's setting: now

    all_there = threading.Barrier(threads)
    cores = ThreadPoolExecutor(threads, "engine", initializer=alone)
    list(cores.map(lambda _: all_there.wait(), range(threads)))
    torch.set_num_threads(threads)
    return cores


def _folded(bundle: Bundle, model: TagModel, device: torch.device) -> _Heads:
    """Fold the standardisation of what a head sees into its weights."""
    seen = {name: tensor.double() for name, tensor in model.norm.state_dict().items()}
    weight = model.head.weight.detach().double()
    weight = weight / torch.sqrt(seen["running_var"] + model.norm.eps)
    bias = model.head.bias.detach().double() - weight @ seen["running_mean"]
    return _Heads((bundle,), weight.float().to(device), bias.float().to(device))


def _what_is_seen(heads: _Heads) -> tuple[list[str], tuple[str, ...]]:
    bundle = heads.bundles[0]
    return [bundle.prefixes[layer] for layer in LAYERS], bundle.pooled


def _together(heads: Sequence[_Heads]) -> _Heads:
    return _Heads(
        tuple(bundle for h in heads for bundle in h.bundles),
        torch.cat([h.weight for h in heads]),
        torch.cat([h.bias for h in heads]),
    )


def batch_that_fits(free: int, a_picture: float, least: int) -> int:
    """Return `least`, doubled while a quarter of the free bytes hold it, up to 1024 pictures.

    Two batches may be under way. More at once keeps a GPU no busier, and takes the decoding
    processes' memory.
    """
    size = least
    while 2 * size <= _LARGEST_BATCH and 2 * size * a_picture <= free / 4:
        size *= 2
    return size


def _onto(device: torch.device, pictures: np.ndarray) -> Tensor:
    """Copy pictures to the device; from pinned memory, so that the copy runs beside the GPU."""
    host = torch.from_numpy(pictures)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def for_inference(layer: nn.Module) -> nn.Module:
    """Fold each batch normalisation of a layer into the convolution before it, in place."""
    for block in list(layer.modules()):
        children = list(block.named_children())
        convolutions = [(name, m) for name, m in children if isinstance(m, nn.Conv2d)]
        norms = [(name, m) for name, m in children if isinstance(m, nn.BatchNorm2d)]
        for (name, convolution), (after, norm) in zip(convolutions, norms, strict=True):
            setattr(block, name, fuse_conv_bn_eval(convolution, norm))
            setattr(block, after, nn.Identity())
    return layer
