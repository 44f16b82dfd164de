"""What people passed on when they were asked about it."""

from __future__ import annotations

from helpers.stores import LATER, NIGHT, RED, add_bundles, image, make_live, tag

from shoetagger.store.store import Store


def test_a_skip_is_a_persons_own_is_taken_back_and_goes_with_the_picture(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    both = [image("a.jpg"), image("b.jpg")]
    store.skips.add([*both, image("unknown.jpg")], by="ann", now=NIGHT)
    store.skips.add(both, by="ann", now=LATER)
    assert store.skips.of("ann") == set(both)
    assert store.skips.of("bo") == set()
    store.skips.take_back(both[:1], by="bo")
    store.skips.take_back(both[1:], by="ann")
    assert store.skips.of("ann") == {both[0]}
    store.files.forget(both[0], LATER)
    assert store.skips.of("ann") == set()
