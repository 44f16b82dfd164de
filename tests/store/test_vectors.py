"""Vectors: which pictures are alike, of those that people labelled."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.stores import NIGHT, RED, add_bundles, image, make_live, tag

from shoetagger.store.rows import Edit, Prediction
from shoetagger.store.store import Store

SPACE, OTHER = b"12345678", b"abcdefgh"


@pytest.fixture
def alike(store: Store) -> Store:
    """Four pictures: `b` nearly equals `a`, `c` resembles it a little, `d` is the opposite."""
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg")
    for name, direction in {
        "a.jpg": [100, 50, 0], "b.jpg": [99, 52, 0], "c.jpg": [50, 0, 100], "d.jpg": [-100, -50, 0],
    }.items():  # fmt: skip
        keep(store, name, direction)
    return store


def keep(store: Store, name: str, direction: list[int], space: bytes = SPACE) -> None:
    """Let a night find out what a picture looks like to its head."""
    vector = space + np.resize(np.array(direction, np.int8), 64).tobytes()
    prediction = Prediction(image(name), RED, (0.9, 0.1), ("red",), vector)
    store.predictions.record(predictions=[prediction], run_id="run", now=NIGHT)


def label(store: Store, *names: str) -> None:
    edits = [Edit(image(name), "color", ("red",)) for name in names]
    store.corrections.apply(edits, by="ann", why="", origin="browse", now=NIGHT)


def similar(store: Store, name: str, most: int = 9) -> list[str]:
    names = {image(f"{letter}.jpg"): letter for letter in "abcde"}
    return [names[row.image_id] for row in store.vectors.similar_labelled(image(name), most)]


def test_vectors_have_length_one_and_their_products_say_how_alike_pictures_are(
    alike: Store,
) -> None:
    found = alike.vectors.of([image(f"{letter}.jpg") for letter in "abcde"])
    assert set(found) == {image(f"{letter}.jpg") for letter in "abcd"}
    a, b, c, d = (found[image(f"{letter}.jpg")] for letter in "abcd")
    assert (a.shape, a.dtype) == ((64,), np.float32)
    assert a @ a == pytest.approx(1)
    assert a @ b > 0.97
    assert 0.3 < a @ c < 0.6
    assert a @ d == pytest.approx(-1)


def test_labelled_pictures_are_found_the_most_similar_first(alike: Store) -> None:
    assert similar(alike, "a.jpg") == []
    label(alike, "a.jpg", "c.jpg", "d.jpg", "e.jpg", "b.jpg")
    assert similar(alike, "a.jpg") == ["b", "c", "d"]
    assert similar(alike, "a.jpg", most=1) == ["b"]
    assert similar(alike, "e.jpg") == [], "nothing is known of what it looks like"


def test_a_later_vector_counts_and_those_of_another_space_are_not_compared(alike: Store) -> None:
    label(alike, "b.jpg", "c.jpg", "d.jpg")
    keep(alike, "b.jpg", [100, 50, 0], OTHER)
    keep(alike, "d.jpg", [100, 50, 1])
    assert similar(alike, "a.jpg") == ["d", "c"]
    assert set(alike.vectors.of([image(f"{letter}.jpg") for letter in "abcd"])) == {
        image(f"{letter}.jpg") for letter in "acd"
    }


def test_a_forgotten_picture_leaves_no_vector(alike: Store) -> None:
    label(alike, "b.jpg")
    alike.files.forget(image("b.jpg"), NIGHT)
    assert similar(alike, "a.jpg") == []
    assert alike.vectors.of([image("b.jpg")]) == {}
    keep(alike, "b.jpg", [1, 1, 1])
    assert alike.vectors.of([image("b.jpg")]) == {}, "nor does a shard that saw it before"
