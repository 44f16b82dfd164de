"""What a person should look at in a label sheet after new rows came into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..config.params import Params
from ..images.decode import Limits, image_id
from ..learning.audit.near_duplicates import near_duplicates, small_view
from ..learning.dataset.labels import CHOSEN, Labels
from ..learning.dataset.split import SIDES, side


def doubts(labels: Labels, edited: Sequence[str], images: Path, params: Params) -> Iterator[str]:
    """Yield a sentence for each row among `edited`, names below images/, that is doubtful.

    Its tags exclude each other; or it shows nearly the same picture as another row, on the other
    side of the split, by which the validation would look too good, or with other tags.
    """
    tags = _tags(labels)
    for name in edited:
        for exclusive in params.audit.exclusive:
            both = [tag for tag in exclusive if tag in tags[name]]
            if len(both) > 1:
                yield f"{name}: {' and '.join(both)} cannot both be true (audit.exclusive)"
    if not edited:
        return
    names = [*edited, *(name for name in labels.names if name not in set(edited))]
    limits = Limits.of(params.images)
    views = np.stack([small_view((images / name).read_bytes(), limits) for name in names])
    least = params.audit.near_duplicate_correlation
    origins = dict(zip(labels.names, labels.origins, strict=True))

    def side_of(name: str) -> str:
        if origins[name] in CHOSEN:
            return SIDES[0]
        return side(image_id((images / name).read_bytes()), params.split)

    for i, j, _ in near_duplicates(views, least, first=len(edited)):
        pair = names[i], names[j]
        sides = [side_of(name) for name in pair]
        differing = [tag for tag in labels.tags if (tag in tags[pair[0]]) != (tag in tags[pair[1]])]
        faults = []
        if sides[0] != sides[1]:
            faults.append(f"one is on the {sides[0]} side, the other on the {sides[1]} side")
        if differing:
            faults.append(f"they differ in {', '.join(differing)}")
        if faults:
            yield f"{pair[0]} and {pair[1]} are nearly the same picture, and {'; '.join(faults)}"


def _tags(labels: Labels) -> dict[str, frozenset[str]]:
    return {
        name: frozenset(tag for tag, tick in zip(labels.tags, ticks, strict=True) if tick)
        for name, ticks in zip(labels.names, labels.matrix.tolist(), strict=True)
    }
