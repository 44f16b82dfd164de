"""A night tags what is new, rejects what is bad, tags again what a new model makes stale."""

from __future__ import annotations

import csv
import errno
import itertools
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers.installation import (
    ROOT,
    TAGS,
    begin,
    find_arrivals,
    finish,
    forget,
    install,
    make_live,
    predictions,
    put_pictures,
    shards,
    tag_shard,
)
from helpers.stores import migrated, set_rates
from helpers.webhook import webhook
from PIL import Image

from shoetagger.config.settings import Settings
from shoetagger.errors import TransientError
from shoetagger.images.decode import image_id
from shoetagger.images.detector import Detector
from shoetagger.images.views import Transform
from shoetagger.inference.engine import Engine
from shoetagger.ingest import folder as inbox_folder
from shoetagger.ingest.batches import prefetched
from shoetagger.ingest.folder import locator_of
from shoetagger.ingest.inbox import InboxError
from shoetagger.ops.installation import opened
from shoetagger.orchestration.nightly import night
from shoetagger.publishing import thumbnails
from shoetagger.store.predictions import Predictions
from shoetagger.store.store import Store
from shoetagger.tagging import shard as shard_module
from shoetagger.tagging.pins import TaggingError
from shoetagger.tagging.run import TaggingRun
from shoetagger.tagging.shard import KeptViews, shard_range


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return install(tmp_path)


@contextmanager
def counted_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, set[str]]]]:
    """Record (pictures, digests asked) of every call of the engine."""
    calls: list[tuple[int, set[str]]] = []
    original = Engine.predict_and_describe

    def counting(self, views, only=None):  # type: ignore[no-untyped-def]
        calls.append((len(next(iter(views.values()))), set(only or ())))
        return original(self, views, only)

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "predict_and_describe", counting)
        yield calls


@pytest.mark.slow
def test_a_night_tags_what_arrived_and_a_second_one_does_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(settings, 5)
    summary = night(settings, "night")
    assert summary.state == "done"
    assert {k: summary.counts[k] for k in ("seen", "new", "tagged", "rejected")} == {
        "seen": 5, "new": 5, "tagged": 5, "rejected": 0,
    }  # fmt: skip
    assert summary.left_out == ("detail",)
    first = predictions(settings)
    assert len(first) == 5
    assert all(set(tags) == {"color", "style"} and all(tags.values()) for tags in first.values())
    with counted_batches(monkeypatch) as calls:
        again = night(settings, "night")
    assert calls == []
    assert again.counts["new"] == again.counts["tagged"] == 0
    assert predictions(settings) == first


@pytest.mark.slow
def test_a_bad_file_is_rejected_with_its_reason_and_stops_nothing(settings: Settings) -> None:
    put_pictures(settings, 3)
    old = datetime(2020, 1, 1, tzinfo=UTC).timestamp()
    for name, data in {
        "page.jpg": b"<html><script>alert(1)</script>",
        "empty.png": b"",
        "half.jpg": (settings.inbox / "shoe 0-0, 'new'.jpg").read_bytes()[:300],
    }.items():
        (settings.inbox / name).write_bytes(data)
        os.utime(settings.inbox / name, (old, old))  # or it may still be arriving
    (settings.inbox / "link.jpg").symlink_to("/etc/hostname")
    os.mkfifo(settings.inbox / "pipe.jpg")
    summary = night(settings, "night")
    assert summary.state == "done"
    assert summary.counts["tagged"] == 3
    with Store(settings.store_url) as store:
        reasons = {Path(row.locator).name: row.reason for row in store.files.rejected()}
        assert store.current.counts(list(TAGS)).tagged == 3
    assert set(reasons) == {"page.jpg", "empty.png", "half.jpg", "link.jpg", "pipe.jpg"}
    assert all(reasons.values())


@pytest.mark.slow
def test_a_file_that_may_still_be_arriving_is_left_for_the_next_run(settings: Settings) -> None:
    whole = put_pictures(settings, 1)[0].read_bytes()
    late = settings.inbox / "late.jpg"
    late.write_bytes(whole[: len(whole) // 2])
    summary = night(settings, "night")
    assert (summary.counts["tagged"], summary.counts["deferred"]) == (1, 1)
    late.write_bytes(whole + b" ")  # the same picture, other bytes
    assert night(settings, "night").counts["tagged"] == 1
    assert len(predictions(settings)) == 2


@pytest.mark.slow
def test_a_file_whose_status_cannot_be_read_waits_and_hides_none_that_is_gone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays, goes, comes = put_pictures(settings, 3)
    link = settings.inbox / "link.jpg"
    comes.rename(settings.inbox / ".hidden.jpg")
    night(settings, "night")
    goes.unlink()
    link.symlink_to(".hidden.jpg")

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(inbox_folder, "_link", refuse)
        counts = night(settings, "night").counts
    assert {k: counts[k] for k in ("seen", "new", "tagged", "deferred", "waiting")} == {
        "seen": 2, "new": 1, "tagged": 0, "deferred": 1, "waiting": 1,
    }  # fmt: skip
    with Store(settings.store_url) as store:
        states = [store.files.find(locator_of(path)) for path in (stays, goes, link)]
    assert [row and row.state for row in states] == ["tagged", "gone", "new"]
    assert night(settings, "night").counts["tagged"] == 1


@pytest.mark.slow
def test_a_picture_replaced_under_its_old_name_is_a_new_image(settings: Settings) -> None:
    path = put_pictures(settings, 1)[0]
    night(settings, "night")
    before = predictions(settings)
    Image.new("RGB", (60, 60), "red").save(path)
    night(settings, "night")
    after = predictions(settings)
    assert len(after) == 1
    assert set(after) != set(before)


@pytest.mark.slow
def test_the_same_bytes_twice_are_one_picture(settings: Settings) -> None:
    path = put_pictures(settings, 1)[0]
    shutil.copy(path, settings.inbox / "copy.png")
    assert night(settings, "night").counts["tagged"] == 2  # files
    assert len(predictions(settings)) == 1


@pytest.mark.slow
def test_a_new_champion_tags_its_own_group_again_and_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(settings, 4)
    night(settings, "night")
    before = predictions(settings)
    digest = make_live(settings, "color", head_seed=7)
    with Store(settings.store_url) as store:
        assert store.current.counts(list(TAGS)).groups["color"].stale == 4
    with counted_batches(monkeypatch) as calls:
        summary = night(settings, "retag")
    assert calls == [(4, {digest})]
    assert (summary.counts["retagged"], summary.counts["tagged"]) == (4, 0)
    after = predictions(settings)
    assert {i: tags["style"] for i, tags in after.items()} == {
        i: tags["style"] for i, tags in before.items()
    }
    with Store(settings.store_url) as store:
        assert store.current.counts(list(TAGS)).groups["color"].stale == 0


@pytest.mark.slow
def test_the_shard_keeps_thumbnails_and_previews_so_that_nobody_decodes_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_live(settings, "detail", head_seed=3, size=160)
    ids = [image_id(path.read_bytes()) for path in put_pictures(settings, 3)]

    def decode_again(_: thumbnails.Thumbnails) -> None:
        raise AssertionError("a picture is decoded a second time")

    monkeypatch.setattr(thumbnails.Thumbnails, "_workers", decode_again)
    night(settings, "night")
    for identity in ids:
        with Image.open(settings.published / thumbnails.thumbnail_name(identity)) as thumbnail:
            assert thumbnail.size == (160, 160)
        with Image.open(settings.published / thumbnails.preview_name(identity)) as preview:
            assert preview.size == (50, 40)


@pytest.mark.slow
def test_no_thumbnail_and_no_preview_is_kept_of_what_was_to_be_forgotten(
    settings: Settings,
) -> None:
    make_live(settings, "detail", head_seed=3, size=160)
    (path,) = put_pictures(settings, 1)
    night(settings, "night")
    identity = image_id(path.read_bytes())
    forget(settings, identity)
    shutil.copy(path, settings.inbox / "the same again.jpg")
    assert night(settings, "night").counts["new"] == 1
    for name in (thumbnails.thumbnail_name, thumbnails.preview_name):
        assert not (settings.published / name(identity)).exists()


@pytest.mark.slow
def test_tags_do_not_hang_on_the_size_of_thumbnails(settings: Settings) -> None:
    put_pictures(settings, 1)
    run = begin(settings, "night")
    find_arrivals(settings, run)
    taken: list[tuple[object, ...]] = []
    kept = KeptViews(Transform(size=64), 25, lambda *what: taken.append(what), taken.remove)
    with opened(settings) as here:
        engine = shard_module.load_pinned(
            here.store,
            here.registry,
            run,
            bundles=settings.bundles,
            device="cpu",
            precision="float32",
        )
        counts = shard_module.tag_shard(
            here.store,
            engine,
            run,
            0,
            1,
            params=here.params,
            inbox=settings.inbox,
            kept=kept,
        )
    assert counts["tagged"] == 1
    ((_, view, preview, size),) = taken
    assert view is None, "it would need larger decoding than the models' own of 32 pixels"
    assert isinstance(preview, bytes)
    assert size == (50, 40)


@pytest.mark.slow
def test_three_promotions_cost_one_retagging_of_what_they_changed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(settings, 4)
    night(settings, "night")
    digests = [make_live(settings, g, seed) for g, seed in (("color", 7), ("style", 8))]
    digests[0] = make_live(settings, "color", head_seed=9)
    with counted_batches(monkeypatch) as calls:
        night(settings, "retag")
        night(settings, "retag")
    assert calls == [(4, set(digests))], "once, with both; the color in between never ran"


@pytest.mark.slow
def test_a_picture_whose_file_went_is_no_backlog_unless_it_has_a_second_copy(
    settings: Settings,
) -> None:
    first, second = put_pictures(settings, 2)
    shutil.copy(first, settings.inbox / "zz copy.jpg")
    night(settings, "night")
    make_live(settings, "color", head_seed=7)
    first.unlink()
    second.unlink()
    counts = [night(settings, "night").counts for _ in range(3)]
    assert sum(c["retagged"] for c in counts) == 1
    assert counts[-1]["deferred"] == 0


@pytest.mark.slow
def test_arrivals_come_before_the_backlog_and_the_budget_ends_a_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_pictures(settings, 4)
    night(settings, "night")
    make_live(settings, "color", head_seed=7)
    put_pictures(settings, 2, seed=1)
    run = begin(settings, "night")
    find_arrivals(settings, run)
    # What began long ago and waited for a slot since has all its time.
    run = run.model_copy(update={"started_at": "2020-01-01T00:00:00+00:00"})
    spent = begin(settings, "night")
    with Store(settings.store_url) as store:
        store.runs.spend(spent.run_id, 1e9)
    assert tag_shard(settings, spent, 0, 1)["tagged"] == 0
    left = finish(settings, spent)
    assert (left.counts["waiting"], left.counts["backlog"]) == (2, 4)
    (reason,) = left.alerts
    assert reason.startswith("2 arrivals are still to be tagged")
    order: list[str] = []
    monkeypatch.setattr(
        Predictions, "record",
        lambda self, *, _record=Predictions.record, **k: (
            order.append("arrivals" if k.get("tagged") else "backlog"), _record(self, **k),
        )[1],
    )  # fmt: skip
    counts = tag_shard(settings, run, 0, 1)
    assert (counts["tagged"], counts["retagged"]) == (2, 4)
    assert order == ["arrivals", "backlog"]


@pytest.mark.slow
def test_shards_part_the_work_and_may_run_twice(settings: Settings) -> None:
    put_pictures(settings, 12)
    run = begin(settings, "night")
    find_arrivals(settings, run)
    parts = [tag_shard(settings, run, shard, 3) for shard in range(3)]
    assert sum(part["tagged"] for part in parts) == 12
    assert tag_shard(settings, run, 1, 3)["tagged"] == 0
    summary = finish(settings, run)
    assert summary.counts["tagged"] == 12
    assert "12 tagged" in str(summary)


def put_broken_files(settings: Settings, count: int) -> None:
    for number in range(count):
        path = settings.inbox / f"broken {number}.jpg"
        path.write_bytes(b"<html>no picture</html>" + bytes([number]))
        os.utime(path, (1e9, 1e9))


@pytest.mark.slow
def test_a_night_that_rejects_too_much_publishes_and_calls_somebody(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    put_pictures(settings, 5)
    put_broken_files(settings, 25)
    with webhook() as (url, received):
        summary = night(replace(settings, notify_url=url), "night")
    (reason,) = summary.alerts
    assert reason.startswith("25 of 30 files were rejected")
    assert summary.state == "done"
    assert len(next(settings.published.glob("csv/*.csv")).read_text().splitlines()) == 6
    (alert,) = received
    assert (alert["alerts"], alert["state"]) == ([reason], "done")
    with Store(settings.store_url) as store:
        assert store.runs.latest(1)[0].alerts == (reason,)
    lines = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in lines if line.startswith("event=night ")]
    counted = "seen=30 new=30 tagged=5 rejected=25 retagged=0 deferred=0 waiting=0 backlog=0"
    assert f" {counted} seconds=" in line
    rejected = [line for line in lines if line.startswith("event=rejected ")]
    assert len(rejected) == 25
    assert all(" picture=" in line and " reason=" in line for line in rejected)
    assert night(settings, "night").alerts == ()  # what is known is not judged again


@pytest.mark.slow
def test_a_night_whose_tags_are_not_as_usual_raises_an_alert(settings: Settings) -> None:
    usual = dict.fromkeys(TAGS["color"].tags, (50, 100))
    with Store(settings.store_url) as store:
        for _ in range(10):
            run = store.runs.start("night", {}, datetime.now(UTC))
            set_rates(store, run, usual)
            store.runs.finish(run, "done", {}, datetime.now(UTC))
    put_pictures(settings, 30)  # noise: the models say the same of all
    summary = night(settings, "night")
    assert summary.state == "done"
    assert {alert.split(":")[0] for alert in summary.alerts} == {f"tag {tag}" for tag in usual}
    with Store(settings.store_url) as store:
        (run,) = store.runs.latest(1)
    assert run.rates is not None
    assert set(run.rates) == {*TAGS["color"].tags, *TAGS["style"].tags}
    assert {pictures for _, pictures in run.rates.values()} == {30}


@pytest.mark.slow
def test_the_last_task_of_an_odd_night_fails_and_says_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path / "airflow"))
    from airflow.sdk.exceptions import AirflowFailException

    from shoetagger.orchestration import tasks

    put_broken_files(settings, 25)
    run = begin(settings, "night")
    found = find_arrivals(settings, run)
    parts = [tag_shard(settings, run, 0, 1)]
    with webhook() as (url, received):
        for name, value in {
            "REPO": ROOT, "HOME": settings.home, "INBOX": settings.inbox, "NOTIFY_URL": url,
        }.items():  # fmt: skip
            monkeypatch.setenv(f"SHOETAGGER_{name}", str(value))
        with pytest.raises(AirflowFailException, match=r"published, but look: 25 of 25 files"):
            tasks.finish(run.model_dump(mode="json"), found, [{}], parts, {"days": 0})
        with pytest.raises(AirflowFailException, match="the run did not begin"):
            tasks.finish(None, None, None, None, None)
    assert [alert["state"] for alert in received] == ["done", "failed"]


def test_models_work_on_the_next_batch_while_one_is_written() -> None:
    begun = [threading.Event() for _ in range(4)]

    def ask(batch: list[int]) -> int:
        begun[batch[0]].set()
        return 10 * batch[0]

    answered = []
    for batch, answer in prefetched(([number] for number in range(4)), ask):
        answered.append((batch, answer))
        assert all(event.wait(10) for event in begun[: batch[0] + 2])
        assert not any(event.is_set() for event in begun[batch[0] + 2 :])  # no further ahead
    assert answered == [([0], 0), ([1], 10), ([2], 20), ([3], 30)]


def test_a_fault_in_one_batch_is_told_after_those_before_it() -> None:
    batches = prefetched([[4], [2], [0], [1]], lambda batch: 8 // batch[0])
    assert [next(batches), next(batches)] == [([4], 2), ([2], 4)]
    with pytest.raises(ZeroDivisionError):
        next(batches)


class TimeLimit(BaseException):
    """What Airflow raises, by a signal, where a task takes too long."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    def end(*_: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGUSR1, end)
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)


def test_a_listing_or_a_model_that_hangs_does_not_keep_a_time_limit_from_ending_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    run = begin(settings, "night")
    monkeypatch.setattr(inbox_folder, "scan", lambda *_, **__: iter(goes_on.wait, True))
    try:
        with pytest.raises(TimeLimit), time_limit(0.2):
            find_arrivals(settings, run)
        with pytest.raises(TimeLimit), time_limit(0.2):
            list(prefetched([[1], [2]], lambda _: goes_on.wait()))
    finally:
        goes_on.set()
    with Store(settings.store_url) as store:
        assert store.runs.failures(run.run_id) == ["listing the inbox: TimeLimit: "]


def test_shard_ranges_cover_everything_once() -> None:
    for of in (1, 3, 7, 256):
        edges = [shard_range(shard, of) for shard in range(of)]
        assert edges[0][0] == ""
        assert edges[-1][1] is None
        assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))


@pytest.mark.slow
def test_a_run_pins_its_versions_first(settings: Settings) -> None:
    put_pictures(settings, 2)
    run = begin(settings, "night")
    make_live(settings, "color", head_seed=7)
    find_arrivals(settings, run)
    tag_shard(settings, run, 0, 1)
    with Store(settings.store_url) as store:
        assert all(row.groups["color"].stale for row in store.current.rows(["color"]))
    assert TaggingRun.model_validate(run.model_dump(mode="json")) == run


@pytest.mark.slow
def test_a_group_whose_bundle_cannot_be_had_is_left_out_and_the_others_are_tagged(
    settings: Settings,
) -> None:
    put_pictures(settings, 2)
    with Store(settings.store_url) as store:
        live = store.ledger.live()
    shutil.rmtree(settings.bundles / live["style"])  # and MLflow is away
    with webhook() as (url, received):
        summary = night(replace(settings, notify_url=url), "night")
    assert (summary.state, summary.left_out) == ("done", ("style", "detail"))
    (alert,) = summary.alerts
    assert alert.startswith("style: left out of this run: MLflow at http://127.0.0.1:9")
    assert received[0]["alerts"] == [alert]
    assert [set(groups) for groups in predictions(settings).values()] == [{"color"}] * 2
    assert list(settings.published.glob("csv/*.csv"))
    shutil.rmtree(settings.bundles)
    with pytest.raises(TransientError, match=r"no group can be tagged: color: .*; style: "):
        night(settings, "night")


@pytest.mark.slow
def test_a_group_whose_bundle_lacks_its_shoe_detector_is_left_out(settings: Settings) -> None:
    put_pictures(settings, 1)
    lacking = Detector("0" * 64, Path("weights.safetensors"))
    make_live(settings, "style", head_seed=1, detector=lacking)
    summary = night(settings, "night")
    (alert,) = summary.alerts
    assert alert.startswith("style: left out of this run: ")
    assert "weights.safetensors has no shoe detector, which the bundle beside it names" in alert
    assert [set(groups) for groups in predictions(settings).values()] == [{"color"}]


@pytest.mark.slow
def test_a_fault_in_params_ends_no_night_and_is_told(settings: Settings) -> None:
    put_pictures(settings, 2)
    assert night(settings, "night").alerts == ()
    put_pictures(settings, 2, seed=1)
    text = settings.params_file.read_text()
    settings.params_file.write_text(text.replace("  shards:", "  shard:"))
    summary = night(settings, "night")
    (alert,) = summary.alerts
    assert alert.startswith("params.yaml has a fault, and the last good one, of 20")
    assert "unknown key tag.shard" in alert
    assert (summary.state, summary.counts["tagged"]) == ("done", 2)
    assert len(predictions(settings)) == 4


def test_an_empty_inbox_is_a_quiet_night(settings: Settings) -> None:
    assert night(settings, "night").counts["seen"] == 0


def test_a_missing_inbox_and_a_missing_champion_say_what_to_do(
    settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(InboxError):
        night(replace(settings, inbox=tmp_path / "nowhere"), "night")
    with Store(settings.store_url) as store:
        assert store.runs.latest(1)[0].state == "failed"
    empty = replace(settings, store_url=f"sqlite:///{tmp_path / 'empty.db'}")
    migrated(empty.store_url)
    with pytest.raises(TaggingError, match=r"no champion yet.*train first \(`make up`"):
        night(empty, "night")


@pytest.mark.slow
def test_what_was_tagged_is_published(settings: Settings) -> None:
    name = put_pictures(settings, 1)[0].name
    night(settings, "night")
    (sheet,) = settings.published.glob("csv/*.csv")
    with sheet.open(newline="", encoding="utf-8-sig") as file:
        (row,) = csv.DictReader(file)
    assert name in row.values()
    assert list(settings.published.glob("parquet/day=*/tags.parquet"))
    assert name in next(settings.published.glob("pages/2*/001.html")).read_text().replace(
        "&#39;", "'"
    )


@pytest.mark.slow
def test_a_file_no_longer_there_is_no_work_until_it_is_back(settings: Settings) -> None:
    path = put_pictures(settings, 1)[0]
    run = begin(settings, "night")
    find_arrivals(settings, run)
    data = path.read_bytes()
    path.unlink()
    counts = tag_shard(settings, run, 0, 1)
    assert (counts["tagged"], counts["deferred"]) == (0, 0)
    with Store(settings.store_url) as store:
        known = store.files.find(locator_of(path))
        assert known is not None
        assert known.state == "gone"
    assert shards(settings, run) == []
    path.write_bytes(data)
    assert night(settings, "night").counts["tagged"] == 1
