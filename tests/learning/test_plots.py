"""Plots show any tag, letter by letter, and say what they show."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from shoetagger.learning.evaluation import plot_tables, plots
from shoetagger.learning.evaluation.contact_sheet import (
    ANSWERS,
    CHANGES,
    Colours,
    Shown,
    contact_sheet,
)

TAGS = (r"$\foo$", r"a $ b $ \bar{", "größe (4½)")


def test_tags_are_no_formulas() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (30, 3)).astype(np.uint8)
    scores = rng.random((30, 3))
    predicted = (scores > 0.5).astype(np.uint8)
    for figure in (
        plots.precision_recall(truth, scores, TAGS, np.ones(3, bool), "title"),
        plots.confusions(truth, predicted, TAGS, "title"),
    ):
        figure.savefig(io.BytesIO(), format="png")
        assert any(r"\$\foo\$" in text for text in words(figure))


def words(figure: Figure) -> dict[str, str]:
    """The texts of a figure, each with its colour."""
    return {text.get_text(): to_hex(text.get_color()) for text in figure.findobj(Text)}


def sheet(colours: Colours) -> dict[str, str]:
    pixels = np.zeros((8, 8, 3), np.uint8)
    name = "a very long name of a picture from a camera.jpg"
    shown = [Shown(name, pixels, ("red", "boot"), ("red", "heel")), Shown("b.jpg", pixels, (), ())]
    return words(contact_sheet(shown, "some pictures", colours))


@pytest.mark.slow
def test_a_sheet_names_its_files_and_says_what_its_colours_mean() -> None:
    shown = sheet(ANSWERS)
    assert {"b.jpg", "a very long\N{HORIZONTAL ELLIPSIS}a camera.jpg"} <= shown.keys()
    for (color, meaning), word in zip(
        (ANSWERS.both, ANSWERS.added, ANSWERS.missing), ("red", "+heel", "-boot"), strict=True
    ):
        assert meaning in shown
        assert shown[word] == color


@pytest.mark.slow
def test_what_is_gained_and_lost_is_not_coloured_as_right_and_wrong() -> None:
    answers, changes = sheet(ANSWERS), sheet(CHANGES)
    assert {changes["+heel"], changes["-boot"]}.isdisjoint(
        {answers["+heel"], answers["-boot"], answers["red"]}
    )
    assert "right" not in changes


def test_counts_can_be_read_on_light_and_on_dark_fields() -> None:
    truth = np.array([[1, 0, 0]] * 9 + [[0, 0, 1]], dtype=np.uint8)
    predicted = np.array([[0, 1, 0]] * 10, dtype=np.uint8)
    shown = words(plots.confusions(truth, predicted, ("a", "b", "c"), "title"))
    assert (shown["9"], shown["1"]) == ("#ffffff", "#000000")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_for_dvc_have_each_hit_and_each_mistake(tmp_path: Path) -> None:
    truth = np.array([[1, 0], [1, 0], [0, 1], [0, 0], [1, 1]], dtype=np.uint8)
    predicted = np.array([[1, 0], [0, 1], [0, 0], [0, 1], [1, 1]], dtype=np.uint8)
    plot_tables.write_confusions(truth, predicted, ("a", "b"), tmp_path / "confusion.csv")
    assert [(row["actual"], row["predicted"]) for row in rows(tmp_path / "confusion.csv")] == [
        ("a", "a"), ("a", "b"), ("b", "(none)"), ("(none)", "b"), ("a", "a"), ("b", "b"),
    ]  # fmt: skip


def test_tables_for_dvc_have_curves_and_none_without_pictures(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (500, 2)).astype(np.uint8)
    scores = np.clip(truth * 0.4 + rng.random((500, 2)) * 0.6, 0, 1)
    curve, reliability = tmp_path / "curve.csv", tmp_path / "reliability.csv"
    plot_tables.write_precision_recall(truth, scores, curve)
    recalls = [float(row["recall"]) for row in rows(curve)]
    assert recalls == sorted(recalls)
    assert (recalls[0], recalls[-1]) == (0, 1)
    assert len(recalls) <= 100
    plot_tables.write_reliability(truth, scores, reliability)
    shares = [float(row["share_true"]) for row in rows(reliability)]
    assert shares[0] == 0 and shares[-1] == 1  # noqa: PT018 - one fact
    for empty in (truth[:0], np.zeros_like(truth)):
        plot_tables.write_precision_recall(empty, scores[: len(empty)], curve)
        assert rows(curve) == []
    plot_tables.write_reliability(truth[:0], scores[:0], reliability)
    assert rows(reliability) == []
