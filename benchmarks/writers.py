"""How many pictures per second the store takes, from one writer or several.

A writer does with the store what a shard does with each batch: it draws files that wait, looks up
what is known of their pictures, and writes size, predictions of three groups and vector. Decoding
and models are left out. `retag` writes predictions of known pictures instead, as after a promotion.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.synchronize import Barrier
from typing import Any, Literal

import numpy as np
import psutil
import sqlalchemy as sa
from more_itertools import chunked

from shoetagger.ingest.inbox import Arrival
from shoetagger.store.rows import Prediction, Tagged, file_id_of
from shoetagger.store.store import Store

from .filled import GROUPS, digest_of

BATCH = 1024  # pictures, as on a GPU
Work = Literal["new", "retag"]
_PATIENCE = 300.0


@dataclass(frozen=True)
class Rate:
    """Pictures per second of all writers together, and per CPU second of them and the server."""

    wall: float
    cpu: float


def rate(url: str, work: Work, writers: int, pictures: int) -> Rate:
    """Measure how fast `writers` processes write `pictures` pictures, of a store that is filled."""
    with Store(url) as store:
        run = prepare(store, work, pictures)
        servers = _servers(store)
        spawning = multiprocessing.get_context("spawn")
        ready, results = spawning.Barrier(writers + 1), spawning.Queue()
        processes = [
            spawning.Process(
                target=_write, args=(url, run, work, pictures // writers, ready, results)
            )
            for _ in range(writers)
        ]
        for process in processes:
            process.start()
        ready.wait(_PATIENCE)
        before, began = servers(), time.perf_counter()
        ready.wait(_PATIENCE)
        found = [results.get(timeout=_PATIENCE) for _ in processes]
        wall, cpu = time.perf_counter() - began, servers() - before + sum(c for _, c in found)
        for process in processes:
            process.join()
        written = sum(number for number, _ in found)
        if written < pictures // writers * writers or (
            work == "new" and store.files.count_waiting()
        ):
            raise RuntimeError(f"{written} of {pictures} pictures were written")
    return Rate(written / wall, written / cpu)


def prepare(store: Store, work: Work, pictures: int) -> str:
    """Let new files wait, or a version be registered that has tagged nothing; return a run."""
    now = datetime.now(UTC)
    pins = {group: digest_of(group, 1) for group in GROUPS}
    if work == "new":
        mark = now.timestamp()
        new = (Arrival(f"file:///inbox/{mark}/{n}.jpg", "1-1-1", None) for n in range(pictures))
        for some in chunked(new, 5000):
            store.files.note(some, now)
    else:
        pins = {group: file_id_of(f"{group} {now}") for group in GROUPS}
        for group, digest in pins.items():
            store.ledger.add_version(
                digest=digest, group=group, tags=GROUPS[group], registry_name=None, version=None,
                now=now,
            )  # fmt: skip
    return store.runs.start("night", pins, now)


def _write(url: str, run: str, work: Work, share: int, ready: Barrier, results: Any) -> None:
    with Store(url) as store:
        pins = next(row.pins for row in store.runs.latest(50) if row.run_id == run)
        pages = draw(store, run, work, pins)
        ready.wait(_PATIENCE)
        ready.wait(_PATIENCE)
        began, written = time.process_time(), 0
        for tagged, predictions in pages:
            store.predictions.record(
                tagged=tagged, predictions=predictions, run_id=run, now=datetime.now(UTC)
            )
            written += len(predictions) // len(pins)
            if work == "retag" and written >= share:
                break
        results.put((written, time.process_time() - began))


def draw(
    store: Store, run: str, work: Work, pins: dict[str, str]
) -> Iterator[tuple[list[Tagged], list[Prediction]]]:
    """Yield batches as a shard has them ready to write."""
    scores = np.random.default_rng(0).random((BATCH, 3, 8)).astype(np.float32).tolist()
    vector = bytes(range(72))
    page: Callable[[], list[Any]]
    if work == "new":
        page = lambda: store.files.hand_out(run, 4 * BATCH)  # noqa: E731
    else:
        page = lambda: store.predictions.hand_out(run, pins, 4 * BATCH)  # noqa: E731
    while rows := page():
        for some in chunked(rows, BATCH):
            tagged: list[Tagged] = []
            image_ids = [row.image_id for row in some]
            if work == "new":
                image_ids = [file_id_of(row.file_id) for row in some]
                store.predictions.tags_known(pins.values(), set(image_ids))
                tagged = [
                    Tagged(row.file_id, row.token, image_id, 600, 400)
                    for row, image_id in zip(some, image_ids, strict=True)
                ]
            yield tagged, [
                Prediction(
                    image_id, digest, tuple(of_picture[g][: len(GROUPS[group])]),
                    GROUPS[group][:1], vector,
                )
                for g, (group, digest) in enumerate(pins.items())
                for image_id, of_picture in zip(image_ids, scores, strict=False)
            ]  # fmt: skip


def _servers(store: Store) -> Callable[[], float]:
    """Return what tells the CPU seconds of the database's own processes, those that ended too."""
    if store._database.is_sqlite:
        return lambda: 0.0
    with store._database.reading() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
    postmaster = psutil.Process(pid).parent()
    assert postmaster is not None

    def spent() -> float:
        times = postmaster.cpu_times()
        total = times.children_user + times.children_system
        for child in postmaster.children():
            with suppress(psutil.NoSuchProcess):  # one that has just ended
                of_child = child.cpu_times()
                total += of_child.user + of_child.system
        return float(total)

    return spent
