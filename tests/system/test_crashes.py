"""Killed anywhere, or out of disk: nothing is half done, and the next run makes it whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from helpers import fork_server
from helpers.bundles import random_model, write_bundle
from helpers.disks import fill
from helpers.installation import TAGS, install, make_live, predictions, put_pictures, write_often
from helpers.stores import stored_predictions

from shoetagger.config.settings import Settings
from shoetagger.inference.bundle import BUNDLE_FILE, load_bundle
from shoetagger.inference.loading import load_model
from shoetagger.network.digests import file_sha256
from shoetagger.network.layers import WEIGHTS_FILE
from shoetagger.network.weights import save_weights
from shoetagger.orchestration.nightly import night
from shoetagger.publishing.export import export
from shoetagger.publishing.publication import PublishError
from shoetagger.store import tables
from shoetagger.store.rows import StoreError
from shoetagger.store.store import Store

# Imports once, then forks for every run: so a kill is likely to hit the work, not an import.
NIGHTS = """
import os, sys, time
import mlflow, mlflow.pyfunc, torch, sqlalchemy, pyarrow.parquet
import shoetagger.inference.engine, shoetagger.publishing.publication, shoetagger.tracking.registry
from shoetagger.orchestration.nightly import night
from shoetagger.config.settings import Settings
print("ready", flush=True)
for line in sys.stdin:
    seconds = float(line)
    pid = os.fork()
    if pid == 0:
        os.close(0)
        torch.set_num_threads(1)
        night(Settings.from_environment(), "night")
        os._exit(0)
    if seconds >= 0:
        time.sleep(seconds)
        os.kill(pid, 9)  # not waited for yet, so the number is still its own
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@contextmanager
def nights(settings: Settings) -> Iterator[Callable[[float | None], int]]:
    """Run nights in processes of their own; each is killed after so many seconds, None: never."""
    environment = (
        os.environ | replace(settings, device="cpu").as_environment() | {"OMP_NUM_THREADS": "1"}
    )
    server = subprocess.Popen(
        fork_server.python("-c", NIGHTS), env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    put, get = server.stdin, server.stdout
    assert get.readline() == "ready\n"

    def run(seconds: float | None) -> int:
        put.write(f"{-1 if seconds is None else seconds}\n")
        put.flush()
        return int(get.readline())

    try:
        yield run
    finally:
        put.close()
        server.wait(timeout=60)
        get.close()


@pytest.fixture
def small_batches(tmp_path: Path) -> Path:
    """A project whose nights write often, so that a kill finds them in the middle of something."""
    return write_often(tmp_path)


def stored(settings: Settings) -> dict[str, list[tuple[object, ...]]]:
    """What the store says, without times, run ids, and the order of what was settled or made known.

    Scores are compared apart: their last digits depend on what else was in a batch.
    """
    apart = {"first_seen", "changed_at", "created_at", "registered_at", "done_at", "day", "seq",
             "image_key", "bundle_key", "run_id", "started_at", "ended_at", "scores"}  # fmt: skip
    engine = sa.create_engine(settings.store_url)
    with engine.connect() as connection:
        queries = {
            "files": sa.select(tables.files),
            "images": sa.select(tables.images),
            "predictions": stored_predictions(),
        }
        found = {
            name: sorted(
                tuple(repr(value) for column, value in row.items() if column not in apart)
                for row in connection.execute(query).mappings()
            )
            for name, query in queries.items()
        }
    engine.dispose()
    return found


def scores(settings: Settings) -> dict[tuple[str, str], list[float]]:
    """(bundle digest, image id) -> scores."""
    engine = sa.create_engine(settings.store_url)
    with engine.connect() as connection:
        rows = connection.execute(stored_predictions()).all()
    engine.dispose()
    return {(row.digest, row.image_id): row.scores for row in rows}


def without_numbers(value: object) -> object:
    if isinstance(value, dict):
        return {k: without_numbers(v) for k, v in value.items() if k not in ("first_seen", "day")}
    if isinstance(value, list):
        return [without_numbers(v) for v in value]
    return None if isinstance(value, float) else value


def published(settings: Settings) -> list[object]:
    """The rows of the published tables, without times and scores."""
    rows = pq.read_table(settings.published / "parquet").to_pylist()
    return sorted(map(without_numbers, rows), key=repr)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_tagging_killed_at_30_random_moments_ends_as_if_undisturbed(
    tmp_path: Path, small_batches: Path
) -> None:
    chance = random.Random(6)
    killed, calm = (
        replace(install(tmp_path / name), repo=small_batches, inbox=tmp_path / "inbox")
        for name in ("killed", "calm")
    )
    killed.inbox.mkdir()
    arrived = hits = 0
    with nights(killed) as run, nights(calm) as undisturbed:
        put_pictures(killed, 20, seed=1000)
        began = time.monotonic()
        assert undisturbed(None) == 0
        took = time.monotonic() - began
        while hits < 30:
            assert arrived < 100, "the nights end before their kills"
            put_pictures(killed, 6, seed=arrived)  # so every night has something to do
            arrived += 1
            hits += run(chance.uniform(0.0, took)) == -signal.SIGKILL
            if hits == 20 and len(stored(calm)["predictions"]) == 2 * 20:
                # From here on there are pictures to tag again as well.
                assert run(None) == undisturbed(None) == 0
                for settings in (killed, calm):
                    make_live(settings, "color", head_seed=7)
                broken = killed.inbox / "broken.jpg"
                broken.write_bytes(b"<html>no picture</html>")
                os.utime(broken, (1e9, 1e9))
        for left in killed.published.rglob("*.tmp"):
            os.utime(left, (1e9, 1e9))  # only what is old has certainly no writer any more
        assert run(None) == undisturbed(None) == 0
    with closing(Store(killed.store_url)) as store:
        cut_off = [run for run in store.runs.latest(999) if run.state == "running"]
    assert len(cut_off) >= 10, "the kills came before the nights began"
    pictures = 20 + 6 * arrived
    assert pictures >= 200
    assert stored(killed) == stored(calm)
    assert scores(killed) == {
        key: pytest.approx(told_calmly, abs=1e-5) for key, told_calmly in scores(calm).items()
    }
    assert published(killed) == published(calm)
    assert len(published(killed)) == len(predictions(killed)) == pictures
    for place in (killed.published, calm.published):
        assert not list(place.rglob("*.tmp"))
    with closing(Store(killed.store_url)) as store:
        assert store.current.counts(list(TAGS)).groups["color"].stale == 0
        assert len(list(store.files.rejected())) == 1
        counted = Counter[str]()
        for tagging_run in store.runs.latest(
            999
        ):  # those that were killed count what they had written
            counted.update(tagging_run.counts)
    assert (counted["new"], counted["tagged"], counted["rejected"]) == (pictures + 1, pictures, 1)


SAVES = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from helpers.disks import fill
from helpers import fork_server
from helpers.bundles import random_model, write_bundle
from shoetagger.network.weights import save_weights
from shoetagger.network.layers import WEIGHTS_FILE
models = [random_model(3, backbone_seed=s, head_seed=s) for s in (1, 2)]
print("ready", flush=True)
while True:
    for model in models:
        save_weights(model, Path(sys.argv[1]) / WEIGHTS_FILE, None)
"""


@pytest.mark.slow
def test_a_killed_training_leaves_whole_weights_or_those_before(tmp_path: Path) -> None:
    digests = {
        save_weights(random_model(3, backbone_seed=s, head_seed=s), tmp_path / str(s), None)
        for s in (1, 2)
    }
    bundle = write_bundle(tmp_path / "made")
    chance = random.Random(6)
    for _ in range(4):
        saver = subprocess.Popen(
            fork_server.python("-c", SAVES, tmp_path / "made", Path(__file__).parents[1]),
            stdout=subprocess.PIPE,
        )  # fmt: skip
        assert saver.stdout is not None
        assert saver.stdout.readline() == b"ready\n"
        time.sleep(chance.uniform(0.0, 0.5))
        saver.kill()
        saver.communicate()
        found = file_sha256(tmp_path / "made" / WEIGHTS_FILE)
        assert found in digests | {bundle.weights_sha256}


# --- a full disk


@pytest.mark.slow
def test_weights_that_find_the_disk_full_leave_those_before(disk: Path) -> None:
    bundle = write_bundle(disk / "bundle")
    filler = fill(disk, leave=1_000_000)
    other = random_model(3, backbone_seed=5, head_seed=5)
    with pytest.raises(OSError, match=r"No space left on device.*weights.safetensors"):
        save_weights(other, disk / "bundle" / WEIGHTS_FILE, None)
    assert sorted(p.name for p in (disk / "bundle").iterdir()) == [BUNDLE_FILE, WEIGHTS_FILE]
    assert load_bundle(disk / "bundle") == bundle
    load_model(disk / "bundle", bundle)
    filler.unlink()


@pytest.mark.slow
def test_a_store_that_finds_the_disk_full_says_so_and_goes_on_when_there_is_room(
    disk: Path, tmp_path: Path
) -> None:
    settings = replace(install(tmp_path), store_url=f"sqlite:///{disk / 'store.db'}")
    with Store(settings.store_url) as store:
        store.migrate()
    for group, seed in (("color", 1), ("style", 2)):
        make_live(settings, group, head_seed=seed)
    put_pictures(settings, 5)
    night(settings, "night")
    before = predictions(settings)
    put_pictures(settings, 100, seed=1)
    filler = fill(disk, leave=60_000)
    with pytest.raises(StoreError, match=r"(disk is full|disk I/O error): free some space"):
        night(settings, "night")
    filler.unlink()
    assert predictions(settings) == before
    assert night(settings, "night").state == "done"
    assert len(predictions(settings)) == 105


@pytest.mark.slow
def test_an_export_that_finds_the_disk_full_leaves_the_one_before(
    disk: Path, tmp_path: Path
) -> None:
    settings = install(tmp_path)
    put_pictures(settings, 20)
    night(settings, "night")
    (disk / "tags.csv").write_text("before")
    filler = fill(disk)
    with Store(settings.store_url) as store:
        with pytest.raises(PublishError, match=r"cannot write .*tags.csv: No space left"):
            export(store, TAGS, "csv", disk / "tags.csv", inbox=settings.inbox)
        assert (disk / "tags.csv").read_text() == "before"
        filler.unlink()
        export(store, TAGS, "csv", disk / "tags.csv", inbox=settings.inbox)
    assert sorted(path.name for path in disk.iterdir()) == ["tags.csv"]
    assert len((disk / "tags.csv").read_text("utf-8-sig").splitlines()) == 21
