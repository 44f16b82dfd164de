"""What people read of a comparison has titles; what programs read keeps the names."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from shoetagger.learning.evaluation.contact_sheet import Shown
from shoetagger.promotion.by_itself import ByItself
from shoetagger.promotion.checked import OnChecked
from shoetagger.promotion.gate import Verdict
from shoetagger.promotion.paired import PairedMetrics, ScorePair, TagDiff, TagMetrics
from shoetagger.promotion.report import (
    DOCUMENT,
    PAGE,
    SHEET,
    document,
    files,
    text,
    without_pictures,
)
from shoetagger.promotion.side_by_side import Arrivals, SideBySide
from shoetagger.store.rows import TagChange

TITLES = {
    "boot": "Boots",
    "above_ankle": "above the ankle",
    "flat": "flat_shoe",
    "heel": "High heels",
}
VERDICT = Verdict(True, ("it is better",))


def title(name: str) -> str:
    return TITLES.get(name, name)


def met(*tags: str) -> PairedMetrics:
    pair = ScorePair(0.9, 0.8, None)
    return PairedMetrics(20, pair, tuple(TagMetrics(tag, 8, pair) for tag in tags))


def outcome(before: tuple[str, ...], after: tuple[str, ...]) -> SideBySide:
    """Return a comparison on validation pictures, and on one arrival whose tags change."""
    diff = TagDiff()
    diff.add(before, after)
    pixels = np.full((32, 32, 3), 200, np.uint8)
    return SideBySide(
        validation=met("boot"),
        left_out=0,
        out_of_fold=met("above_ankle"),
        new_tags=("heel",),
        dropped_tags=("flat",),
        arrivals=Arrivals(
            diff,
            0,
            (TagChange("ab" * 32, before, after),),
            (Shown("a.jpg", pixels, before, after),),
        ),
        checked=OnChecked(met("boot"), learned=0, unread=0),
    )


@pytest.fixture(scope="module")
def compared() -> tuple[dict[str, Any], SideBySide]:
    found = outcome(("boot",), ("above_ankle",))
    return document("Style: version 2 against version 1", VERDICT, "any", found), found


def test_the_page_and_the_approval_have_titles(
    compared: tuple[dict[str, Any], SideBySide],
) -> None:
    page = files(*compared, None, title)[PAGE].decode()
    asked = text(compared[0], None, title)
    for shown in (page, asked):
        assert "above the ankle" in shown
        assert "Boots" in shown
        assert "above_ankle" not in shown.replace("\\", "")
        assert "| boot " not in shown
        assert "<td>boot" not in shown
    assert "does not know: High heels." in page
    assert "no longer has: flat_shoe." in page


@pytest.mark.slow
def test_the_document_keeps_the_names(compared: tuple[dict[str, Any], SideBySide]) -> None:
    stored = json.loads(files(*compared, None, title)[DOCUMENT])
    assert [row["tag"] for row in stored["validation"]["tags"]] == ["boot"]
    assert stored["arrivals"]["tags"].keys() == {"boot", "above_ankle"}
    assert stored["new_tags"] == ["heel"]


def test_the_contact_sheet_has_titles(compared: tuple[dict[str, Any], SideBySide]) -> None:
    titled = files(*compared, None, title)[SHEET]
    assert titled == files(compared[0], outcome(("Boots",), ("above the ankle",)))[SHEET]
    assert titled != files(*compared)[SHEET]


def test_a_comparison_that_shows_nothing_leaves_no_earlier_sheet_in_its_place(
    compared: tuple[dict[str, Any], SideBySide],
) -> None:
    stopped = document("Style: version 2 against version 1", VERDICT, "any", None)
    earlier = files(*compared)
    now = earlier | files(stopped, None)
    assert now.keys() == earlier.keys()
    assert now[SHEET] != earlier[SHEET]
    assert without_pictures(now, "ab" * 32) == {}, "there is nothing to erase"
    by_older_code = now | {SHEET: earlier[SHEET]}
    assert without_pictures(by_older_code, "ab" * 32) == {SHEET: now[SHEET]}


def test_a_first_version_by_itself_has_titles() -> None:
    values = {"support": 3, "predicted": 2, "precision": 0.5, "f1": 0.4}
    alone = ByItself({"pictures": 9, "macro_f1": 0.4, "tags": {"above_ankle": values}}, None)
    told = document("Detail: version 1 against no champion", VERDICT, "any", None, alone)
    assert "<td>above the ankle</td>" in files(told, None, alone, title)[PAGE].decode()
    assert "| above the ankle | 3 | 2 | 1 | 0.400 |" in text(told, None, title)
