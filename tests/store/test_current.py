"""Current tags: live predictions, corrections, removed groups."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from helpers.stores import (
    BLUE,
    BOOT,
    LATER,
    NIGHT,
    RED,
    TEAL,
    add_bundles,
    current,
    image,
    make_live,
    red,
    tag,
)

from shoetagger.store.rows import (
    GroupCounts,
    Prediction,
    StoreError,
    Work,
)
from shoetagger.store.store import Store


def test_a_move_makes_tags_current_at_once_and_older_ones_stale(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    (day,) = store.days.changed()
    store.days.mark_published(*day)
    assert store.days.changed() == []

    make_live(store, "color", TEAL)
    assert [name for name, _ in store.days.changed()] == ["2026-11-01"]
    store.predictions.record(
        predictions=[Prediction(image("a.jpg"), TEAL, (0.1, 0.2, 0.9), ("teal",))],
        run_id="run",
        now=LATER,
    )
    rows = current(store, "color")
    new, old = (rows[image(name)].groups["color"] for name in ("a.jpg", "b.jpg"))
    assert (new.tags, new.digest, new.version, new.stale) == (("teal",), TEAL, None, False)
    assert new.scores == {"red": 0.1, "blue": 0.2, "teal": 0.9}
    assert (old.tags, old.digest, old.version, old.stale) == (("red",), RED, "1", True)
    assert store.current.counts(["color", "style"]).groups == {
        "color": GroupCounts(1, 1, 0),
        "style": GroupCounts(0, 0, 2),
    }
    make_live(store, "color", RED, "rollback")
    rows = current(store, "color")
    assert [(row.groups["color"].tags, row.groups["color"].stale) for row in rows.values()] == [
        (("red",), False)
    ] * 2
    # What only the bundle that was rolled back has seen has no tags until the next night.
    tag(store, "c.jpg", digest=None)
    store.predictions.record(
        predictions=[Prediction(image("c.jpg"), TEAL, (0.1, 0.2, 0.9), ("teal",))],
        run_id="run",
        now=LATER,
    )
    assert current(store)[image("c.jpg")].groups == {}
    assert store.current.counts(["color"]).groups == {"color": GroupCounts(2, 0, 1)}


def test_corrections_overrule_until_they_are_withdrawn(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg")
    tag(store, "b.jpg", digest=None)
    who = {"by": "me", "why": "I saw it"}
    store.corrections.correct(image("a.jpg"), "color", ["blue"], now=NIGHT, **who)
    store.corrections.correct(image("b.jpg"), "color", [], now=NIGHT, **who)
    make_live(store, "color", TEAL)
    rows = current(store)
    a, b = (rows[image(name)].groups["color"] for name in ("a.jpg", "b.jpg"))
    assert (a.tags, a.corrected, a.stale, a.digest) == (("blue",), True, False, RED)
    assert (b.tags, b.corrected, b.digest, b.scores) == ((), True, None, {})
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(2, 0, 0)
    revision = dict(store.days.changed())["2026-11-01"]
    store.corrections.correct(image("a.jpg"), "color", ["red", "blue"], now=LATER, **who)
    assert dict(store.days.changed())["2026-11-01"] == revision + 1
    assert current(store)[image("a.jpg")].groups["color"].tags == ("red", "blue")
    store.corrections.correct(image("a.jpg"), "color", None, now=LATER, **who)
    a = current(store)[image("a.jpg")].groups["color"]
    assert (a.tags, a.corrected, a.stale) == (("red",), False, True)
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(1, 1, 0)
    with pytest.raises(StoreError, match="nothing to correct"):
        store.corrections.correct(image("unknown"), "color", [], now=NIGHT, **who)


def test_groups_that_were_removed_or_not_asked_for_do_not_show(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    make_live(store, "style", BOOT)
    tag(store, "a.jpg")
    boot = Prediction(image("a.jpg"), BOOT, (0.9, 0.1), ("boot",))
    store.predictions.record(predictions=[boot], run_id="run", now=NIGHT)
    assert current(store)[image("a.jpg")].groups.keys() == {"color", "style"}
    assert current(store, "style")[image("a.jpg")].groups.keys() == {"style"}
    store.corrections.correct(image("a.jpg"), "color", ["blue"], by="me", why="x", now=NIGHT)
    make_live(store, "color", None, "remove")
    assert current(store)[image("a.jpg")].groups.keys() == {"style"}
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(0, 0, 1)
    assert [m.kind for m in store.ledger.history("color")] == ["promote", "remove"]


def test_current_rows_come_whole_in_order_of_arrival_and_can_be_narrowed(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    first = [f"{n}.jpg" for n in range(1200)]
    tag(store, *first, now=NIGHT)
    tag(store, "late.jpg", now=LATER)
    rows = list(store.current.rows(["color"]))
    assert [row.first_seen for row in rows] == [NIGHT] * 1200 + [LATER]
    assert {row.image_id for row in rows} == {image(n) for n in (*first, "late.jpg")}
    assert all(row.groups["color"].tags == ("red",) for row in rows)
    assert set(current(store, day="2026-11-02")) == {image("late.jpg")}
    assert set(current(store, image_ids=[image("7.jpg"), "x"])) == {image("7.jpg")}
    assert len(current(store, image_ids=[row.image_id for row in rows])) == 1201
    assert (rows[0].width, rows[0].height, rows[0].day) == (640, 480, "2026-11-01")


@pytest.mark.slow
def test_reading_goes_on_while_others_write(store: Store, url: str) -> None:
    add_bundles(store)
    tag(store, *(f"{n}.jpg" for n in range(1500)))
    rows = store.current.rows(["color"])
    next(rows)
    with Store(url) as other:
        tag(other, "late.jpg", now=LATER)
    assert (
        len(list(rows)) == 1500
    )  # the first was taken before, and the late one is on a later page


def test_what_was_current_at_a_time_can_be_shown(store: Store) -> None:
    add_bundles(store)

    def at(hours: float) -> datetime:
        return NIGHT + timedelta(hours=hours)

    image_id = image("a.jpg")
    make_live(store, "color", RED, "promote", now=at(0))
    tag(store, "a.jpg", now=at(1))
    make_live(store, "color", BLUE, "promote", now=at(2))
    store.predictions.record(predictions=[red("a.jpg", "blue", BLUE)], run_id="run", now=at(3))
    store.corrections.correct(image_id, "color", ["red", "blue"], by="me", why="x", now=at(4))
    store.corrections.correct(image_id, "color", None, by="me", why="x", now=at(5))
    make_live(store, "color", RED, "rollback", now=at(6))
    found = [
        store.current.tags_at(image_id, at(hours + 0.5)).get("color") for hours in range(-1, 7)
    ]
    assert [t and (t.digest, t.tags, t.stale, t.corrected) for t in found] == [
        None,
        None,
        (RED, ("red",), False, False),
        (RED, ("red",), True, False),
        (BLUE, ("blue",), False, False),
        (BLUE, ("red", "blue"), False, True),
        (BLUE, ("blue",), False, False),
        (RED, ("red",), False, False),
    ]


def test_counts_of_an_empty_store_are_zero(store: Store) -> None:
    counts = store.current.counts(["color"])
    assert (counts.files, counts.images, counts.waiting) == (0, 0, 0)
    assert counts.groups == {"color": GroupCounts(0, 0, 0)}
    assert store.predictions.count_work({"color": RED}) == Work(0, {"color": 0})


def test_corrections_of_a_removed_group_are_not_what_was_current(store: Store) -> None:
    add_bundles(store)
    tag(store, "a.jpg")
    picture = image("a.jpg")
    store.corrections.correct(picture, "color", ["blue"], by="me", why="x", now=NIGHT)
    assert store.current.tags_at(picture, NIGHT)["color"].tags == ("blue",)  # without a champion
    make_live(store, "color", RED)
    make_live(store, "color", None, "remove")
    assert store.current.tags_at(picture, LATER) == {}
