"""The cost of finding 100 new pictures among many known ones: `python -m benchmarks.discovery`.

Creates real directory entries and real rows, then measures in a separate process how a night finds
its work: listing, matching, and the first page of the pictures to tag.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from more_itertools import chunked

from shoetagger.config import params
from shoetagger.config.settings import Settings, sqlite_url
from shoetagger.ingest import folder
from shoetagger.store.rows import Prediction, Tagged, file_id_of
from shoetagger.store.store import Store
from shoetagger.tagging import run as run_module
from shoetagger.tagging.run import TaggingRun

REPO = Path(__file__).parents[1]
NEW = 100
_PER_FOLDER = 1000


def main(
    known: Annotated[list[int] | None, typer.Option(help="Number of known pictures.")] = None,
) -> None:
    """Print a table row per number of known pictures."""
    print("| known | seconds | of which CPU | peak MB | time to set up |")
    print("| --- | --- | --- | --- | --- |")
    for number in known or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory(prefix="shoetagger-finding-") as home:
            started = time.perf_counter()
            make_known(Path(home), number)
            setup = time.perf_counter() - started
            process = subprocess.run(
                [sys.executable, "-m", "benchmarks.discovery", "--measure", home],
                cwd=REPO, check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            measured = json.loads(process.stdout)
            print(
                f"| {number:,} | {measured['wall']:.1f} | {measured['cpu']:.1f} "
                f"| {measured['peak_mb']:.0f} | {setup:.0f} s |",
                flush=True,
            )


def settings_in(home: Path) -> Settings:
    return Settings(
        repo=REPO,
        home=home,
        inbox=home / "inbox",
        store_url=sqlite_url(home / "store.db"),
        tracking_uri="http://127.0.0.1:9",
        device="cpu",
    )


def make_known(home: Path, known: int) -> None:
    """Fill an inbox and a store as after many nights, with `NEW` files that arrived since."""
    settings = settings_in(home)
    groups = params.load(REPO / "params.yaml").groups
    pins = {group: f"{number:064x}" for number, group in enumerate(groups)}
    yesterday = datetime.now(UTC) - timedelta(days=1)
    touch(settings.inbox, range(known))
    with Store(settings.store_url) as store:
        store.migrate()
        for group, digest in pins.items():
            store.ledger.add_version(
                digest=digest, group=group, tags=groups[group].tags,
                registry_name=None, version=None, now=yesterday,
            )  # fmt: skip
        run_id = store.runs.start("night", pins, yesterday)
        for batch in chunked(folder.scan(settings.inbox), 5000):
            store.files.note(batch, yesterday)
            # Invented image ids suffice: no file is opened here.
            ids = {a.locator: file_id_of(a.locator + "#bytes") for a in batch}
            store.predictions.record(
                tagged=[
                    Tagged(file_id_of(a.locator), a.token, ids[a.locator], 100, 100) for a in batch
                ],
                predictions=[
                    Prediction(image_id, digest, (0.9,) * len(groups[group].tags), ("tag",))
                    for group, digest in pins.items()
                    for image_id in ids.values()
                ],
                run_id=run_id,
                now=yesterday,
            )
        store.predictions.count_work(pins)
    touch(settings.inbox, range(known, known + NEW))


def touch(root: Path, numbers: range) -> None:
    """Create empty files, a thousand per folder."""
    for number in numbers:
        folder = root / f"{number // _PER_FOLDER:05d}"
        if number % _PER_FOLDER == 0 or number == numbers[0]:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"picture {number:07d}.jpg").touch()


def measure(home: Path) -> dict[str, float]:
    """Find the new pictures as a night does; return wall and CPU seconds, and peak memory."""
    settings = settings_in(home)
    options = params.load(REPO / "params.yaml")
    groups, tag = options.groups, options.tag
    pins = {group: f"{number:064x}" for number, group in enumerate(groups)}
    started, before = time.perf_counter(), time.process_time()
    now = datetime.now(UTC)
    with Store(settings.store_url) as store:
        run = TaggingRun(
            run_id=store.runs.start("night", pins, now),
            kind="night",
            started_at=now.isoformat(),
            pins=pins,
            versions={},
            left_out=(),
        )
        arrivals = run_module.find_arrivals(
            store, settings.inbox, run, options=tag, state=settings.home
        )
        shards = run_module.shards(store, run, most=tag.shards)
        waiting = store.files.waiting("", None, limit=2 * NEW)
    wall, cpu = time.perf_counter() - started, time.process_time() - before
    if arrivals["new"] != NEW or len(waiting) != NEW or not shards:
        raise RuntimeError(f"{NEW} files are new, but found: {arrivals}, {len(waiting)} waiting")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": wall, "cpu": cpu, "peak_mb": peak}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        typer.run(main)
