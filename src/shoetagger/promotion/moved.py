"""The pictures of the validation side that a version trained on, for a tag that is rare.

`split` moves a tag's only positives to the side that lacks one. What was moved then may be on its
own side today, with more labels: a comparison must know it from the version.
"""

from __future__ import annotations

import json

import pandas as pd

from ..config import recipe
from ..learning.dataset.split import side
from ..learning.dataset.tables import read_scores_by_image


def moved_to_training(table: pd.DataFrame, split: recipe.Split) -> bytes:
    """Return the ids of these pictures in a group's split table, as a JSON list."""
    learned = table.loc[table["side"] == "train", "image_id"].unique()
    moved = [image_id for image_id in learned if side(image_id, split) == "validation"]
    return (json.dumps(sorted(moved)) + "\n").encode()


def trained_on(moved: bytes | None, out_of_fold: str | None) -> frozenset[str]:
    """Return the ids that a version is known to have trained on, at least those that were moved.

    A version of before `moved` was recorded has out-of-fold scores of all that it trained on,
    unless it had no cross-validation (split.folds: 0): then nothing is known.
    """
    if moved is not None:
        return frozenset(json.loads(moved))
    if out_of_fold is not None:
        return frozenset(read_scores_by_image(out_of_fold).index)
    return frozenset()
