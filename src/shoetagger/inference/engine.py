"""Scores a batch of pictures with many bundles, each shared prefix run once."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from ..network.backbone import State, TagModel, advance, begin
from ..network.devices import cores, multiply_in_full, pick_device, pick_dtype
from ..network.reading import Layer
from .bundle import Bundle, load_bundle
from .decision import tags_of
from .loading import load_model
from .novelty import Usual, usual_of
from .vectors import Projection, projection_of

_LARGEST_BATCH = 1024
_VECTORS = "vectors"  # beside the digests
_AT_ONCE_PER_CORE = 16  # fewer: weights are fetched too often; more: maps leave the cache


class Prediction(NamedTuple):
    """The prediction of one bundle for one picture."""

    scores: tuple[float, ...]  # 0..1, one per tag, in the bundle's order
    tags: tuple[str, ...]
    unsure: bool = False  # far from all that the bundle has learned from


@dataclass(frozen=True)
class _Heads:
    """The heads of bundles that see the same pooled values: one matrix product serves all.

    `projection` is that of the one bundle of an engine from which its vectors come; `usual` is per
    digest, for the bundles that tell what is far from it.
    """

    bundles: tuple[Bundle, ...]
    weight: Tensor  # (tags of all, width)
    bias: Tensor
    projection: Projection | None
    usual: Mapping[str, Usual]

    def scores(self, state: State) -> dict[str, np.ndarray]:
        """Return the scores (B, tags) float32 per bundle digest.

        Besides, the vectors as _VECTORS, and the distances (B,) by the names of `_distance`.
        """
        pooled = torch.cat([state.pooled[name] for name in self.bundles[0].pooled], dim=1)
        scores = torch.sigmoid(F.linear(pooled, self.weight, self.bias)).cpu().numpy()
        ends = np.cumsum([len(bundle.tags) for bundle in self.bundles])
        parts = np.split(scores, ends[:-1], axis=1)
        found = {bundle.digest: part for bundle, part in zip(self.bundles, parts, strict=True)}
        for digest, usual in self.usual.items():
            found[_distance(digest)] = usual.distances(pooled).cpu().numpy()
        return found | ({_VECTORS: self.projection.vectors(pooled)} if self.projection else {})


class Engine:
    """Scores pictures with any mix of bundles.

    Layers with the same prefix digest are kept once and run once, however many bundles have them.
    Backbones run in bfloat16 where the processor supports it natively, heads in float32: scores
    differ from those of the plain models by a few hundredths at most. With `precision` "float32"
    backbones run in float32 too, and scores are equal up to rounding.

    On a CPU each core runs the backbones on its own part of the pictures, so that no core waits for
    another at the end of each layer. Several threads may call one engine at the same time.

    One bundle, the one whose head sees most, also describes pictures by vectors.
    """

    def __init__(
        self, directories: Sequence[Path], device: str = "auto", precision: str = "auto"
    ) -> None:
        self.device = pick_device(device)
        self.dtype = torch.float32 if precision == "float32" else pick_dtype(self.device)
        if self.dtype == torch.float32:
            multiply_in_full(self.device)
        self.bundles = tuple(load_bundle(directory) for directory in directories)
        self._layers: dict[str, Layer] = {}
        heads = [self._load(d, b) for d, b in zip(directories, self.bundles, strict=True)]
        widest = min(heads, key=lambda h: (-h.weight.shape[1], h.bundles[0].group), default=None)
        heads = [h if h is widest else replace(h, projection=None) for h in heads]
        self._projections = {h.bundles[0].digest: h.projection for h in heads}
        # Sorted by the digests from the first layer on: heads that share layers become neighbours.
        heads.sort(key=_layers_and_pooled)
        self._heads = [_merged(list(alike)) for _, alike in groupby(heads, _layers_and_pooled)]
        self.transforms = tuple(dict.fromkeys(b.transform for b in self.bundles))
        self._threads = torch.get_num_threads() if self.device.type == "cpu" else 1
        self._cores = cores(self._threads, "engine") if self._threads > 1 else None

    def _load(self, directory: Path, bundle: Bundle) -> _Heads:
        model = load_model(directory, bundle)
        for name in model.layers:
            digest = bundle.prefixes[name]
            if digest not in self._layers:
                layer = for_inference(model.layer(name))
                module = layer.module.to(self.device, self.dtype)
                module = module.to(memory_format=torch.channels_last)
                self._layers[digest] = layer._replace(module=module)
        return _folded(bundle, model, self.device)

    def score(
        self, views: Mapping[Transform, np.ndarray], only: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return the scores (B, tags) float32 in 0..1 per bundle digest.

        `views` has the same pictures (B, S, S, 3) uint8 for each of `transforms`, in one order.
        `only` limits the bundles to these digests; by default all are used.
        """
        wanted = {b.digest for b in self.bundles if only is None or b.digest in only}
        found = self._run(views, wanted)
        return {digest: found[digest] for digest in found if digest in wanted}

    def _run(
        self, views: Mapping[Transform, np.ndarray], wanted: Collection[str]
    ) -> dict[str, np.ndarray]:
        """Run the heads of the wanted bundles, and those that share theirs, as `score` does."""
        heads = [h for h in self._heads if any(b.digest in wanted for b in h.bundles)]
        count = max((len(batch) for batch in views.values()), default=0)
        if self._cores is None or count < self._threads:
            parts = [self._score(heads, views)]
        else:
            batches = self._split(views, count)
            parts = list(self._cores.map(partial(self._score, heads), batches))
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _split(
        self, views: Mapping[Transform, np.ndarray], count: int
    ) -> list[Mapping[Transform, np.ndarray]]:
        """Split a batch into parts for the cores."""
        size = min(_AT_ONCE_PER_CORE, math.ceil(count / self._threads))
        return [
            {transform: batch[start : start + size] for transform, batch in views.items()}
            for start in range(0, count, size)
        ]

    @torch.inference_mode()
    def _score(
        self, heads: Sequence[_Heads], views: Mapping[Transform, np.ndarray]
    ) -> dict[str, np.ndarray]:
        scores: dict[str, np.ndarray] = {}
        for transform, images in views.items():
            of_transform = [h for h in heads if h.bundles[0].transform == transform]
            if not of_transform:
                continue
            pooled = {name for h in of_transform for name in h.bundles[0].pooled}
            state = begin(_onto(self.device, images), transform, pooled, self.dtype)
            self._descend(of_transform, 0, state, scores)
        return scores

    def _descend(
        self,
        heads: Sequence[_Heads],
        done: int,
        state: State,
        scores: dict[str, np.ndarray],
    ) -> None:
        """Run the layer after the first `done` once for the heads that share it, then the rest."""
        if done == len(heads[0].bundles[0].layers):
            for merged in heads:
                scores |= merged.scores(state)
            return
        for digest, sharing in groupby(heads, key=lambda h: _digests(h)[done]):
            below = list(sharing)
            pooled = {name for h in below for name in h.bundles[0].pooled}
            after = advance(self._layers[digest], state, pooled)
            self._descend(below, done + 1, after, scores)

    def batch_size(self, least: int) -> int:
        """Return the number of pictures per batch: `least`, or as many as a GPU has room for."""
        if self.device.type != "cuda":
            return least
        blank = {t: np.zeros((least, t.size, t.size, 3), np.uint8) for t in self.transforms}
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        self.score(blank)
        taken = torch.cuda.max_memory_allocated(self.device) - before
        free, _ = torch.cuda.mem_get_info(self.device)
        return batch_that_fits(free, taken / least, least)

    def predict(
        self, views: Mapping[Transform, np.ndarray], only: Collection[str] | None = None
    ) -> dict[str, list[Prediction]]:
        """Return the predictions per bundle digest, one per picture in order; see `score`."""
        return self.predict_and_describe(views, only)[0]

    def predict_and_describe(
        self, views: Mapping[Transform, np.ndarray], only: Collection[str] | None = None
    ) -> tuple[dict[str, list[Prediction]], list[bytes]]:
        """Return what `predict` does, and a vector per picture, of what a head saw of it.

        A vector is the 8 bytes of its space, within which vectors can be compared, and its 64
        numbers as int8. There are none where the bundle that describes is not among those wanted.
        """
        wanted = {b.digest for b in self.bundles if only is None or b.digest in only}
        found = self._run(views, wanted)
        predictions: dict[str, list[Prediction]] = {}
        vectors: list[bytes] = []
        for bundle in self.bundles:
            if bundle.digest not in found or bundle.digest not in wanted:
                continue
            scored = found[bundle.digest]
            tags = tags_of(bundle.predict(scored), bundle.tags)
            rows = scored.astype(np.float64).round(4).tolist()
            unsure = [False] * len(rows)
            if bundle.unsure_above is not None:
                unsure = (found[_distance(bundle.digest)] > bundle.unsure_above).tolist()
            predictions[bundle.digest] = [
                Prediction(tuple(r), t, u) for r, t, u in zip(rows, tags, unsure, strict=True)
            ]
            if projection := self._projections[bundle.digest]:
                vectors = [projection.space + vector.tobytes() for vector in found[_VECTORS]]
        return predictions, vectors


def _folded(bundle: Bundle, model: TagModel, device: torch.device) -> _Heads:
    """Fold the standardisation of the head's inputs into its weights."""
    seen = {name: tensor.double() for name, tensor in model.norm.state_dict().items()}
    weight = model.head.weight.detach().double()
    weight = weight / torch.sqrt(seen["running_var"] + model.norm.eps)
    bias = model.head.bias.detach().double() - weight @ seen["running_mean"]
    projection = projection_of(bundle, model, device)
    usual = {} if bundle.unsure_above is None else {bundle.digest: usual_of(model, device)}
    weight, bias = weight.float().to(device), bias.float().to(device)
    return _Heads((bundle,), weight, bias, projection, usual)


def _distance(digest: str) -> str:
    """Return the name of a bundle's distances, beside the digests."""
    return f"distance {digest}"


def _layers_and_pooled(heads: _Heads) -> tuple[list[str], tuple[str, ...]]:
    return _digests(heads), heads.bundles[0].pooled


def _digests(heads: _Heads) -> list[str]:
    """Return the digests of the prefixes that heads need, one more layer each."""
    bundle = heads.bundles[0]
    return [bundle.prefixes[layer] for layer in bundle.layers]


def _merged(heads: Sequence[_Heads]) -> _Heads:
    return _Heads(
        tuple(bundle for h in heads for bundle in h.bundles),
        torch.cat([h.weight for h in heads]),
        torch.cat([h.bias for h in heads]),
        next((h.projection for h in heads if h.projection), None),
        {digest: usual for h in heads for digest, usual in h.usual.items()},
    )


def batch_that_fits(free: int, per_image: float, least: int) -> int:
    """Return `least`, doubled while it fits a quarter of the free bytes, up to 1024 pictures.

    Two batches may be under way. Larger ones keep a GPU no busier, and cost the decoding processes
    memory.
    """
    size = least
    while 2 * size <= _LARGEST_BATCH and 2 * size * per_image <= free / 4:
        size *= 2
    return size


def _onto(device: torch.device, images: np.ndarray) -> Tensor:
    """Copy images to the device, from pinned memory, so that the copy overlaps with computing."""
    host = torch.from_numpy(images)
    return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host


def for_inference(layer: Layer) -> Layer:
    """Fold each batch normalisation of a layer into the convolution before it, in place."""
    for convolution, norm in layer.norms:
        before, found = (layer.module.get_submodule(name) for name in (convolution, norm))
        assert isinstance(before, nn.Conv2d)
        assert isinstance(found, nn.BatchNorm2d)
        layer.module.set_submodule(convolution, fuse_conv_bn_eval(before, found))
        # timm's normalise and activate in one.
        after = getattr(found, "act", None)
        layer.module.set_submodule(norm, nn.Identity() if after is None else after)
    return layer
