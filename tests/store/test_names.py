"""The names of an image: all of those under which it is there, and no others."""

from __future__ import annotations

from datetime import timedelta

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
    tag,
    tagged,
)

from shoetagger.ingest.folder import locator_of
from shoetagger.store.rows import short_id
from shoetagger.store.store import Store


def names(store: Store, content: str) -> tuple[str, ...]:
    return current(store)[image(content)].locators


def seen(*shown: str) -> set[int]:
    return {short_id(file_id(name)) for name in shown}


def test_a_renamed_file_has_its_new_name_only(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    store.days.mark_published(*store.days.changed()[0])
    assert store.files.unseen(seen("a.jpg", "b.jpg"), LATER) == []
    store.files.note([arrival("c.jpg")], LATER)
    assert store.files.unseen(seen("b.jpg", "c.jpg"), LATER) == [file_id("a.jpg")]
    store.files.lose([file_id("a.jpg")])
    assert [day for day, _ in store.days.changed()] == ["2026-11-01"]
    assert names(store, "a.jpg") == (locator_of("/inbox/a.jpg"),)  # until the new one is read
    store.predictions.record(tagged=[tagged("c.jpg", "a.jpg")], run_id="run", now=LATER)
    assert names(store, "a.jpg") == (locator_of("/inbox/c.jpg"),)
    assert store.predictions.tags_known([RED], [image("a.jpg"), "x"]) == {
        (RED, image("a.jpg")): ("red",)
    }


def test_a_copy_that_goes_and_comes_back_changes_its_day(store: Store) -> None:
    add_bundles(store)
    store.files.note([arrival("a.jpg"), arrival("b.jpg")], NIGHT)
    copies = [tagged("a.jpg", "same"), tagged("b.jpg", "same")]
    store.predictions.record(tagged=copies, predictions=[red("same")], run_id="run", now=NIGHT)
    both = (locator_of("/inbox/a.jpg"), locator_of("/inbox/b.jpg"))
    assert names(store, "same") == both
    revisions = [store.days.changed()]
    store.files.lose([file_id("a.jpg")])
    assert names(store, "same") == both[1:]
    revisions.append(store.days.changed())
    store.files.note([arrival("a.jpg")], LATER)
    assert names(store, "same") == both
    revisions.append(store.days.changed())
    assert revisions == sorted(revisions)
    assert len(set(map(tuple, revisions))) == 3


def test_a_picture_whose_files_are_all_gone_keeps_tags_and_last_names(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg")
    store.files.lose([file_id("a.jpg")])
    (row,) = current(store).values()
    assert (row.locators, row.groups["color"].tags) == ((locator_of("/inbox/a.jpg"),), ("red",))


def test_a_rejected_file_that_is_gone_is_listed_no_more(store: Store) -> None:
    link = arrival("link.jpg", refused="a symbolic link out of the inbox")
    store.files.note([link], NIGHT)
    store.files.lose(store.files.unseen(set(), LATER))
    assert list(store.files.rejected()) == []
    assert store.files.note([link], LATER).refused == 1


def test_what_another_scan_came_across_or_nobody_could_list_is_not_gone(store: Store) -> None:
    tag(store, "a.jpg", "folder/b.jpg", digest=None)
    tag(store, "c.jpg", digest=None, now=LATER)
    folder = locator_of("/inbox/folder")
    assert store.files.unseen(set(), LATER, [folder]) == [file_id("a.jpg")]
    assert len(store.files.unseen(set(), LATER + timedelta(days=1))) == 3
