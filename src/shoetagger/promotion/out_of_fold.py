"""The out-of-fold scores that go with a version into the registry."""

from __future__ import annotations

from pathlib import Path

from ..learning.dataset.tables import read_scores, read_split, scores_by_image
from ..pipeline.dvc_files import outputs


def out_of_fold(checkout: Path, group: str) -> str | None:
    """Return the out-of-fold scores of a trained group as CSV: image_id, then a column per tag.

    They go with the version into the registry, so that later versions can be compared with them.
    None where there is no cross-validation (split.folds: 0).
    """
    scores = read_scores(outputs(checkout, f"crossval@{group}")[f"{group}.csv"])
    split = read_split(outputs(checkout, "split")["split"] / f"{group}.csv")
    return scores_by_image(scores, split)
