"""What two versions give arrivals of which people said what is right."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from more_itertools import chunked

from ..config.params import Params
from ..config.places import Place
from ..ingest.batches import decode_pool, stack_views
from ..store.rows import TaggedImage
from .paired import PairedMetrics

if TYPE_CHECKING:
    from ..inference.engine import Engine


@dataclass(frozen=True)
class OnChecked:
    """Both on arrivals that people checked.

    `learned` of these are left out, for one of the two was trained on them; `unread` could not be
    read again.
    """

    metrics: PairedMetrics
    learned: int
    unread: int


@dataclass(frozen=True)
class CheckedScores:
    """The scores (N, tags) per bundle digest of checked arrivals, and what people said."""

    truth: np.ndarray  # (N, tags) 0/1
    scores: dict[str, np.ndarray]
    learned: int
    unread: int


def scores_of_checked(
    engine: Engine,
    checked: Sequence[TaggedImage],
    tags: Sequence[str],
    *,
    learned: Collection[str],
    params: Params,
    inbox: Place,
) -> CheckedScores:
    """Score arrivals that people checked by all bundles of an engine, without those `learned`.

    `checked` have the tags that people gave; the truth is of `tags`.
    """
    fresh = [image for image in checked if image.image_id not in learned]
    parts = {b.digest: [np.zeros((0, len(b.tags)), np.float32)] for b in engine.bundles}
    truth: list[list[bool]] = []
    if fresh:
        pool = decode_pool(params, list(engine.transforms), inbox, settle_seconds=0.0)
        with pool:
            decoded = zip(fresh, pool.run(image.locator for image in fresh), strict=True)
            for batch in chunked(decoded, params.tag.batch_size):
                # A file that was replaced since is another picture.
                good = [(i, d) for i, d in batch if d.views and d.image_id == i.image_id]
                truth += [[tag in image.tags for tag in tags] for image, _ in good]
                if good:
                    scores = engine.score(stack_views(engine, [d for _, d in good]))
                    for digest, rows in scores.items():
                        parts[digest].append(rows)
    return CheckedScores(
        np.array(truth, dtype=np.uint8).reshape(-1, len(tags)),
        {digest: np.concatenate(rows) for digest, rows in parts.items()},
        learned=len(checked) - len(fresh),
        unread=len(fresh) - len(truth),
    )
