"""Articles: whose picture a file is, and what its pictures say together."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest

from shoetagger.config.operations import Articles
from shoetagger.config.recipe import Group
from shoetagger.publishing.articles import by_article, write_articles
from shoetagger.publishing.rows import Cell, Row

GROUPS = {"color": Group(("black", "red", "tan")), "style": Group(("boot", "flat"))}


def row(article: str | None, day: int = 1, verdict: str | None = None, **groups: Cell) -> Row:
    seen = datetime(2026, 1, day, tzinfo=UTC)
    return Row("a" * 64, "x.jpg", "file:///x.jpg", seen, groups, (), verdict, article)


def cell(*tags: str, by_hand: bool = False) -> Cell:
    return Cell(tags, {}, "1", stale=False, corrected=by_hand)


@pytest.mark.parametrize(
    ("names", "article"),
    [
        (["48213_2.jpg"], "48213"),
        (["new/48213_2.jpg"], "48213"),
        (["cover.jpg", "48213_1.jpg", "99_1.jpg"], "48213"),
        (["48213.jpg"], None),
        ([], None),
    ],
)
def test_a_name_tells_the_article(names: list[str], article: str | None) -> None:
    assert Articles(r"(?P<article>\d+)_\d+\.jpg$").of(names) == article
    assert Articles().of(names) is None


def test_a_tag_is_an_articles_if_half_of_its_pictures_have_it() -> None:
    found = by_article(
        [
            row("7", day=2, color=cell("red"), style=cell("boot")),
            row("7", day=1, color=cell("red", "black"), style=cell("boot")),
            row("7", day=3, color=cell("tan"), style=cell("flat")),
            row("7", day=3, color=cell("black")),
            row(None, color=cell("tan")),
        ]
    )
    assert list(found) == ["7"]
    assert found["7"].pictures == 4
    assert found["7"].first_seen == datetime(2026, 1, 1, tzinfo=UTC)
    assert found["7"].tags("color", GROUPS["color"]) == ("black", "red")
    assert found["7"].tags("style", GROUPS["style"]) == ("boot",)


def test_peoples_word_on_some_pictures_decides_alone_and_what_is_no_shoe_has_no_say() -> None:
    found = by_article(
        [
            row("7", color=cell("red"), style=cell("boot")),
            row("7", color=cell("red"), style=cell("boot")),
            row("7", color=cell("tan", by_hand=True), style=cell("flat")),
            row("7", verdict="not a shoe", color=cell(by_hand=True), style=cell(by_hand=True)),
            row("8", verdict="not a shoe", color=cell(by_hand=True)),
        ]
    )
    assert found["7"].tags("color", GROUPS["color"]) == ("tan",)
    assert found["7"].tags("style", GROUPS["style"]) == ("boot",)
    assert (found["7"].is_corrected("color"), found["7"].is_corrected("style")) == (True, False)
    assert found["8"].tags("color", GROUPS["color"]) is None


@pytest.mark.parametrize("fmt", ["csv", "jsonl", "parquet"])
def test_a_table_has_a_row_per_article(fmt: str) -> None:
    articles = by_article([row("=9", color=cell("red", "tan")), row("7", color=cell(by_hand=True))])
    out = io.BytesIO()
    assert write_articles(articles, GROUPS, fmt, out) == 2
    if fmt == "csv":
        seven, nine = csv.DictReader(io.StringIO(out.getvalue().decode()))
        assert (nine["article"], nine["color"], nine["corrected"]) == ("'=9", "red, tan", "")
        assert (seven["pictures"], seven["color"], seven["corrected"]) == ("1", "", "color")
    elif fmt == "jsonl":
        seven, nine = map(json.loads, out.getvalue().splitlines())
        assert (nine["article"], nine["tags"]) == ("=9", {"color": ["red", "tan"]})
        assert (seven["tags"], seven["corrected"]) == ({"color": []}, ["color"])
    else:
        out.seek(0)
        seven, nine = pq.read_table(out).to_pylist()
        assert (nine["color_tags"], nine["style_tags"]) == (["red", "tan"], None)
        assert (seven["article"], seven["color_tags"], seven["color_corrected"]) == ("7", [], True)
