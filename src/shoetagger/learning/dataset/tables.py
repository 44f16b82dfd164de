"""The CSV tables that stages hand each other: their only writers and readers."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

# Names and ids are text, whatever they look like ("NA", "1e5").
_TEXT = {"image_name": str, "image_id": str, "side": str}


def write_split(table: pd.DataFrame, path: Path) -> None:
    """Write a split table: image_name, image_id, side, fold, then a 0/1 column per tag."""
    table.to_csv(path, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)


def read_split(path: Path) -> pd.DataFrame:
    """Read what `write_split` wrote."""
    return _read(path)


def write_scores(folds: Sequence[pd.DataFrame], tags: Sequence[str], path: Path) -> pd.DataFrame:
    """Write the out-of-fold scores of some folds, and return them.

    Columns: image_name, repeat, fold, then a score per tag. Each repeat of the cross-validation has
    all its pictures, in the order of the folds' index. Without folds the table has no rows.
    """
    columns = ["image_name", "repeat", "fold", *tags]
    table = pd.concat(folds) if folds else pd.DataFrame(columns=columns)
    table = table.sort_index().sort_values("repeat", kind="stable")
    _write(table, path)
    return table


def read_scores(path: Path) -> pd.DataFrame:
    """Read what `write_scores` wrote; earlier commits knew no repeats, and had the first alone."""
    return _with_repeat(_read(path))


def mean_scores(scores: pd.DataFrame, tags: Sequence[str]) -> pd.DataFrame:
    """Return a row per picture, image_name and the mean score of each tag over the repeats."""
    return scores.groupby("image_name", sort=False)[list(tags)].mean().reset_index()


def write_predictions(parts: Sequence[pd.DataFrame], path: Path) -> None:
    """Write image_name, part, repeat, then the columns "true", "score" and "predicted" per tag."""
    _write(pd.concat(parts), path)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read what `write_predictions` wrote; see `read_scores` for those of earlier commits."""
    return _with_repeat(_read(path))


def scores_by_image(scores: pd.DataFrame, split: pd.DataFrame) -> str | None:
    """Return out-of-fold scores as the CSV that goes with a version into the registry.

    Columns: image_id, then a score per tag. It has the first repeat alone: means over several
    would be better scores than those of a version that has one. None where there are no scores
    (split.folds: 0).
    """
    if not len(scores):
        return None
    ids = split.set_index("image_name")["image_id"]
    first = scores[scores["repeat"] == 0]
    table = first.drop(columns=["image_name", "repeat", "fold"])
    table.insert(0, "image_id", list(ids.loc[first["image_name"]]))
    text: str = table.to_csv(index=False)
    return text


def read_scores_by_image(text: str) -> pd.DataFrame:
    """Read what `scores_by_image` gave; the index is the image id."""
    table = pd.read_csv(io.StringIO(text), dtype=_TEXT, keep_default_na=False)
    return table.drop_duplicates("image_id").set_index("image_id")


def _write(table: pd.DataFrame, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(
        path, index=False, lineterminator="\n", float_format="%.6f", quoting=csv.QUOTE_NONNUMERIC
    )


def _with_repeat(table: pd.DataFrame) -> pd.DataFrame:
    return table if "repeat" in table else table.assign(repeat=0)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=_TEXT, keep_default_na=False)
