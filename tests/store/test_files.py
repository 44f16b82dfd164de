"""Files: what arrives, and what a person wants forgotten."""

from __future__ import annotations

from dataclasses import replace

import pytest
from helpers.stores import (
    LATER,
    NIGHT,
    RED,
    add_bundles,
    arrival,
    current,
    file_id,
    image,
    make_live,
    red,
    rows_of,
    tag,
    tagged,
)

from shoetagger.ingest.folder import locator_of
from shoetagger.store.rows import (
    FileRow,
    StoreError,
    short_id,
)
from shoetagger.store.store import Store


@pytest.mark.slow
def test_only_what_is_unknown_or_changed_is_new(store: Store, url: str) -> None:
    batch = [arrival(f"{n}.jpg") for n in range(2500)]
    assert store.files.note(batch, NIGHT).new == 2500
    before = rows_of(url)
    assert store.files.note(batch, LATER).new == 0
    assert rows_of(url) == before
    assert store.files.note([*batch[:10], arrival("10.jpg", "2-2-2")], LATER).new == 1
    assert store.files.note([], LATER).new == 0
    row = store.files.find(locator_of("/inbox/10.jpg"))
    assert row == FileRow(
        file_id("10.jpg"), locator_of("/inbox/10.jpg"), "2-2-2", "new", None, None, NIGHT, LATER
    )
    assert store.files.find("file:///elsewhere") is None


def test_a_file_whose_status_cannot_be_read_waits_where_it_is_not_known(store: Store) -> None:
    def state(name: str) -> tuple[str, str]:
        row = store.files.find(locator_of(f"/inbox/{name}"))
        assert row is not None
        return row.state, row.token

    add_bundles(store)
    tag(store, "known.jpg", "gone.jpg")
    store.files.note([arrival("refused.jpg", refused="a FIFO, not a file")], NIGHT)
    store.files.lose([file_id("gone.jpg")])
    names = ("known.jpg", "gone.jpg", "refused.jpg", "first seen.jpg")
    unknown = [replace(arrival(name, "?"), is_unknown=True) for name in names]
    assert store.files.note(unknown, LATER).new == 2
    assert store.files.note(unknown, LATER).new == 0
    assert [state(name) for name in names] == [
        ("tagged", "1-1-1"), ("new", "?"), ("rejected", "1-1-1"), ("new", "?"),
    ]  # fmt: skip
    assert store.files.note([arrival("first seen.jpg"), arrival("known.jpg")], LATER).new == 1
    assert store.files.unseen({short_id(file_id("known.jpg"))}, LATER) == [file_id("refused.jpg")]


def test_new_files_come_in_pages_and_shards(store: Store) -> None:
    names = [f"{n}.jpg" for n in range(100)]
    store.files.note([arrival(name) for name in names], NIGHT)
    found = []
    for lo, hi in (("", "4"), ("4", "8"), ("8", "c"), ("c", None)):
        after = None
        while page := store.files.waiting(lo, hi, 7, after):
            assert all(row.file_id >= lo and (hi is None or row.file_id < hi) for row in page)
            found += [row.file_id for row in page]
            after = page[-1].file_id
    assert found == sorted(map(file_id, names))


def test_the_file_that_has_waited_longest_is_known(store: Store) -> None:
    assert store.files.oldest_waiting() is None
    store.files.note([arrival("a.jpg")], NIGHT)
    store.files.note([arrival("b.jpg")], LATER)
    assert store.files.oldest_waiting() == NIGHT
    # Replaced, it is another picture, which waits from now on.
    store.files.note([arrival("a.jpg", "2-2-2")], LATER)
    assert store.files.oldest_waiting() == LATER
    add_bundles(store)
    for name in ("a.jpg", "b.jpg"):
        tag(store, name)
    assert store.files.oldest_waiting() is None


def test_a_refused_arrival_is_rejected_at_once(store: Store) -> None:
    link = arrival("link.jpg", refused="a symbolic link out of the inbox")
    assert store.files.note([link], NIGHT).new == 1
    assert store.files.note([link], LATER).new == 0
    assert store.files.waiting("", None, 10) == []
    assert [row.reason for row in store.files.rejected()] == [link.refused]
    assert store.days.changed() == [("2026-11-01", 1)]
    # Becomes a file: no longer rejected, and the page that listed it is to be written again.
    assert store.files.note([arrival("link.jpg", "2-2-2")], LATER).new == 1
    assert [row.locator for row in store.files.waiting("", None, 10)] == [link.locator]
    assert list(store.files.rejected()) == []
    assert store.days.changed() == [("2026-11-01", 2)]


def test_a_tagged_file_that_becomes_a_link_gives_its_picture_up(store: Store) -> None:
    add_bundles(store)
    tag(store, "a.jpg")
    store.files.note([arrival("a.jpg", "2-2-2", "a symbolic link out of the inbox")], LATER)
    assert current(store) == {}
    assert store.current.counts(["color"]).images == 0


def test_forgetting_a_picture_erases_all_that_was_derived_from_it(store: Store, url: str) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    store.corrections.correct(image("a.jpg"), "color", ["blue"], by="me", why="so", now=NIGHT)
    published = dict(store.days.changed())
    for day, revision in published.items():
        store.days.mark_published(day, revision)
    store.files.forget(image("a.jpg"), LATER)
    left = rows_of(url)
    assert image("a.jpg") not in repr(left["corrections"])
    (kept,) = left["images"]  # key and id come first
    assert kept[1] == image("b.jpg")
    assert [row[1] for row in left["predictions"]] == [kept[0]]
    assert set(current(store)) == {image("b.jpg")}
    assert [day for day, _ in store.days.changed()] == ["2026-11-01"]
    (row,) = store.files.rejected()
    assert (row.locator, row.reason[:9]) == (locator_of("/inbox/a.jpg"), "forgotten")
    store.files.forget(image("a.jpg"), LATER)  # again: nothing but the day is touched
    assert rows_of(url) | {"days": left["days"]} == left
    with pytest.raises(StoreError, match="no picture ffff"):
        store.files.forget("f" * 64, LATER)


def test_a_forgotten_picture_is_tagged_again_only_when_asked_by_name(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "gone.jpg")
    store.predictions.record(gone=[file_id("gone.jpg")], run_id="run", now=NIGHT)
    for name in ("a.jpg", "gone.jpg"):
        store.files.forget(image(name), NIGHT)
    assert store.files.retry() == 0
    assert store.files.find(locator_of("/inbox/gone.jpg")) is None
    # The same bytes under another name, or back under their own, are refused all the same.
    store.files.note([arrival("copy.jpg"), arrival("gone.jpg")], LATER)
    store.predictions.record(
        tagged=[tagged("copy.jpg", "a.jpg"), tagged("gone.jpg")],
        predictions=[red("a.jpg"), red("gone.jpg")],
        run_id="run",
        now=LATER,
    )
    assert current(store) == {}
    assert {row.reason[:9] for row in store.files.rejected()} == {"forgotten"}
    assert store.files.retry([locator_of("/inbox/copy.jpg")]) == 1
    store.predictions.record(
        tagged=[tagged("copy.jpg", "a.jpg")], predictions=[red("a.jpg")], run_id="run", now=LATER
    )
    assert set(current(store)) == {image("a.jpg")}
