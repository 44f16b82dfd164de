"""A whole night with a given engine: from the listing of the inbox to the rows in the store."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

from shoetagger.config.params import Params
from shoetagger.config.settings import sqlite_url
from shoetagger.inference.engine import Engine
from shoetagger.store.predictions import Predictions
from shoetagger.store.store import Store
from shoetagger.tagging.run import TaggingRun, find_arrivals
from shoetagger.tagging.shard import tag_shard

from . import project
from .clock import Clock

_PATIENCE = 180.0  # seconds, in which a shard has loaded its models or has failed


@dataclass(frozen=True)
class Night:
    """What a night took; the parts overlap with decoding, and with each other."""

    pictures: int
    batch: int
    seconds: float
    list_s: float
    model_s: float
    write_s: float

    @property
    def rate(self) -> float:
        return self.pictures / self.seconds


@contextmanager
def store_with(folder: Path, engine: Engine) -> Iterator[tuple[Store, TaggingRun]]:
    """Yield an empty store in `folder` that knows an engine's bundles, and a run of them."""
    folder.mkdir(parents=True)
    with Store(sqlite_url(folder / "store.db")) as store:
        store.migrate()
        project.make_known(store, engine.bundles)
        yield store, project.start_run(store)


def tag(inbox: Path, home: Path, options: Params, engine: Engine) -> Night:
    """Find and tag all pictures of an inbox, with one shard; `home` is a folder to make."""
    clock = Clock()
    with (
        store_with(home, engine) as (store, run),
        clock.of_function(Engine, "predict_and_describe", "model"),
        clock.of_function(Predictions, "record", "write"),
    ):
        batch = engine.batch_size(options.tag.batch_size)  # the first call chooses kernels
        started = time.perf_counter()
        with clock("list"):
            listed = find_arrivals(store, inbox, run, options=options.tag, state=home)
        tag_shard(store, engine, run, 0, 1, params=options, inbox=inbox)
        seconds = time.perf_counter() - started
        _check(store)
    parts = (clock.seconds[part] for part in ("list", "model", "write"))
    return Night(listed["new"], batch, seconds, *parts)


def tag_in_shards(
    inbox: Path, home: Path, options: Params, bundles: Sequence[Path], device: str, shards: int
) -> Night:
    """Tag an inbox in several shards side by side, each a process with models of its own.

    The cores are divided among their decoding processes. Loading the models does not count.
    """
    workers = max(1, options.tag.decode_workers // shards)
    options = replace(options, tag=replace(options.tag, decode_workers=workers))
    spawning = multiprocessing.get_context("spawn")
    ready = spawning.Barrier(shards + 1)
    with store_with(home, Engine(bundles, "cpu")) as (store, run):
        processes = [
            spawning.Process(
                target=_shard,
                args=(inbox, home, options, bundles, device, run, shard, shards, ready),
            )
            for shard in range(shards)
        ]
        for process in processes:
            process.start()
        ready.wait(_PATIENCE)
        started = time.perf_counter()
        listed = find_arrivals(store, inbox, run, options=options.tag, state=home)
        list_s = time.perf_counter() - started
        ready.wait(_PATIENCE)
        for process in processes:
            process.join()
        seconds = time.perf_counter() - started
        _check(store)
    return Night(listed["new"], 0, seconds, list_s, float("nan"), float("nan"))


def _shard(
    inbox: Path,
    home: Path,
    options: Params,
    bundles: Sequence[Path],
    device: str,
    run: TaggingRun,
    shard: int,
    shards: int,
    ready: Barrier,
) -> None:
    engine = Engine(bundles, device)
    engine.batch_size(options.tag.batch_size)
    with Store(sqlite_url(home / "store.db")) as store:
        ready.wait(_PATIENCE)
        ready.wait(_PATIENCE)  # the inbox is listed
        tag_shard(store, engine, run, shard, shards, params=options, inbox=inbox)


def _check(store: Store) -> None:
    counts = store.current.counts([])
    if not counts.files == counts.tagged == counts.images:
        raise RuntimeError(f"a measurement must tag every picture, each once: {counts}")
