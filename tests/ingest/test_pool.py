from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.corpus import LIMITS, corpus, encode, plain, shoe
from PIL import Image

from shoetagger.errors import TransientError
from shoetagger.images.decode import Rejected, image_id, open_image
from shoetagger.images.framing import shoe_box
from shoetagger.images.views import Transform, tagging_view
from shoetagger.ingest.pool import Decoded, DecodePool, DecodingError
from shoetagger.ingest.worker import Content, RetryLater

SMALL = Transform(size=64)


@dataclass(frozen=True)
class File:
    data: bytes
    token: str = "token"
    modified_at: datetime | None = None


@dataclass(frozen=True)
class Trap:
    """Bytes that harm whoever decodes them, as a native decoder with a fault would."""

    do: str
    token: str = "token"
    modified_at: datetime | None = None

    @property
    def data(self) -> bytes:
        if self.do == "hang":
            time.sleep(60)
        if self.do == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.do == "abort":
            os.abort()
        if self.do == "leak":
            return bytes(3_000_000_000)
        return plain("JPEG")


def read(locator: str, marks: Path | None = None) -> Content:
    """Give what the locator says: `<what>:<anything>`, or the file of that name."""
    what = locator.partition(":")[0]
    if what in FAULTS:
        raise FAULTS[what]
    if what == "once":  # harmful at the first try only
        assert marks is not None
        try:
            (marks / locator).touch(exist_ok=False)
        except FileExistsError:
            return File(plain("PNG"))
        return Trap(locator.partition(":")[2])
    if what == "hang-reading":
        time.sleep(60)
    if what == "abort-reading":
        os.abort()
    if what == "shoe":
        return File(encode(shoe((60 + int(locator.partition(":")[2]), 50)), "PNG"), token=locator)
    if what == "slow":
        time.sleep(0.2)
        if marks is not None:
            (marks / locator).touch()
        return File(plain("PNG"))
    if what == "young":
        return File(plain("JPEG")[:900], modified_at=datetime.now(UTC) - timedelta(seconds=3))
    if what == "young-html":
        return File(b"<html>", modified_at=datetime.now(UTC))
    if what == "from-the-future":
        return File(plain("JPEG")[:900], modified_at=datetime.now(UTC) + timedelta(days=3))
    if what in ("hang", "stop", "abort", "leak"):
        return Trap(what)
    return File(Path(locator).read_bytes())


FAULTS = {
    "refused": Rejected("it may not be read"),
    "gone": RetryLater("no longer there"),
    "no-answer": OSError(5, "Input/output error"),
    "bug": ZeroDivisionError("of our own"),
}


def refuse_to_unpickle() -> Callable[[str], Content]:
    raise ValueError("this reader cannot be made here")


class Unmakeable:
    def __call__(self, locator: str) -> Content:
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse_to_unpickle, ()


def make_pool(**changes: Any) -> DecodePool:
    settings: dict[str, Any] = {
        "read": read, "workers": 1, "seconds": 30.0, "memory_mb": 300, "ahead": 16,
    }  # fmt: skip
    return DecodePool([SMALL], LIMITS, **(settings | changes))


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with make_pool(workers=2) as pool:
        yield pool


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DecodePool]:
    """One worker, little time."""
    marked = partial(read, marks=tmp_path_factory.mktemp("marks"))
    with make_pool(read=marked, seconds=1.0, settle_seconds=60.0) as pool:
        yield pool


def shoes(count: int) -> list[str]:
    return [f"shoe:{number}" for number in range(count)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


# --- what comes back ---


def test_pictures_come_back_in_order_with_all_that_is_known(pool: DecodePool) -> None:
    results = list(pool.run(shoes(50)))
    assert [result.locator for result in results] == shoes(50)
    for number, result in enumerate(results):
        data = read(f"shoe:{number}").data
        assert result.token == f"shoe:{number}"
        assert result.image_id == image_id(data)
        assert result.size == (60 + number, 50)
        assert result.views is not None
        assert (result.views[0] == tagging_view(open_image(data, LIMITS), SMALL)).all()
        assert (result.rejected, result.retry) == (None, False)


def test_each_transform_has_its_view() -> None:
    transforms = [SMALL, Transform(size=32, fill=0)]
    with DecodePool(transforms, LIMITS, read=read, workers=1, seconds=30, memory_mb=600) as pool:
        (result,) = pool.run(["shoe:0"])
    assert result.views is not None
    picture = open_image(read("shoe:0").data, LIMITS)
    for view, transform in zip(result.views, transforms, strict=True):
        assert (view == tagging_view(picture, transform)).all()


def test_a_view_for_people_is_made_from_one_for_models_and_looks_the_same() -> None:
    transforms = [
        Transform(size=64, mean=(0.1, 0.1, 0.1)),
        Transform(size=64, framing="shoe"),
        Transform(size=40),
        Transform(size=40, fill=0),
    ]
    settings: dict[str, Any] = {"read": read, "workers": 1, "seconds": 30, "memory_mb": 600}
    with DecodePool(transforms, LIMITS, **settings, derived=2) as pool:
        (result,) = pool.run(["shoe:0"])
    assert result.views is not None
    picture = open_image(read("shoe:0").data, LIMITS)
    model, cropped, person, black = (view.astype(int) for view in result.views)
    assert (model == tagging_view(picture, transforms[0])).all()
    assert (cropped == tagging_view(picture, transforms[1])).all()
    assert (black == tagging_view(picture, transforms[3])).all(), "no other has its padding"
    difference = np.abs(person - tagging_view(picture, transforms[2]))
    assert 0 < difference.mean() < 4


def test_a_view_for_people_shows_the_whole_picture_whatever_models_see() -> None:
    transforms = [Transform(size=64, framing="shoe"), Transform(size=40)]
    settings: dict[str, Any] = {"read": read, "workers": 1, "seconds": 30, "memory_mb": 600}
    with DecodePool(transforms, LIMITS, **settings, derived=1) as pool:
        (result,) = pool.run(["shoe:0"])
    assert result.views is not None
    picture = open_image(read("shoe:0").data, LIMITS)
    for view, transform in zip(result.views, transforms, strict=True):
        assert (view == tagging_view(picture, transform)).all()
    assert shoe_box(picture) not in (None, (0, 0, *picture.size))


def test_a_run_that_wants_previews_gets_them_and_the_same_views() -> None:
    with make_pool(preview=40) as pool:
        plain, *_ = pool.run(shoes(1))
        results = list(pool.run(shoes(20), previews=True))
    assert plain.preview is None
    assert results[0].views is not None
    assert plain.views is not None
    assert (results[0].views[0] == plain.views[0]).all()
    for number, result in enumerate(results):
        assert result.preview is not None
        with Image.open(io.BytesIO(result.preview)) as image:
            assert image.size == (30 + (number + 1) // 2, 25)


def test_views_stay_what_they_are_while_later_pictures_are_decoded(pool: DecodePool) -> None:
    results = pool.run(shoes(40))
    first = next(results)
    assert first.views is not None
    kept = first.views[0].copy()
    for _ in results:
        pass
    assert (first.views[0] == kept).all()


def test_a_pool_serves_many_runs_and_an_empty_one(pool: DecodePool) -> None:
    assert list(pool.run([])) == []
    assert len(list(pool.run(shoes(3)))) == len(list(pool.run(iter(shoes(3))))) == 3


@pytest.mark.slow
def test_a_run_left_halfway_does_not_disturb_the_next(pool: DecodePool) -> None:
    results = pool.run(shoes(50))
    next(results)
    results.close()
    assert [result.locator for result in pool.run(shoes(5))] == shoes(5)


def test_two_runs_at_once_are_refused(pool: DecodePool) -> None:
    first = pool.run(shoes(3))
    next(first)
    with pytest.raises(DecodingError, match="busy"):
        next(pool.run(shoes(1)))
    assert len(list(first)) == 2


def test_no_more_than_ahead_are_drawn_from_the_stream(pool: DecodePool) -> None:
    drawn = 0

    def stream() -> Iterator[str]:
        nonlocal drawn
        for locator in shoes(200):
            drawn += 1
            yield locator

    for taken, _ in enumerate(pool.run(stream())):
        assert drawn <= taken + 16 + 1
    assert drawn == 200


def test_a_slow_stream_does_not_hold_back_what_is_ready(tmp_path: Path) -> None:
    drawn = 0

    def stream() -> Iterator[str]:
        nonlocal drawn
        for number in range(6):
            drawn += 1
            yield f"slow:{number}"
            assert wait_until((tmp_path / f"slow:{number}").exists)

    with make_pool(workers=2, read=partial(read, marks=tmp_path)) as pool:
        for taken, _ in enumerate(pool.run(stream())):
            assert drawn <= taken + 4


def test_the_workers_go_on_while_a_batch_is_computed(tmp_path: Path) -> None:
    with make_pool(read=partial(read, marks=tmp_path)) as pool:
        results = pool.run([f"slow:{number}" for number in range(6)])
        next(results)
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 6)
        assert len(list(results)) == 5


# --- what cannot be tagged ---


@pytest.mark.slow
def test_the_corpus_comes_out_as_it_must(tmp_path: Path, pool: DecodePool) -> None:
    cases = {}
    for number, case in enumerate(corpus()):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(case.data)
        cases[str(path)] = case
    pids = [worker.process.pid for worker in pool._workers]
    for result in pool.run(iter(cases)):
        case = cases[result.locator]
        assert (result.views is None) != (result.rejected is None)
        assert not result.retry
        if case.outcome != "either":
            assert (result.views is not None) == (case.outcome == "tagged"), case.name
            assert case.reason in (result.rejected or ""), case.name
    # Every bomb was seen before it went off.
    assert [worker.process.pid for worker in pool._workers] == pids


def test_what_read_says_is_passed_on(pool: DecodePool) -> None:
    refused, gone, ill = pool.run(["refused:", "gone:", "no-answer:"])
    assert (refused.rejected, refused.retry) == ("it may not be read", False)
    assert (gone.rejected, gone.retry, gone.why) == (None, True, "no longer there")
    assert (ill.rejected, ill.retry) == (None, True)


@pytest.mark.slow
def test_a_fault_of_read_itself_is_no_fault_of_the_file(pool: DecodePool) -> None:
    with pytest.raises(DecodingError, match=r"bug:.*\n(.*\n)*ZeroDivisionError: of our own"):
        list(pool.run(["shoe:1", "bug:", "shoe:2"]))
    assert len(list(pool.run(shoes(3)))) == 3


def test_a_broken_file_that_has_just_changed_is_left_for_the_next_run(
    pool: DecodePool, hasty: DecodePool
) -> None:
    young, html, future, good = hasty.run(["young:", "young-html:", "from-the-future:", "shoe:1"])
    assert (young.rejected, young.retry) == (None, True)
    assert "still be arriving" in (young.why or "")
    assert "truncated JPEG" in (young.why or "")
    assert (html.retry, future.retry) == (False, False)
    assert "a web page" in (html.rejected or "")
    assert "truncated" in (future.rejected or "")
    assert good.views is not None
    (at_once,) = pool.run(["young:"])
    assert "truncated" in (at_once.rejected or "")


# --- what harms the decoder ---


@pytest.mark.slow
def test_a_crash_costs_one_picture(pool: DecodePool) -> None:
    locators = shoes(20)
    locators[7:7] = ["abort:"]
    locators[9:9] = ["abort-reading:"]
    results = {result.locator: result for result in pool.run(locators)}
    assert list(results) == locators
    for locator in ("abort:", "abort-reading:"):
        assert results[locator].rejected == "the decoder crashed on it (SIGABRT)"
    assert all(results[locator].views is not None for locator in shoes(20))


@pytest.mark.slow
def test_a_hang_costs_one_picture(hasty: DecodePool) -> None:
    locators = [*shoes(5), "hang:", "shoe:5", "shoe:6"]
    results = {result.locator: result for result in hasty.run(locators)}
    assert list(results) == locators
    assert results["hang:"].rejected == "decoding it takes longer than 1 s"
    assert all(results[locator].views is not None for locator in shoes(7))


def test_a_file_that_cannot_be_read_in_time_is_left_for_the_next_run(hasty: DecodePool) -> None:
    hanging, good = hasty.run(["hang-reading:", "shoe:1"])
    assert (hanging.retry, hanging.rejected) == (True, None)
    assert hanging.why == "reading it took longer than 1 s"
    assert good.views is not None


@pytest.mark.slow
def test_too_much_memory_costs_one_picture(pool: DecodePool) -> None:
    first, leak, last = pool.run(["shoe:1", "leak:", "shoe:2"])
    assert leak.rejected == "decoding it takes more than 300 MB of memory"
    assert first.views is not None
    assert last.views is not None


@pytest.mark.slow
def test_what_goes_well_the_second_time_is_decoded(hasty: DecodePool) -> None:
    locators = ["shoe:0", "once:abort", "once:hang", "shoe:1"]
    results = list(hasty.run(locators))
    assert [result.locator for result in results] == locators
    assert all(result.views is not None for result in results)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_many_crashes_in_a_row_cost_only_their_pictures(workers: int) -> None:
    locators = [f"abort:{number}" for number in range(6)]
    mixed = [locator for pair in zip(locators, shoes(6), strict=True) for locator in pair]
    with make_pool(workers=workers) as pool:
        results = list(pool.run(mixed))
    assert [result.locator for result in results] == mixed
    assert [result.rejected is not None for result in results] == [True, False] * 6


@pytest.mark.slow
def test_a_worker_that_someone_kills_costs_nothing(pool: DecodePool) -> None:
    results = []
    for result in pool.run(shoes(60)):
        results.append(result)
        if len(results) == 20:
            pool._workers[0].process.kill()
    assert [result.locator for result in results] == shoes(60)
    assert all(result.views is not None for result in results)
    idle = pool._workers[0]
    idle.process.kill()
    idle.process.wait()
    assert all(result.views is not None for result in pool.run(shoes(5)))


@pytest.mark.slow
def test_a_worker_whose_own_alarm_cannot_ring_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoetagger.ingest.worker_process._GRACE_SECONDS", 1.0)
    with make_pool(seconds=1.0) as pool:
        stopped, good = pool.run(["stop:", "shoe:1"])
    assert "longer than" in (stopped.rejected or "")
    assert good.views is not None


@pytest.mark.slow
def test_a_worker_that_hangs_while_the_caller_is_busy_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shoetagger.ingest.worker_process._GRACE_SECONDS", 0.2)
    with make_pool(seconds=1.0) as pool:
        results = pool.run(["shoe:1", "stop:", "shoe:2"])
        first = next(results)
        time.sleep(2.5)  # longer than a worker has
        stopped, last = results
    assert "longer than" in (stopped.rejected or "")
    assert first.views is not None
    assert last.views is not None


@pytest.mark.slow
def test_a_worker_that_no_signal_ends_is_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoetagger.ingest.worker_process._GRACE_SECONDS", 0.2)
    not_ended: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(subprocess.Popen, "kill", lambda process: not_ended.append(process))
    try:
        with make_pool(workers=2, seconds=1.0) as pool:
            first, stopped, last = pool.run(["shoe:1", "stop:", "shoe:2"])
    finally:
        for process in not_ended:
            process.send_signal(signal.SIGKILL)
            process.wait()
    assert "longer than" in (stopped.rejected or "")
    assert first.views is not None
    assert last.views is not None


def test_workers_that_cannot_start_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoetagger.ingest.pool._FAILED_STARTS", 1)  # one is enough to see it
    with make_pool(read=Unmakeable()) as pool, pytest.raises(DecodingError, match="do not start"):
        list(pool.run(shoes(3)))


# --- the processes ---


def test_workers_do_not_import_torch(pool: DecodePool) -> None:
    assert len(list(pool.run(shoes(4)))) == 4
    for worker in pool._workers:
        maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
        assert "numpy" in maps
        assert "torch" not in maps
    code = "import sys, shoetagger.ingest.worker; print(*sys.modules)"
    listed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert {"torch", "torchvision", "pandas", "yaml", "mlflow"}.isdisjoint(listed.stdout.split())


@pytest.mark.slow
def test_leaving_the_pool_leaves_nothing_behind() -> None:
    # The shared memory has no name: where no descriptor is left, nothing is.
    before = len(list(Path("/proc/self/fd").iterdir()))
    pids = []

    def be_interrupted() -> None:
        with make_pool(workers=2) as pool:
            next(pool.run(shoes(30)))
            pids.extend(worker.process.pid for worker in pool._workers)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    assert not any(alive(pid) for pid in pids)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_closed_pool_refuses_to_run() -> None:
    pool = make_pool()
    pool.close()
    with pytest.raises(DecodingError, match="closed"):
        next(pool.run(shoes(1)))


@pytest.mark.slow
def test_several_pools_work_at_once() -> None:
    results: dict[int, list[Decoded]] = {}

    def work(number: int) -> None:
        with make_pool() as pool:
            results[number] = list(pool.run(shoes(20)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert all(result.views is not None for result in results[number])


PARENT = """
import json, os, sys, time
from tests.ingest.test_pool import make_pool, shoes
with make_pool(workers=2, seconds=3) as pool:
    results = pool.run({locators})
    next(results)
    print(json.dumps([worker.process.pid for worker in pool._workers]), flush=True)
    for _ in results:
        pass
    time.sleep(60)
"""


def start_parent(locators: str) -> tuple[subprocess.Popen[str], list[int]]:
    places = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(locators=locators)],
        env=os.environ | {"PYTHONPATH": places},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    return parent, json.loads(parent.stdout.readline())


def test_workers_die_with_a_parent_that_is_killed() -> None:
    parent, pids = start_parent("['shoe:1', 'hang:']")  # one is idle, one hangs
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.communicate()
    assert wait_until(lambda: not any(alive(pid) for pid in pids))


@pytest.mark.slow
def test_ctrl_c_ends_parent_and_workers_without_a_word_too_many() -> None:
    parent, pids = start_parent("shoes(3)")
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, errors = parent.communicate(timeout=30)
    assert not any(alive(pid) for pid in pids)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "resource_tracker" not in errors


def test_ctrl_c_does_not_interrupt_a_worker_that_is_starting(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with make_pool() as pool:
        (worker,) = pool._workers
        worker.process.send_signal(signal.SIGINT)
        (result,) = pool.run(["shoe:1"])
        assert pool._workers == [worker]
    assert result.views is not None
    assert capfd.readouterr().err == ""


def test_views_are_plain_arrays(pool: DecodePool) -> None:
    (result,) = pool.run(["shoe:1"])
    assert result.views is not None
    assert result.views[0].dtype == np.uint8
    assert result.views[0].shape == (64, 64, 3)
    assert result.views[0].flags.owndata


# --- files that are read ahead, for workers that hold no way to them ---


def read_here(locator: str, pid: int = os.getpid()) -> Content:
    """Read as `read`, in the process that imported this."""
    assert os.getpid() == pid
    return read(locator)


@pytest.mark.slow
def test_files_read_ahead_come_back_as_those_that_workers_read() -> None:
    names = [*shoes(40), "refused:", "gone:", "no-answer:", "young:", *shoes(3)]
    both = []
    for way in ({"read": read_here, "fetched_ahead": 8}, {"read": read}):
        with make_pool(workers=2, settle_seconds=60.0, **way) as pool:
            found = list(pool.run(names))
        views = [None if d.views is None else d.views[0].tobytes() for d in found]
        both.append(([replace(d, views=None) for d in found], views))
    assert both[0] == both[1]
    assert sum(view is not None for view in both[0][1]) == 43


def test_no_more_than_wanted_are_read_ahead_and_none_stays_open() -> None:
    lock, begun, most = threading.Lock(), 0, 0

    def counted(locator: str) -> Content:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - taken)
        return read(locator)

    def still_open() -> list[str]:
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # that of this listing
                found.append(str(descriptor.readlink()))
        return [name for name in found if "shoetagger-file" in name]

    taken = 0
    with make_pool(read=counted, fetched_ahead=5, ahead=8) as pool:
        for _ in pool.run(shoes(30)):
            taken += 1
            time.sleep(0.005)
        assert (begun, most <= 8 + 5, still_open()) == (30, True, [])
        results = pool.run(shoes(30))
        next(results)
        assert still_open()
        results.close()  # halfway, with files read that nobody wants any more
        assert wait_until(lambda: not still_open())


def test_what_was_read_ahead_is_handed_to_another_worker_where_one_dies() -> None:
    reads: list[str] = []

    def counted(locator: str) -> Content:
        reads.append(locator)
        return read(locator)

    with make_pool(read=counted, fetched_ahead=8) as pool:
        results = pool.run(shoes(30))
        found = [next(results)]
        pool._workers[0].process.kill()
        found += results
    assert [result.locator for result in found] == shoes(30)
    assert all(result.views for result in found)
    assert sorted(reads) == sorted(shoes(30)), "each was read once"


@pytest.mark.slow
def test_where_the_inbox_as_a_whole_is_away_the_run_ends_with_the_reason() -> None:
    def away(_: str) -> Content:
        raise TransientError("all of it is away")

    def broken(_: str) -> Content:
        raise ZeroDivisionError("of our own")

    with (
        make_pool(read=away, fetched_ahead=8) as pool,
        pytest.raises(TransientError, match="away"),
    ):
        list(pool.run(shoes(3)))
    with (
        make_pool(read=broken, fetched_ahead=8) as pool,
        pytest.raises(DecodingError, match="cannot be read: ZeroDivisionError"),
    ):
        list(pool.run(shoes(3)))


@pytest.mark.slow
def test_a_worker_gets_no_secret_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "one", "SHOETAGGER_STORE_URL": "postgresql://me:two@host/tags",
        "SHOETAGGER_NOTIFY_URL": "three", "MLFLOW_TRACKING_PASSWORD": "four",
        "AIRFLOW__CORE__FERNET_KEY": "five", "DATABASE_URL": "six",
    }  # fmt: skip
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    with make_pool() as pool:
        list(pool.run(shoes(1)))
        (worker,) = pool._workers
        environment = Path(f"/proc/{worker.process.pid}/environ").read_bytes().decode()
    given = dict(line.split("=", 1) for line in environment.split("\0") if line)
    assert given.keys().isdisjoint(secrets)
    assert set(given.values()).isdisjoint(secrets.values())
    assert given["PATH"] == os.environ["PATH"]
