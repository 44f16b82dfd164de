"""Counts per block: what is searched for work, and which days a move changes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from helpers.recount import check_counts
from helpers.stores import (
    BLUE,
    BOOT,
    LATER,
    NIGHT,
    RED,
    TEAL,
    add_bundles,
    file_id,
    image,
    make_live,
    red,
    tag,
)

from shoetagger.store import blocks
from shoetagger.store.rows import Prediction
from shoetagger.store.store import Store


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 4)


@pytest.fixture
def counted(store: Store, url: str) -> Iterator[Store]:
    """A store whose counts are compared with its rows in the end."""
    add_bundles(store)
    yield store
    engine = sa.create_engine(url)
    check_counts(engine)
    engine.dispose()


@pytest.mark.slow
def test_the_backlog_is_drawn_from_blocks_that_lack_something(counted: Store) -> None:
    names = [f"{n}.jpg" for n in range(100)]
    for number, name in enumerate(names):
        tag(counted, name, now=NIGHT + timedelta(minutes=number))
    done = [Prediction(image(n), BOOT, (0.5, 0.5), ("boot",)) for n in (*names[40:], *names[:7])]
    counted.predictions.record(predictions=done, run_id="run", now=LATER)
    # One of those that lack it is gone, another one has a copy.
    counted.files.lose([file_id("20.jpg")])
    pins = {"color": RED, "style": BOOT}
    assert counted.predictions.count_work(pins).backlog == {"color": 0, "style": 32}
    drawn = []
    while page := counted.predictions.hand_out("run", pins, 5):
        drawn += [row.image_id for row in page]
    assert drawn == [image(f"{n}.jpg") for n in range(39, 6, -1) if n != 20]
    # Whoever begins again finds the same; in parts, by ids.
    ranges = [("", "5"), ("5", "b"), ("b", None)]
    parts = [counted.predictions.backlog(pins, *some, 99) for some in ranges]
    assert {row.image_id for part in parts for row in part} == set(drawn)


def test_a_move_marks_the_days_on_which_rows_change_and_no_others(counted: Store) -> None:
    days = ["2026-11-01", "2026-11-02", "2026-11-03"]
    make_live(counted, "color", RED)
    for number in range(3):
        tag(counted, f"{number}.jpg", now=NIGHT + timedelta(days=number))

    def marked() -> list[str]:
        changed = counted.days.changed()
        for day, revision in changed:
            counted.days.mark_published(day, revision)
        return [day for day, _ in changed]

    assert marked() == days
    make_live(counted, "style", BOOT)  # it has tagged nothing yet
    assert marked() == []
    make_live(counted, "color", BLUE)  # all tags become stale
    assert marked() == days
    blue = Prediction(image("2.jpg"), BLUE, (0.1, 0.9), ("blue",))
    counted.predictions.record(predictions=[blue], run_id="run", now=LATER)
    assert marked() == days[2:]
    make_live(counted, "color", TEAL)  # what the first had tagged was stale and remains so
    assert marked() == days[2:]
    make_live(counted, "color", BLUE, "rollback")
    assert marked() == days[2:]
    make_live(counted, "color", RED, "rollback")
    assert marked() == days
    make_live(counted, "color", None, "remove")
    assert marked() == days


def test_a_correction_shows_again_where_its_group_returns(counted: Store) -> None:
    make_live(counted, "color", TEAL)
    tag(counted, "a.jpg", digest=None)
    tag(counted, "b.jpg", digest=None, now=LATER)
    counted.corrections.correct(image("a.jpg"), "color", ["red"], by="me", why="x", now=NIGHT)
    for day, revision in counted.days.changed():
        counted.days.mark_published(day, revision)
    make_live(counted, "color", None, "remove")
    assert [day for day, _ in counted.days.changed()] == ["2026-11-01"]
    counted.days.mark_published(*counted.days.changed()[0])
    make_live(counted, "color", RED)
    assert [day for day, _ in counted.days.changed()] == ["2026-11-01"]
    counts = counted.current.counts(["color"]).groups["color"]
    assert (counts.tagged, counts.stale, counts.untagged) == (1, 0, 1)


def test_counts_know_the_origin_of_tags_in_blocks_of_every_kind(counted: Store) -> None:
    make_live(counted, "color", RED)
    names = [f"{n}.jpg" for n in range(20)]
    tag(counted, *names[:10])
    tag(counted, *names[10:], digest=None)
    make_live(counted, "color", BLUE)
    again = [red(name, "blue", BLUE) for name in (*names[5:8], *names[12:15])]
    counted.predictions.record(predictions=again, run_id="run", now=LATER)
    counted.files.lose([file_id(names[n]) for n in (0, 6, 11, 13)])
    counts = counted.current.counts(["color"])
    assert (counts.images, counts.gone) == (20, 4)
    found = counts.groups["color"]
    assert (found.tagged, found.stale, found.untagged) == (6, 7, 7)
