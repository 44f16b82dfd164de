"""The journal of corrections: edits, conflicts, undo."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from helpers.stores import (
    BLUE,
    LATER,
    NIGHT,
    RED,
    add_bundles,
    current,
    image,
    make_live,
    red,
    tag,
)

from shoetagger.store.rows import (
    NOT_A_SHOE,
    WHOLE_IMAGE,
    CorrectionConflict,
    Edit,
    GroupCounts,
    StoreError,
)
from shoetagger.store.store import Store


@pytest.fixture
def tagged_store(store: Store) -> Store:
    """Two pictures that the live version tagged red."""
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    return store


def edit(name: str, *tags: str, seen: int | None = None, group: str = "color") -> Edit:
    return Edit(image(name), group, tags, seen, RED)


def apply(store: Store, *edits: Edit, by: str = "ann", now: datetime = NIGHT) -> list[int]:
    return store.corrections.apply(edits, by=by, why="", origin="browse", now=now)


def tags_of(store: Store, name: str) -> tuple[tuple[str, ...], bool]:
    cell = current(store)[image(name)].groups["color"]
    return cell.tags, cell.corrected


def test_edits_are_written_all_or_none(tagged_store: Store) -> None:
    first, second = apply(tagged_store, edit("a.jpg", "blue"), edit("b.jpg"))
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)
    assert tags_of(tagged_store, "b.jpg") == ((), True)
    found = tagged_store.corrections.in_force([image("a.jpg"), image("b.jpg")])
    assert {key: row.id for key, row in found.items()} == {
        (image("a.jpg"), "color"): first,
        (image("b.jpg"), "color"): second,
    }
    row = found[image("a.jpg"), "color"]
    assert (row.by, row.origin, row.kind, row.seen_digest) == ("ann", "browse", "correct", RED)
    with pytest.raises(StoreError, match="no picture unknown"):
        apply(tagged_store, edit("a.jpg", "red", seen=first), Edit("unknown", "color", ()))
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)


def test_an_edit_of_what_somebody_else_edited_meanwhile_is_refused(tagged_store: Store) -> None:
    (first,) = apply(tagged_store, edit("a.jpg", "blue"), by="ann")
    with pytest.raises(CorrectionConflict, match="ann edited color of picture") as conflict:
        apply(tagged_store, edit("b.jpg"), edit("a.jpg", "red"), by="bo", now=LATER)
    assert conflict.value.correction.id == first
    assert tags_of(tagged_store, "b.jpg") == (("red",), False)
    apply(tagged_store, edit("a.jpg", "red", seen=first), by="bo", now=LATER)
    assert tags_of(tagged_store, "a.jpg") == (("red",), True)
    # Another group of the same picture is no conflict.
    apply(tagged_store, edit("a.jpg", "boot", group="style"), by="ann")


def test_edits_are_undone_one_after_the_other(tagged_store: Store) -> None:
    (first,) = apply(tagged_store, edit("a.jpg", "blue"))
    (second,) = apply(tagged_store, edit("a.jpg", seen=first), now=LATER)
    assert tagged_store.corrections.undo([second], by="ann", now=LATER) == [image("a.jpg")]
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)
    assert tagged_store.corrections.undo([first], by="ann", now=LATER) == [image("a.jpg")]
    assert tags_of(tagged_store, "a.jpg") == (("red",), False)
    with pytest.raises(CorrectionConflict):
        tagged_store.corrections.undo([first], by="ann", now=LATER)


def test_leaving_it_to_the_models_can_be_undone(tagged_store: Store) -> None:
    (first,) = apply(tagged_store, edit("a.jpg", "blue"))
    withdrawn = Edit(image("a.jpg"), "color", None, seen=first)
    (second,) = apply(tagged_store, withdrawn)
    assert tags_of(tagged_store, "a.jpg") == (("red",), False)
    tagged_store.corrections.undo([second], by="ann", now=LATER)
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)


def test_only_ones_own_latest_edits_are_undone_all_or_none(tagged_store: Store) -> None:
    mine = apply(tagged_store, edit("a.jpg", "blue"), edit("b.jpg", "blue"), by="ann")
    apply(tagged_store, edit("b.jpg", seen=mine[1]), by="bo")
    with pytest.raises(CorrectionConflict, match="bo edited"):
        tagged_store.corrections.undo(mine, by="ann", now=LATER)
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)
    with pytest.raises(CorrectionConflict, match="ann edited"):
        tagged_store.corrections.undo(mine[:1], by="bo", now=LATER)
    with pytest.raises(StoreError, match="nothing to undo"):
        tagged_store.corrections.undo([99], by="ann", now=LATER)


def test_the_journal_tells_what_changed_since_and_what_was_current(tagged_store: Store) -> None:
    begin, _ = tagged_store.corrections.since(0)
    (first,) = apply(tagged_store, edit("a.jpg", "blue"), now=NIGHT + timedelta(hours=1))
    middle, changed = tagged_store.corrections.since(begin)
    assert (middle, changed) == (first, {image("a.jpg")})
    tagged_store.corrections.undo([first], by="ann", now=NIGHT + timedelta(hours=2))
    _, changed = tagged_store.corrections.since(middle)
    assert changed == {image("a.jpg")}
    tags = [
        tagged_store.current.tags_at(image("a.jpg"), NIGHT + timedelta(hours=hours))["color"].tags
        for hours in (0.5, 1.5, 2.5)
    ]
    assert tags == [("red",), ("blue",), ("red",)]
    assert tagged_store.corrections.images_of(["2026-11-01"]) == {image("a.jpg")}
    assert tagged_store.corrections.images_of(["2026-11-02"]) == set()
    kinds = [row.kind for row in tagged_store.corrections.history(image("a.jpg"))]
    assert kinds == ["correct", "withdraw"]


def test_corrections_outlive_promotion_and_rollback_and_go_with_a_forgotten_picture(
    tagged_store: Store,
) -> None:
    apply(tagged_store, edit("a.jpg", "blue"))
    make_live(tagged_store, "color", BLUE)
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)
    tag(tagged_store, "a.jpg", digest=BLUE)  # again, by the new version, as red
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)
    make_live(tagged_store, "color", RED, kind="rollback")
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)
    tagged_store.files.forget(image("a.jpg"), LATER)
    assert tagged_store.corrections.history(image("a.jpg")) == []


# Verdicts


def verdict(name: str, seen: int | None = None, *, is_shoe: bool = False) -> Edit:
    return Edit(image(name), WHOLE_IMAGE, None if is_shoe else (), seen, kind="verdict")


def verdict_of(store: Store, name: str) -> str | None:
    return current(store)[image(name)].verdict


def test_what_is_not_a_shoe_has_no_tags_whatever_anybody_says_of_its_groups(
    tagged_store: Store,
) -> None:
    (correction,) = apply(tagged_store, edit("a.jpg", "blue"))
    (judged,) = apply(tagged_store, verdict("a.jpg", seen=correction), now=LATER)
    row = current(tagged_store)[image("a.jpg")]
    assert row.verdict == NOT_A_SHOE
    assert {group: cell.tags for group, cell in row.groups.items()} == {"color": (), "style": ()}
    assert row.groups["color"].scores
    assert verdict_of(tagged_store, "b.jpg") is None
    make_live(tagged_store, "color", BLUE)  # which has predicted neither
    assert tagged_store.current.counts(["color"]).groups["color"] == GroupCounts(1, 1, 0)
    assert tags_of(tagged_store, "a.jpg") == ((), True)
    # Taken back, the correction is what counts.
    apply(tagged_store, verdict("a.jpg", seen=judged, is_shoe=True), now=LATER)
    assert verdict_of(tagged_store, "a.jpg") is None
    assert tags_of(tagged_store, "a.jpg") == (("blue",), True)


def test_a_picture_is_unsure_until_a_person_says_what_it_shows(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", digest=None)
    far = red("a.jpg")._replace(unsure=True)
    store.predictions.record(predictions=[far], run_id="run", now=NIGHT)
    assert current(store)[image("a.jpg")].groups["color"].unsure
    (correction,) = apply(store, edit("a.jpg", "red"))
    assert not current(store)[image("a.jpg")].groups["color"].unsure
    store.corrections.undo([correction], by="ann", now=LATER)
    apply(store, verdict("a.jpg"))
    assert not current(store)[image("a.jpg")].groups["color"].unsure


def test_what_was_judged_at_a_time_can_be_shown(tagged_store: Store) -> None:
    (judged,) = apply(tagged_store, verdict("a.jpg"), now=NIGHT + timedelta(hours=1))
    hours = NIGHT + timedelta(hours=3)
    apply(tagged_store, verdict("a.jpg", seen=judged, is_shoe=True), now=hours)
    found = [
        (
            tagged_store.current.tags_at(image("a.jpg"), when)["color"].tags,
            tagged_store.corrections.verdict_at(image("a.jpg"), when) is not None,
        )
        for when in (NIGHT, NIGHT + timedelta(hours=2), LATER)
    ]
    assert found == [(("red",), False), ((), True), (("red",), False)]


def test_a_verdict_on_what_somebody_edited_meanwhile_is_refused(tagged_store: Store) -> None:
    (correction,) = apply(tagged_store, edit("a.jpg", "blue"), by="bo")
    with pytest.raises(CorrectionConflict, match="bo edited color of picture"):
        apply(tagged_store, verdict("a.jpg"))
    (judged,) = apply(tagged_store, verdict("a.jpg", seen=correction))
    with pytest.raises(CorrectionConflict, match=r"ann judged picture .* not a shoe"):
        apply(tagged_store, verdict("a.jpg", seen=correction), by="bo")
    with pytest.raises(CorrectionConflict, match="take that back before you tag it"):
        apply(tagged_store, edit("a.jpg", "red", seen=correction), by="bo")
    with pytest.raises(CorrectionConflict, match="take that back"):
        tagged_store.corrections.correct(
            image("a.jpg"), "color", ["red"], by="bo", why="", now=LATER
        )
    assert verdict_of(tagged_store, "a.jpg") == NOT_A_SHOE
    apply(tagged_store, verdict("a.jpg", seen=judged, is_shoe=True), by="bo")
    assert verdict_of(tagged_store, "a.jpg") is None


def test_a_verdict_is_undone_and_does_not_come_back_over_later_tags(tagged_store: Store) -> None:
    (judged,) = apply(tagged_store, verdict("a.jpg"))
    assert tagged_store.corrections.undo([judged], by="ann", now=LATER) == [image("a.jpg")]
    assert tags_of(tagged_store, "a.jpg") == (("red",), False)
    (judged,) = apply(tagged_store, verdict("a.jpg"))
    (taken_back,) = apply(tagged_store, verdict("a.jpg", seen=judged, is_shoe=True))
    (tags,) = apply(tagged_store, edit("a.jpg", "blue"), by="bo")
    with pytest.raises(CorrectionConflict, match="bo edited color"):
        tagged_store.corrections.undo([taken_back], by="ann", now=LATER)
    tagged_store.corrections.undo([tags], by="bo", now=LATER)
    tagged_store.corrections.undo([taken_back], by="ann", now=LATER)
    assert verdict_of(tagged_store, "a.jpg") == NOT_A_SHOE


def test_a_verdict_outlives_moves_is_no_sample_and_goes_with_a_forgotten_picture(
    tagged_store: Store,
) -> None:
    tagged_store.corrections.judge(image("a.jpg"), False, by="ann", why="a face", now=NIGHT)
    assert tagged_store.corrections.uncollected() == []
    assert [s.image_id for s in tagged_store.predictions.sample_tagged(RED, 9)] == [image("b.jpg")]
    days = dict(tagged_store.days.changed())
    make_live(tagged_store, "color", BLUE)
    make_live(tagged_store, "color", RED, "rollback")
    make_live(tagged_store, "color", None, "remove")
    assert dict(tagged_store.days.changed())["2026-11-01"] > days["2026-11-01"]
    make_live(tagged_store, "color", RED)
    tag(tagged_store, "a.jpg", digest=BLUE)
    assert verdict_of(tagged_store, "a.jpg") == NOT_A_SHOE
    tagged_store.files.forget(image("a.jpg"), LATER)
    assert tagged_store.corrections.history(image("a.jpg")) == []
    assert tagged_store.corrections.judged([image("a.jpg")]) == set()


def test_of_what_people_disagree_is_told_until_one_gives_in(tagged_store: Store) -> None:
    (first,) = apply(tagged_store, edit("a.jpg", "blue"))
    assert tagged_store.corrections.disputed() == set()
    (second,) = apply(tagged_store, edit("a.jpg", "red", seen=first), by="bo")
    assert tagged_store.corrections.disputed() == {image("a.jpg")}
    (third,) = apply(tagged_store, edit("a.jpg", "red", seen=second))
    assert tagged_store.corrections.disputed() == set()
    tagged_store.corrections.undo([third], by="ann", now=NIGHT)
    assert tagged_store.corrections.disputed() == {image("a.jpg")}


def test_what_a_removed_row_said_is_collected_again_once_it_is_a_shoe(tagged_store: Store) -> None:
    corrections = tagged_store.corrections
    said = apply(tagged_store, edit("a.jpg", "blue"), edit("b.jpg", "red"))
    corrections.mark_collected(said, "one")
    about = {"by": "bo", "why": "", "now": LATER}
    corrections.judge(image("a.jpg"), is_shoe=False, **about)
    assert corrections.uncollected_verdicts() == [image("a.jpg")]
    verdict = corrections.in_force([image("a.jpg")])[image("a.jpg"), WHOLE_IMAGE]
    corrections.mark_collected([verdict.id], "two", removed=[image("a.jpg")])
    assert corrections.uncollected_verdicts() == corrections.uncollected() == []
    corrections.judge(image("a.jpg"), is_shoe=True, **about)
    assert corrections.uncollected() == [image("a.jpg")]
