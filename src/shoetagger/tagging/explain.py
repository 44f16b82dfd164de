"""Explains the scores of one picture, in a process of its own: `python -m` this module.

Arguments are an image id, and group=digest of the bundles. Writes JSON: by group the digest, and by
tag the score and a heat map (PNG, base64) that lies over the square that the models see; that
square (JPEG), where it is not the whole picture; or why a group has none. What concerns the picture
as a whole ends it with one line on stderr.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..config.last_good import load_or_last_good
from ..config.params import Params
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..images.views import Transform
from ..inference.bundle import Bundle, load_bundle
from ..ingest.batches import decode_pool
from ..network.layers import ModelError
from ..store.store import Store

# Of the strongest tag's places, the share that is shown in full colour.
_FULL = 0.98
_WARM, _COLD = (214, 40, 40), (37, 99, 235)
_OPAQUE = 190  # of 255: the picture below stays visible


class ExplainError(ShoetaggerError):
    """A picture cannot be explained; the message says why."""


def explain(settings: Settings, image_id: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """Return by group the maps of a picture's scores by these bundles, as JSON values.

    Raises ExplainError where no file holds the picture any more.
    """
    params, _ = load_or_last_good(settings)
    bundles: dict[str, Bundle] = {}
    found: dict[str, Any] = {}
    for group, digest in digests.items():
        found[group] = {"digest": digest, "tags": {}, "view": None, "fault": None}
        try:
            bundles[group] = load_bundle(settings.bundles / digest)
        except ModelError:
            found[group]["fault"] = (
                "its version is not in this machine's cache: it is fetched when the next night "
                "begins, if it is still live"
            )
    transforms = tuple(dict.fromkeys(bundle.transform for bundle in bundles.values()))
    if not transforms:
        return found
    views = dict(zip(transforms, _views(settings, params, image_id, transforms), strict=True))
    for group, bundle in bundles.items():
        directory, view = settings.bundles / digests[group], views[bundle.transform]
        try:
            found[group]["tags"] = _maps(directory, bundle, view)
        except ModelError as error:
            found[group]["fault"] = str(error)
        if bundle.transform.framing != "whole":
            found[group]["view"] = _encoded(Image.fromarray(view), "JPEG")
    return found


def _views(
    settings: Settings, params: Params, image_id: str, transforms: tuple[Transform, ...]
) -> tuple[np.ndarray, ...]:
    """Decode the picture in a worker process, as a night does."""
    with Store(settings.store_url) as store:
        rows = list(store.current.rows([], image_ids=[image_id]))
    locators = [locator for row in rows for locator in row.locators]
    with decode_pool(params, transforms, settings.inbox, settle_seconds=0.0) as pool:
        for decoded in pool.run(locators):
            if decoded.views and decoded.image_id == image_id:
                return decoded.views
    raise ExplainError("no file in the inbox holds these bytes any more")


def _maps(directory: Path, bundle: Bundle, view: np.ndarray) -> dict[str, Any]:
    from ..inference.heatmap import explain as explained
    from ..inference.loading import load_model

    explanation = explained(load_model(directory, bundle), bundle, view)
    scores = 1 / (1 + np.exp(-explanation.logits))
    strongest = float(np.quantile(np.abs(explanation.maps), _FULL)) or 1.0
    return {
        tag: {"score": round(float(score), 4), "png": _png(one / strongest)}
        for tag, score, one in zip(bundle.tags, scores, explanation.maps, strict=True)
    }


def _png(shares: np.ndarray) -> str:
    """Return a map (G, G) as PNG in base64: warm where it is positive, cold where negative."""
    pixels = np.zeros((*shares.shape, 4), np.uint8)
    pixels[..., :3] = np.where((shares > 0)[..., None], _WARM, _COLD)
    pixels[..., 3] = (np.clip(np.abs(shares), 0, 1) * _OPAQUE).round()
    return _encoded(Image.fromarray(pixels, "RGBA"), "PNG")


def _encoded(image: Image.Image, kind: str) -> str:
    file = io.BytesIO()
    image.save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def main(arguments: Iterable[str]) -> int:
    image_id, *pairs = arguments
    digests = dict(pair.split("=", 1) for pair in pairs)
    logging.disable()  # the answer alone goes to stdout, and one line to stderr
    os.nice(10)  # nights and other readers come first
    try:
        found = explain(Settings.from_environment(), image_id, digests)
    except ShoetaggerError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
