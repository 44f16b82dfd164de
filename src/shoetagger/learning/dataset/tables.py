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
    """Write the out-of-fold scores of some folds, in the order of their rows, and return them.

    Columns: image_name, fold, then a score per tag. Without folds the table has no rows.
    """
    columns = ["image_name", "fold", *tags]
    table = pd.concat(folds) if folds else pd.DataFrame(columns=columns)
    _write(table.sort_index(), path)
    return table


def read_scores(path: Path) -> pd.DataFrame:
    """Read what `write_scores` wrote."""
    return _read(path)


def write_predictions(parts: Sequence[pd.DataFrame], path: Path) -> None:
    """Write image_name, part, then the columns "true", "score" and "predicted" per tag."""
    _write(pd.concat(parts), path)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read what `write_predictions` wrote."""
    return _read(path)


def scores_by_image(scores: pd.DataFrame, split: pd.DataFrame) -> str | None:
    """Return out-of-fold scores as the CSV that goes with a version into the registry.

    Columns: image_id, then a score per tag. None where there are no scores (split.folds: 0).
    """
    if not len(scores):
        return None
    ids = split.set_index("image_name")["image_id"]
    table = scores.drop(columns=["image_name", "fold"])
    table.insert(0, "image_id", list(ids.loc[scores["image_name"]]))
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


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=_TEXT, keep_default_na=False)
