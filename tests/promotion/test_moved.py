"""A picture that a version trained on for a rare tag is known, whatever side it is on today."""

from __future__ import annotations

import json

import numpy as np

from shoetagger.config.recipe import Split
from shoetagger.learning.dataset.labels import Labels
from shoetagger.learning.dataset.split import side, split_group
from shoetagger.promotion.moved import moved_to_training, trained_on

SPLIT = Split(seed=1, validation=0.3, folds=0)
IDS = [f"picture {number}" for number in range(40)]
ON_VALIDATION = [image_id for image_id in IDS if side(image_id, SPLIT) == "validation"]


def labels(shown: list[str]) -> Labels:
    """Label all pictures, of which `shown` show the one tag."""
    matrix = np.array([[image_id in shown] for image_id in IDS], dtype=np.uint8)
    return Labels(tuple(IDS), ("boot",), matrix, ())


def test_what_moves_to_training_for_a_rare_tag_is_recorded_and_read_back() -> None:
    rare, _ = split_group(labels(ON_VALIDATION[:2]), IDS, ["boot"], SPLIT)
    recorded = moved_to_training(rare, SPLIT)
    (moved,) = json.loads(recorded)
    assert moved in ON_VALIDATION[:2]
    assert trained_on(recorded, None) == {moved}
    # With more labels it is on its own side again, and would count as never seen.
    usual, _ = split_group(labels([*ON_VALIDATION[:2], *IDS[:9]]), IDS, ["boot"], SPLIT)
    assert json.loads(moved_to_training(usual, SPLIT)) == []
    assert usual.set_index("image_id").loc[moved, "side"] == "validation"


def test_a_version_of_before_is_known_by_its_out_of_fold_scores() -> None:
    assert trained_on(None, "image_id,boot\na,0.5\nb,0.5\n") == {"a", "b"}
    assert trained_on(None, None) == frozenset()
