"""Out-of-fold scores of several repeats, and of earlier commits, which had one."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from shoetagger.learning.dataset.tables import (
    mean_scores,
    read_predictions,
    read_scores,
    read_scores_by_image,
    scores_by_image,
    write_scores,
)

SPLIT = pd.DataFrame({"image_name": ["a.jpg", "b.jpg"], "image_id": ["1f", "2e"]})


def folds() -> list[pd.DataFrame]:
    """Two repeats of two folds, in which the two pictures change places."""
    cells = [("a.jpg", 0, 0, 0.1), ("b.jpg", 0, 1, 0.6), ("b.jpg", 1, 0, 0.8), ("a.jpg", 1, 1, 0.3)]
    columns = ["image_name", "repeat", "fold", "boot"]
    return [pd.DataFrame([c], columns=columns, index=[int(c[0] == "b.jpg")]) for c in cells]


def test_each_repeat_has_its_pictures_in_the_order_of_the_split(tmp_path: Path) -> None:
    write_scores(folds(), ["boot"], tmp_path / "style.csv")
    table = read_scores(tmp_path / "style.csv")
    assert list(table.columns) == ["image_name", "repeat", "fold", "boot"]
    assert list(table["repeat"]) == [0, 0, 1, 1]
    assert list(table["image_name"]) == ["a.jpg", "b.jpg"] * 2
    assert list(table["fold"]) == [0, 1, 1, 0]
    mean = mean_scores(table, ["boot"])
    assert dict(zip(mean["image_name"], mean["boot"].round(6), strict=True)) == {
        "a.jpg": 0.2,
        "b.jpg": 0.7,
    }


def test_a_version_is_registered_with_the_scores_of_the_first_repeat() -> None:
    text = scores_by_image(pd.concat(folds()), SPLIT)
    assert text is not None
    assert list(pd.read_csv(io.StringIO(text)).columns) == ["image_id", "boot"]
    assert read_scores_by_image(text)["boot"].to_dict() == {"1f": 0.1, "2e": 0.6}


def test_tables_of_earlier_commits_have_the_first_repeat_alone(tmp_path: Path) -> None:
    old = tmp_path / "style.csv"
    old.write_text("image_name,fold,boot\na.jpg,0,0.1\nb.jpg,1,0.6\n")
    assert list(read_scores(old)["repeat"]) == [0, 0]
    text = scores_by_image(read_scores(old), SPLIT)
    assert text is not None
    assert read_scores_by_image(text)["boot"].to_dict() == {"1f": 0.1, "2e": 0.6}
    old.write_text("image_name,part,true boot,score boot,predicted boot\na.jpg,crossval,0,0.1,0\n")
    assert list(read_predictions(old)["repeat"]) == [0]


def test_without_folds_there_are_no_scores(tmp_path: Path) -> None:
    assert write_scores([], ["boot"], tmp_path / "style.csv").empty
    empty = read_scores(tmp_path / "style.csv")
    assert empty.empty
    assert scores_by_image(empty, SPLIT) is None
