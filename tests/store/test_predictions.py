"""Recording a batch, and the work that is left."""

from __future__ import annotations

from datetime import timedelta

import pytest
from helpers.stores import (
    BLUE,
    BOOT,
    LATER,
    NIGHT,
    RED,
    TEAL,
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
from shoetagger.ingest.inbox import Arrival
from shoetagger.store.rows import (
    GroupCounts,
    Prediction,
    RejectedFile,
    StoreError,
    Work,
)
from shoetagger.store.store import Store


def test_recording_twice_changes_nothing(store: Store, url: str) -> None:
    add_bundles(store)
    store.files.note([arrival("a.jpg"), arrival("b.jpg"), arrival("c.jpg")], NIGHT)
    batch = {
        "tagged": [tagged("a.jpg"), tagged("b.jpg")],
        "rejected": [RejectedFile(file_id("c.jpg"), "1-1-1", "not a picture")],
        "predictions": [red("a.jpg"), red("b.jpg")],
    }
    store.predictions.record(**batch, run_id="first", now=NIGHT)
    before = rows_of(url)
    assert store.days.changed() == [("2026-11-01", 1)]
    store.predictions.record(**batch, run_id="second", now=LATER)
    assert rows_of(url) == before


def test_a_prediction_once_written_is_never_changed(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg")
    store.predictions.record(predictions=[red("a.jpg", "blue")], run_id="again", now=LATER)
    assert current(store)[image("a.jpg")].groups["color"].tags == ("red",)


def test_a_file_that_changed_meanwhile_stays_new(store: Store) -> None:
    add_bundles(store)
    store.files.note([arrival("a.jpg"), arrival("b.jpg")], NIGHT)
    store.files.note([arrival("a.jpg", "2-2-2"), arrival("b.jpg", "2-2-2")], LATER)
    store.predictions.record(
        tagged=[tagged("a.jpg")],
        rejected=[RejectedFile(file_id("b.jpg"), "1-1-1", "truncated")],
        predictions=[red("a.jpg")],
        run_id="run",
        now=LATER,
    )
    assert {row.file_id for row in store.files.waiting("", None, 9)} == {
        file_id("a.jpg"),
        file_id("b.jpg"),
    }
    counts = store.current.counts(["color"])
    assert (counts.waiting, counts.images, counts.rejected) == (2, 0, 0)


def test_of_two_who_settle_a_file_the_first_is_believed(store: Store) -> None:
    add_bundles(store)
    tag(store, "a.jpg")
    late = RejectedFile(file_id("a.jpg"), "1-1-1", "took too long")
    store.predictions.record(rejected=[late], run_id="other", now=LATER)
    assert list(store.files.rejected()) == []
    assert store.current.counts([]).tagged == 1


def test_the_same_bytes_under_two_names_are_one_picture(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    store.files.note([arrival("a.jpg"), arrival("copy of a.jpg")], NIGHT)
    copies = [tagged("a.jpg", "same"), tagged("copy of a.jpg", "same")]
    store.predictions.record(tagged=copies, predictions=[red("same")], run_id="run", now=NIGHT)
    (row,) = current(store).values()
    assert row.locators == (locator_of("/inbox/a.jpg"), locator_of("/inbox/copy of a.jpg"))
    counts = store.current.counts(["color"])
    assert (counts.tagged, counts.images) == (2, 1)
    assert counts.groups["color"] == GroupCounts(1, 0, 0)


def test_a_file_replaced_under_its_name_is_a_new_picture(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    store.files.note([arrival("a.jpg", "2-2-2")], LATER)
    assert set(current(store)) == {image("a.jpg"), image("b.jpg")}  # until it is read
    store.predictions.record(
        tagged=[tagged("a.jpg", "other", "2-2-2")],
        predictions=[red("other", "blue")],
        run_id="run",
        now=LATER,
    )
    rows = current(store)
    assert set(rows) == {image("other"), image("b.jpg")}
    assert (rows[image("other")].day, rows[image("b.jpg")].day) == ("2026-11-02", "2026-11-01")
    assert dict(store.days.changed()).keys() == {"2026-11-01", "2026-11-02"}
    counts = store.current.counts(["color"])
    assert (counts.images, counts.groups["color"]) == (2, GroupCounts(2, 0, 0))

    # The old bytes come back under another name: known, with the day they first came.
    store.files.note([arrival("old.jpg")], LATER)
    store.predictions.record(tagged=[tagged("old.jpg", "a.jpg")], run_id="run", now=LATER)
    assert current(store)[image("a.jpg")].day == "2026-11-01"
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(3, 0, 0)


def test_a_prediction_of_a_picture_nobody_holds_is_not_kept(store: Store, url: str) -> None:
    add_bundles(store)
    store.predictions.record(predictions=[red("never seen")], run_id="run", now=NIGHT)
    assert rows_of(url)["predictions"] == []


def test_what_cannot_come_from_the_bundle_is_refused_whole(store: Store, url: str) -> None:
    add_bundles(store)
    store.files.note([arrival("a.jpg")], NIGHT)
    before = rows_of(url)
    image_id = image("a.jpg")
    for bad, message in (
        (Prediction(image_id, "9" * 64, (0.5, 0.5), ("red",)), "add_version comes first"),
        (Prediction(image_id, RED, (0.5,), ("red",)), "are not 2 finite scores"),
        (Prediction(image_id, RED, (0.5, float("nan")), ("red",)), "are not 2 finite scores"),
    ):
        with pytest.raises(StoreError, match=message):
            store.predictions.record(
                tagged=[tagged("a.jpg")], predictions=[bad], run_id="run", now=NIGHT
            )
    assert rows_of(url) == before


def test_reasons_of_any_letters_are_kept(store: Store) -> None:
    store.files.note([arrival("a.jpg")], NIGHT)
    bad = RejectedFile(file_id("a.jpg"), "1-1-1", "caf\u00e9 \udcff \0 <b>")
    store.predictions.record(rejected=[bad], run_id="run", now=NIGHT)
    assert [row.reason for row in store.files.rejected()] == ["caf\u00e9 \\udcff \\0 <b>"]


def test_names_of_any_bytes_are_kept(store: Store) -> None:
    names = [
        b"/in/\xff\xfe.jpg",
        b"/in/line\nbreak",
        b"/in/" + b"x" * 255,
        "/in/ö'\"%_.jpg".encode(),
    ]
    store.files.note([Arrival(locator_of(name), "1-1-1") for name in names], NIGHT)
    assert {row.locator for row in store.files.waiting("", None, 9)} == set(map(locator_of, names))


def test_rejected_files_are_listed_by_day_latest_first_and_can_be_retried(store: Store) -> None:
    for moment, name in ((NIGHT, "a.jpg"), (LATER, "b.jpg"), (LATER, "c.jpg")):
        store.files.note([arrival(name)], moment)
        bad = RejectedFile(file_id(name), "1-1-1", "not a picture", image(name))
        store.predictions.record(rejected=[bad], run_id="run", now=LATER)
    assert [row.first_seen for row in store.files.rejected()] == [LATER, LATER, NIGHT]
    assert len(list(store.files.rejected(limit=2))) == 2
    assert [row.locator for row in store.files.rejected(day="2026-11-01")] == [
        locator_of("/inbox/a.jpg")
    ]
    assert store.days.changed() == [("2026-11-01", 1), ("2026-11-02", 2)]
    with pytest.raises(StoreError, match="write it as YYYY-MM-DD"):
        list(store.files.rejected(day="yesterday"))
    assert store.files.retry([locator_of("/inbox/a.jpg"), "file:///unknown"]) == 1
    assert store.days.changed() == [("2026-11-01", 2), ("2026-11-02", 2)]
    assert store.files.retry() == 2
    assert store.current.counts([]).waiting == 3


def test_a_long_list_of_rejected_files_comes_whole(store: Store) -> None:
    refused = [arrival(f"{n}", refused="a FIFO, not a file") for n in range(2300)]
    store.files.note(refused, NIGHT)
    assert {row.locator for row in store.files.rejected()} == {a.locator for a in refused}
    assert len(list(store.files.rejected(limit=1500))) == 1500


def test_a_file_that_is_gone_is_no_work_until_it_is_back(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", digest=None)
    store.files.note([arrival("new.jpg")], NIGHT)
    pins = {"color": RED}
    assert store.predictions.count_work(pins) == Work(1, {"color": 1})
    store.predictions.record(gone=[file_id("a.jpg"), file_id("new.jpg")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins) == Work(0, {"color": 0})
    assert store.predictions.backlog(pins, "", None, 9) == []
    assert set(current(store)) == {image("a.jpg")}  # its tags are still known
    assert store.files.note([arrival("a.jpg"), arrival("new.jpg")], LATER).new == 2
    assert store.predictions.count_work(pins) == Work(
        1, {"color": 1}
    )  # the known one need not be read again
    assert [row.locators for row in store.predictions.backlog(pins, "", None, 9)] == [
        (locator_of("/inbox/a.jpg"),)
    ]
    assert store.current.counts([]).gone == 0


def test_the_backlog_is_what_lacks_a_pinned_bundle_latest_first(store: Store) -> None:
    add_bundles(store)
    for number in range(30):
        tag(store, f"{number}.jpg", now=NIGHT + timedelta(hours=number))
    pins = {"color": RED, "style": BOOT}
    assert store.predictions.count_work({"color": RED}) == Work(0, {"color": 0})
    assert store.predictions.count_work(pins) == Work(0, {"color": 0, "style": 30})
    found, after = [], None
    while page := store.predictions.backlog(pins, "", None, 7, after):
        found += page
        after = (page[-1].first_seen, page[-1].image_id)
    assert [row.image_id for row in found] == [image(f"{n}.jpg") for n in range(29, -1, -1)]
    assert {row.groups for row in found} == {("style",)}
    assert found[0].locators == (locator_of("/inbox/29.jpg"),)
    shards = [store.predictions.backlog(pins, lo, hi, 99) for lo, hi in (("", "8"), ("8", None))]
    assert {row.image_id for shard in shards for row in shard} == {row.image_id for row in found}
    assert all(row.image_id < "8" for row in shards[0])
    store.predictions.record(
        predictions=[Prediction(r.image_id, BOOT, (0.5, 0.5), ("boot",)) for r in found[:29]],
        run_id="run",
        now=LATER,
    )
    assert store.predictions.count_work(pins) == Work(0, {"color": 0, "style": 1})
    assert [row.image_id for row in store.predictions.backlog(pins, "", None, 99)] == [
        image("0.jpg")
    ]
    assert store.predictions.backlog({}, "", None, 99) == []


def test_what_was_counted_complete_is_found_again_when_it_no_longer_is(store: Store) -> None:
    add_bundles(store)
    pins = {"color": RED}
    tag(store, "a.jpg")
    tag(store, "b.jpg")
    assert store.predictions.count_work(pins).backlog == {"color": 0}

    # A file is touched, is away while the work is counted, and comes back with unknown bytes.
    store.files.note([arrival("a.jpg", "2-2-2")], LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 0}
    store.predictions.record(tagged=[tagged("a.jpg", "other", "2-2-2")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 1}
    assert [row.image_id for row in store.predictions.backlog(pins, "", None, 9)] == [
        image("other")
    ]
    store.predictions.record(predictions=[red("other")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 0}

    # The bytes that had been replaced were predicted already.
    store.files.note([arrival("c.jpg")], LATER)
    store.predictions.record(tagged=[tagged("c.jpg", "a.jpg")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 0}
    assert store.predictions.count_work({"color": BLUE}).backlog == {"color": 3}


def test_what_arrives_after_a_forgotten_picture_is_work_all_the_same(store: Store) -> None:
    add_bundles(store)
    pins = {"color": RED}
    tag(store, "a.jpg", "b.jpg")
    assert store.predictions.count_work(pins).backlog == {"color": 0}
    for name in ("a.jpg", "b.jpg"):
        store.files.forget(image(name), LATER)
    tag(store, "c.jpg", digest=None)
    assert store.predictions.count_work(pins).backlog == {"color": 1}
    assert [row.image_id for row in store.predictions.backlog(pins, "", None, 9)] == [
        image("c.jpg")
    ]


def test_the_backlog_comes_in_ranges_too_of_all_or_since_a_day(store: Store) -> None:
    add_bundles(store)
    tag(store, "a", "b", "c")
    tag(store, "d", "e", now=LATER)
    pins = {"color": BLUE, "style": BOOT}
    (part,) = store.predictions.backlog_ranges(pins, 256)
    assert part.lacking == 5
    page, below = store.predictions.backlog_within(pins, part, 3)
    assert below is not None
    rest, end = store.predictions.backlog_within(pins, part._replace(below=below), 3)
    assert end is None
    assert [row.image_id for row in page + rest] == [
        row.image_id for row in store.predictions.backlog(pins, "", None, 9)
    ]
    assert {row.groups for row in page} == {("color", "style")}
    (later,) = store.predictions.backlog_ranges(pins, 256, LATER)
    assert later.lacking == 2
    page, _ = store.predictions.backlog_within(pins, later, 9, LATER)
    assert {row.image_id for row in page} == {image("d"), image("e")}
    assert store.predictions.backlog_ranges({"color": RED}, 256) == []


def test_scores_and_tags_are_written_as_they_are(store: Store) -> None:
    tags = ['it\'s "quoted"', "tab\tand \\ back", "日本"]
    store.ledger.add_version(
        digest=TEAL, group="color", tags=tags, registry_name=None, version=None, now=NIGHT
    )
    store.files.note([arrival("a"), arrival("b")], NIGHT)
    made = {
        image("a"): Prediction(image("a"), TEAL, (1e-7, 0.12345678, 1.0), tuple(tags)),
        image("b"): Prediction(image("b"), TEAL, (0.0, 1e-6, 0.1), ()),
    }
    store.predictions.record(
        tagged=[tagged("a"), tagged("b")], predictions=list(made.values()), run_id="r", now=NIGHT
    )
    make_live(store, "color", TEAL)
    rows = current(store, "color")
    assert rows[image("a")].groups["color"].tags == tuple(tags)
    assert list(rows[image("a")].groups["color"].scores.values()) == [0.0, 0.123457, 1.0]
    assert rows[image("b")].groups["color"].tags == ()
    assert list(rows[image("b")].groups["color"].scores.values()) == [0.0, 1e-6, 0.1]


def test_a_sample_is_the_same_however_it_is_found(store: Store) -> None:
    add_bundles(store)
    names = [f"{n}.jpg" for n in range(30)]
    tag(store, *names)
    for name in ("gone.jpg", "untagged.jpg"):
        tag(store, name, digest=RED if name == "gone.jpg" else None)
    store.files.lose([file_id("gone.jpg")])
    few = store.predictions.sample_tagged(RED, 5)  # from the lowest id on
    all_of_them = store.predictions.sample_tagged(RED, 500)  # all that the bundle has tagged
    assert [picture.image_id for picture in all_of_them] == sorted(map(image, names))
    assert few == all_of_them[:5]
    assert few[0].tags == ("red",)
    assert store.predictions.sample_tagged(BLUE, 5) == []
