"""A run's counts are what the store has seen it do."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from helpers.stores import (
    BOOT,
    LATER,
    NIGHT,
    RED,
    add_bundles,
    arrival,
    file_id,
    image,
    red,
    tagged,
)

from shoetagger.store.rows import WHOLE_IMAGE, Edit, Prediction, RejectedFile, StoreError
from shoetagger.store.runs import _RUN_AGAIN
from shoetagger.store.store import Store
from shoetagger.store.tables import deferred_files


@pytest.fixture
def run(store: Store) -> str:
    add_bundles(store)
    return store.runs.start("night", {"color": RED}, NIGHT)


def counts(store: Store, run: str) -> dict[str, int]:
    return {name: n for name, n in store.runs.find(run).counts.items() if n}


def settle(store: Store, run: str, *names: str, **more: list[str]) -> None:
    store.predictions.record(
        tagged=[tagged(name)._replace(tags=("red",)) for name in names],
        predictions=[red(name) for name in names],
        run_id=run,
        now=NIGHT,
        **more,
    )


def test_a_batch_that_is_written_twice_counts_once(store: Store, run: str) -> None:
    store.files.note([arrival(name) for name in "abc"], NIGHT, run)
    for _ in range(2):
        settle(store, run, "a", "b")
        bad = [RejectedFile(file_id("c"), "1-1-1", "bad")]
        store.predictions.record(rejected=bad, run_id=run, now=NIGHT)
    assert counts(store, run) == {"new": 3, "tagged": 2, "rejected": 1}
    assert store.runs.find(run).rates == {"red": (2, 2), "blue": (0, 2)}


def test_a_listing_that_was_cut_off_and_begun_again_counts_each_file_once(
    store: Store, run: str
) -> None:
    store.files.note([arrival("a"), arrival("odd", refused="a link")], NIGHT, run)
    store.files.note([arrival(n) for n in "ab"] + [arrival("odd", refused="a link")], NIGHT, run)
    store.runs.listed(run, 3)
    assert counts(store, run) == {"seen": 3, "new": 3, "rejected": 1}


def test_what_was_left_counts_once_and_not_when_it_is_settled_after_all(
    store: Store, run: str
) -> None:
    store.files.note([arrival(name) for name in "abc"], NIGHT, run)
    for _ in range(2):
        left = [file_id(name) for name in "ab"]
        store.predictions.record(deferred=left, run_id=run, now=NIGHT)
    assert counts(store, run)["deferred"] == 2
    settle(store, run, "a", "c")
    store.predictions.record(deferred=[file_id("c")], run_id=run, now=NIGHT)
    assert counts(store, run) == {"new": 3, "tagged": 2, "deferred": 1}
    store.predictions.record(gone=[file_id("b")], run_id=run, now=NIGHT)
    assert "deferred" not in counts(store, run)


def test_what_another_run_left_or_tagged_is_not_this_runs(store: Store, run: str) -> None:
    other = store.runs.start("night", {"color": RED}, NIGHT)
    store.files.note([arrival(name) for name in "ab"], NIGHT, run)
    store.predictions.record(deferred=[file_id("a")], run_id=run, now=NIGHT)
    settle(store, other, "a", "b")
    settle(store, run, "b")
    assert counts(store, run) == {"new": 2, "deferred": 1}, "it did leave one"
    assert counts(store, other) == {"tagged": 2}


def test_pictures_tagged_again_count_once_whatever_they_lacked(store: Store, run: str) -> None:
    store.files.note([arrival("a")], NIGHT, run)
    settle(store, run, "a")
    boot = Prediction(image("a"), BOOT, (0.5, 0.5), ("boot",))
    again = store.runs.start("retag", {"color": RED, "style": BOOT}, LATER)
    for _ in range(2):
        store.predictions.record(predictions=[red("a"), boot], run_id=again, now=LATER)
    assert counts(store, again) == {"retagged": 1}
    assert store.runs.find(again).rates is None, "they are of new pictures only"


def test_what_is_no_shoe_says_nothing_of_how_often_a_tag_is_given(store: Store, run: str) -> None:
    store.files.note([arrival(name) for name in "ab"], NIGHT, run)
    settle(store, run, "a", "b")
    verdict = Edit(image("a"), WHOLE_IMAGE, (), kind="verdict")
    store.corrections.apply([verdict], by="me", why="", origin="browse", now=NIGHT)
    store.files.note([arrival("c")], NIGHT, run)
    copy = tagged("c", "a")._replace(tags=("red",))
    store.predictions.record(tagged=[copy], run_id=run, now=NIGHT)
    assert counts(store, run)["tagged"] == 3
    assert store.runs.find(run).rates == {"red": (2, 2), "blue": (0, 2)}


def test_a_run_that_nobody_began_has_no_counts(store: Store) -> None:
    with pytest.raises(StoreError, match="no run nobody"):
        store.runs.find("nobody")
    with pytest.raises(StoreError, match="no run nobody"):
        store.runs.listed("nobody", 3)


def test_which_files_were_left_is_kept_of_the_latest_runs(store: Store, run: str) -> None:
    store.files.note([arrival("a")], NIGHT, run)
    store.predictions.record(deferred=[file_id("a")], run_id=run, now=NIGHT)

    def kept() -> int:
        with store._database.reading() as connection:
            return len(connection.execute(sa.select(deferred_files)).all())

    assert kept() == 1
    for _ in range(_RUN_AGAIN):
        store.runs.start("night", {}, LATER)
    assert kept() == 0
    assert counts(store, run)["deferred"] == 1
