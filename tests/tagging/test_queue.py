"""All shards of a run draw from one queue, whatever the slots in which they run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import fakes, stores
from helpers.fakes import INBOX, Engine, Inbox, Killed, Killer, Pool
from helpers.model import digest_of, image_id
from helpers.stores import NIGHT

from shoetagger.config import params as parameters
from shoetagger.ingest.pool import Decoded
from shoetagger.store.store import Store
from shoetagger.tagging import shard as tagging_shard
from shoetagger.tagging.run import TaggingRun, finish

OLD, NEW = digest_of("color", 1), digest_of("color", 2)
TAG = parameters.load(Path(__file__).parents[2] / "params.yaml").tag
PARAMS: Any = SimpleNamespace(tag=SimpleNamespace(batch_size=1, settle_seconds=0, budget_minutes=1))


def arrive(store: Store, inbox: Inbox, names: list[str], night: int) -> None:
    for name in names:
        inbox.put(name, f"picture {name}")
    store.files.note(list(inbox.scan(INBOX)), NIGHT + timedelta(days=night))


def a_run(store: Store, digest: str) -> TaggingRun:
    pins = {"color": digest}
    return TaggingRun(
        run_id=store.runs.start("night", pins, NIGHT), kind="night", started_at=NIGHT.isoformat(),
        pins=pins, versions={}, left_out=(),
    )  # fmt: skip


def tag(
    monkeypatch: pytest.MonkeyPatch,
    store: Store,
    inbox: Inbox,
    run: TaggingRun,
    shard: int,
    budget: float,
) -> list[str]:
    """Run a shard of four until so many files are read; return their names in that order."""
    read: list[str] = []
    pool = Pool(inbox)
    decode = pool._decode
    monkeypatch.setattr(pool, "_decode", lambda loc: (read.append(inbox.name(loc)), decode(loc))[1])
    monkeypatch.setattr(tagging_shard, "decode_pool", lambda *_, **__: pool)
    clock = SimpleNamespace(monotonic=lambda: 0.0 if len(read) < budget else 1e12)
    monkeypatch.setattr(tagging_shard, "time", clock)
    engine: Any = Engine(dict(run.pins), 1)
    tagging_shard.tag_shard(store, engine, run, shard, 4, params=PARAMS, inbox=INBOX)
    return read


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(stores.migrated(f"sqlite:///{tmp_path / 'store.db'}")) as opened:
        yield opened


@pytest.fixture
def inbox(store: Store) -> Inbox:
    registry = fakes.Registry()
    for _ in (OLD, NEW):
        fakes.add_version(store, registry.register("color"), NIGHT)
    return Inbox()


@pytest.mark.slow
def test_one_slot_tags_all_arrivals_first_then_the_newest(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    nights = [[f"{night}{n}.jpg" for n in range(8)] for night in range(4)]
    for night, names in enumerate(nights[:3]):
        arrive(store, inbox, names, night)
        tag(monkeypatch, store, inbox, a_run(store, OLD), 0, 1e9)
    arrive(store, inbox, nights[3], 3)
    run = a_run(store, NEW)
    read: list[str] = []
    for shard in range(4):  # one after the other, with one budget
        read += tag(monkeypatch, store, inbox, run, shard, budget=16 - len(read))
    assert set(read[:8]) == set(nights[3])
    assert set(read[8:]) == set(nights[2])
    assert len(read) == 16


def test_shards_one_after_the_other_share_the_time_and_a_wait_for_a_slot_is_none_of_it(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(store, inbox, [f"{n}.jpg" for n in range(12)], 0)
    run = a_run(store, OLD)  # it began long ago, by the clock, and waited for its first slot
    assert len(tag(monkeypatch, store, inbox, run, 0, budget=4)) == 4
    assert store.runs.spent(run.run_id) > 60, "the minute of its budget"
    assert tag(monkeypatch, store, inbox, run, 1, budget=4) == []
    assert store.current.counts([]).waiting == 8


@pytest.mark.slow
def test_shards_side_by_side_draw_what_no_other_has(store: Store, inbox: Inbox) -> None:
    arrive(store, inbox, [f"{n}.jpg" for n in range(10)], 0)
    run = a_run(store, OLD)
    drawn = [store.files.hand_out(run.run_id, 4) for _ in range(4)]
    assert [len(page) for page in drawn] == [4, 4, 2, 0]
    assert len({row.file_id for page in drawn for row in page}) == 10
    assert len(store.files.hand_out(a_run(store, OLD).run_id, 99)) == 10, "a run has its own queue"


def test_other_bytes_of_the_same_size_and_time_are_a_new_image_once_they_are_read(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(store, inbox, ["a.jpg", "b.jpg", "c.jpg"], 0)
    tag(monkeypatch, store, inbox, a_run(store, OLD), 0, 1e9)
    inbox.swap("a.jpg", "picture of something else")
    inbox.swap("b.jpg", "junk")
    run = a_run(store, NEW)
    assert len(tag(monkeypatch, store, inbox, run, 0, 1e9)) == 5, "two of them again, as arrivals"
    files = {name: store.files.find(inbox.locator(name)) for name in ("a.jpg", "b.jpg", "c.jpg")}
    assert {name: file and file.state for name, file in files.items()} == {
        "a.jpg": "tagged", "b.jpg": "rejected", "c.jpg": "tagged",
    }  # fmt: skip
    assert files["a.jpg"] is not None
    assert files["a.jpg"].image_id == image_id("picture of something else")
    assert store.predictions.count_work(run.pins).backlog == {"color": 0}
    assert tag(monkeypatch, store, inbox, a_run(store, NEW), 0, 1e9) == []


def test_a_known_picture_is_tagged_again_from_the_first_of_its_files_that_can_be_read(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, content in {"a.jpg": "one", "z.jpg": "one", "b.jpg": "two", "y.jpg": "two"}.items():
        inbox.put(name, f"picture {content}")
    arrive(store, inbox, [], 0)
    tag(monkeypatch, store, inbox, a_run(store, OLD), 0, 1e9)
    decode, broken = Pool._decode, {"a.jpg", "b.jpg", "y.jpg"}

    def failing(pool: Pool, locator: str) -> Decoded:
        if inbox.name(locator) in broken:
            return Decoded(locator, retry=True, why="cannot be read: Input/output error")
        return decode(pool, locator)

    monkeypatch.setattr(Pool, "_decode", failing)
    caplog.set_level(logging.INFO)
    run = a_run(store, NEW)
    assert sorted(tag(monkeypatch, store, inbox, run, 0, 1e9)) == sorted(inbox.things)
    assert store.predictions.count_work(run.pins).backlog == {"color": 1}
    for name in broken:
        line = f'event=deferred file={inbox.locator(name)} reason="cannot be read: Input/output'
        assert caplog.text.count(line) == 1
    monkeypatch.undo()

    def alerts() -> tuple[str, ...]:
        return finish(store, run, options=replace(TAG, alert_from=1), notify_url=None).alerts

    store.runs.spend(run.run_id, 60 * TAG.budget_minutes)
    assert alerts() == ()
    store.runs.spend(run.run_id, 1.0)
    (alert,) = alerts()
    assert alert.startswith("1 of 2 known pictures could not be read")


def test_a_file_that_changes_after_it_was_listed_is_deferred_and_costs_no_model_run(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(store, inbox, ["a.jpg", "b.jpg"], 0)
    inbox.put("b.jpg", "picture of tonight")
    run = a_run(store, OLD)
    counts: list[dict[str, Any]] = []
    shard = tagging_shard.tag_shard
    monkeypatch.setattr(
        tagging_shard, "tag_shard", lambda *a, **k: counts.append(shard(*a, **k)) or counts[-1]
    )
    tag(monkeypatch, store, inbox, run, 0, 1e9)
    assert {key: counts[0][key] for key in ("tagged", "rejected", "deferred")} == {
        "tagged": 1, "rejected": 0, "deferred": 1,
    }  # fmt: skip
    assert store.current.counts([]).waiting == 1


def test_what_a_killed_shard_had_drawn_is_done_when_it_runs_again(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(store, inbox, [f"{n}.jpg" for n in range(20)], 0)
    run = a_run(store, OLD)
    killer = Killer(store)
    killer.arm("commit", 3)
    with pytest.raises(Killed):
        tag(monkeypatch, store, inbox, run, 0, 1e9)
    assert 0 < store.runs.find(run.run_id).counts["tagged"] < 20
    for shard in (0, 0, 1, 2, 3):  # the killed one once more, and then again
        tag(monkeypatch, store, inbox, run, shard, 1e9)
    assert store.current.counts([]).waiting == 0
    assert store.predictions.count_work(run.pins).backlog == {"color": 0}
    assert store.runs.find(run.run_id).counts["tagged"] == 20


@pytest.mark.slow
def test_the_counts_of_a_run_are_exact_wherever_a_shard_is_killed(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between batches and within them, again and again; with arrivals, junk and backlog."""
    arrive(store, inbox, [f"old{n}.jpg" for n in range(6)], 0)
    tag(monkeypatch, store, inbox, a_run(store, OLD), 0, 1e9)
    for n in range(3):
        inbox.put(f"junk{n}.jpg", "junk")
    arrive(store, inbox, [f"new{n}.jpg" for n in range(9)], 1)
    inbox.put("new0.jpg", "picture that changed after it was listed")
    run, killer, kills = a_run(store, NEW), Killer(store), 0
    moments = [("commit", 3), ("statement", 30), ("commit", 5), ("statement", 9)] * 4
    for place, moment in enumerate(moments):
        killer.arm(*moment)
        try:
            tag(monkeypatch, store, inbox, run, place // 4, 1e9)
        except Killed:
            kills += 1
        killer.disarm()
    assert kills > 3
    for shard in range(4):
        tag(monkeypatch, store, inbox, run, shard, 1e9)
    done = store.runs.find(run.run_id)
    assert {k: n for k, n in done.counts.items() if n} == {
        "tagged": 8, "rejected": 3, "retagged": 6, "deferred": 1,
    }  # fmt: skip
    assert done.rates is not None
    assert {pictures for _, pictures in done.rates.values()} == {8}


def test_the_same_shard_twice_at_once_counts_everything_once(
    store: Store, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrive(store, inbox, [f"{n}.jpg" for n in range(40)], 0)
    run = a_run(store, OLD)
    monkeypatch.setattr(tagging_shard, "decode_pool", lambda *_, **__: Pool(inbox))

    def shard(_: int) -> dict[str, int]:
        with Store(store._database._engine.url.render_as_string()) as own:
            engine: Any = Engine(dict(run.pins), 3)
            return tagging_shard.tag_shard(own, engine, run, 1, 4, params=PARAMS, inbox=INBOX)

    with ThreadPoolExecutor(3) as threads:
        parts = list(threads.map(shard, range(3)))
    assert store.runs.find(run.run_id).counts["tagged"] == 40
    assert sum(part["tagged"] for part in parts) == 40
