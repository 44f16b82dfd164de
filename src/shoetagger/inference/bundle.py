"""Bundles: all that is needed to tag with one group, apart from code; imports no torch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import atomic_write
from ..errors import ShoetaggerError
from ..images.views import Transform
from ..network.digests import canonical
from ..network.layers import (
    HISTOGRAM,
    WEIGHTS_FILE,
    ModelError,
    in_order,
    is_arch,
    is_layer,
    layer_of,
)
from ..network.origin import Origin
from .decision import predict

BUNDLE_FILE = "bundle.json"
_FORMAT = 1

# Left out of the file where they are None: so bundles of before they were there keep their digests.
_OPTIONAL = {"none_below", "unsure_above", "origin"}


@dataclass(frozen=True)
class Bundle:
    """All that is needed to tag with one group; of the weights, it has the digest."""

    group: str
    tags: tuple[str, ...]
    arch: str
    pooled: tuple[str, ...]
    transform: Transform
    thresholds: tuple[float, ...]
    support: tuple[int, ...]  # positives behind each threshold
    prefixes: Mapping[str, str]  # layer -> digest
    pretrained: str | None  # digest of the pretrained backbone
    weights_sha256: str
    none_below: float | None = None  # see `decision.predict`
    unsure_above: float | None = None  # a distance, see `novelty.Usual`; None: never unsure
    origin: Origin | None = None  # of the pretrained backbone; not in the digest, `pretrained` is

    def predict(self, scores: np.ndarray) -> np.ndarray:
        """Return the predictions (B, tags) of 0 and 1 for scores (B, tags), by its own rule."""
        return predict(scores, self.thresholds, self.none_below)

    @property
    def digest(self) -> str:
        """The name of this bundle: equal for equal inputs, wherever and whenever they are used."""
        named = {key: value for key, value in self.as_dict().items() if key != "origin"}
        return hashlib.sha256(canonical(named)).hexdigest()

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers of its backbone, in the order in which they run."""
        return in_order(self.prefixes)

    def as_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain = {k: v for k, v in plain.items() if v is not None or k not in _OPTIONAL}
        if self.origin is not None:
            plain["origin"] = self.origin.as_dict()
        return {"format": _FORMAT, **plain, "transform": self.transform.as_dict()}


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write bundle.json atomically."""
    with atomic_write(path) as file:
        file.write(json.dumps(bundle.as_dict(), indent=1, sort_keys=True).encode() + b"\n")


def load_bundle(directory: Path) -> Bundle:
    """Read `bundle.json` strictly; raises ModelError with the folder and the fault."""
    path = directory / BUNDLE_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{directory} holds no {BUNDLE_FILE}: name a folder such as models/color, "
            "made by `dvc repro`"
        ) from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    try:
        return _parse_bundle(document, directory / WEIGHTS_FILE)
    except (KeyError, TypeError, ValueError, ShoetaggerError) as error:
        raise ModelError(f"{path} is not a bundle of format {_FORMAT}: {error}") from None


def _parse_bundle(document: Any, weights: Path) -> Bundle:
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("unknown format")
    names = {"format", *(f.name for f in dataclasses.fields(Bundle))} - _OPTIONAL
    if differ := (set(document) - _OPTIONAL) ^ names:
        raise ValueError(f"keys differ: {', '.join(sorted(differ))}")
    tags = tuple(str(tag) for tag in document["tags"])
    thresholds = tuple(float(t) for t in document["thresholds"])
    support = tuple(int(n) for n in document["support"])
    pooled = tuple(document["pooled"])
    if not tags or not len(tags) == len(set(tags)) == len(thresholds) == len(support):
        raise ValueError("tags, thresholds and support must be lists of one length")
    if not all(0.0 < t <= 1.0 for t in thresholds):
        raise ValueError("thresholds must lie above 0 and up to 1")
    layers = set(document["prefixes"])
    if not layers or not all(map(is_layer, layers)):
        raise ValueError("prefixes must have a digest for each layer of the backbone")
    if not pooled or not all(name == HISTOGRAM or layer_of(name) in layers for name in pooled):
        raise ValueError(f"pooled must be of {HISTOGRAM}, {', '.join(in_order(layers))}")
    none_below, unsure_above = (
        None if document.get(key) is None else float(document[key])
        for key in ("none_below", "unsure_above")
    )
    if none_below is not None and not 0.0 < none_below <= 1.0:
        raise ValueError("none_below must lie above 0 and up to 1")
    if unsure_above is not None and not 0.0 < unsure_above < math.inf:
        raise ValueError("unsure_above must lie above 0")
    if not is_arch(str(document["arch"])):
        raise ValueError(f"arch: {document['arch']!r} names no backbone")
    return Bundle(
        group=str(document["group"]),
        tags=tags,
        arch=str(document["arch"]),
        pooled=pooled,
        transform=Transform.from_dict(document["transform"], weights),
        thresholds=thresholds,
        support=support,
        prefixes={str(k): str(v) for k, v in document["prefixes"].items()},
        pretrained=document["pretrained"],
        weights_sha256=str(document["weights_sha256"]),
        none_below=none_below,
        unsure_above=unsure_above,
        origin=Origin.from_dict(document["origin"]) if "origin" in document else None,
    )
