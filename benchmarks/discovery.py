"""What it costs to find 100 new pictures among many known ones: `python -m benchmarks.discovery`.

Makes real directory entries and real rows, then measures a night's finding of work in a process of
its own: listing, matching, and the first page of what is to be tagged.
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

from shoetagger.config import params
from shoetagger.config.settings import Settings, sqlite_url
from shoetagger.ingest import inbox
from shoetagger.ingest.batches import batched
from shoetagger.store.rows import Prediction, Tagged, file_id_of
from shoetagger.store.store import Store
from shoetagger.tagging import run as run_module
from shoetagger.tagging.run import TaggingRun

REPO = Path(__file__).parents[1]
NEW = 100
_A_FOLDER = 1000


def main(
    known: Annotated[list[int] | None, typer.Option(help="Pictures that are known.")] = None,
) -> None:
    """Print a row of a table for each number of known pictures."""
    print("| known | seconds | of which CPU | peak MB | rows and entries made in |")
    print("| --- | --- | --- | --- | --- |")
    for number in known or [10_000, 100_000, 1_000_000]:
        with tempfile.TemporaryDirectory(prefix="shoetagger-finding-") as home:
            started = time.perf_counter()
            make_known(Path(home), number)
            made = time.perf_counter() - started
            found = subprocess.run(
                [sys.executable, "-m", "benchmarks.discovery", "--measure", home],
                cwd=REPO, check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            told = json.loads(found.stdout)
            print(
                f"| {number:,} | {told['wall']:.1f} | {told['cpu']:.1f} | {told['peak_mb']:.0f} "
                f"| {made:.0f} s |",
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
    """Fill an inbox and a store as after many nights, with `NEW` files that came since."""
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
        for batch in batched(inbox.scan(settings.inbox), 5000):
            store.files.note(batch, yesterday)
            # A made-up identity serves: no file is opened here.
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
    """Make empty files, a thousand a folder."""
    for number in numbers:
        folder = root / f"{number // _A_FOLDER:05d}"
        if number % _A_FOLDER == 0 or number == numbers[0]:
            folder.mkdir(parents=True, exist_ok=True)
        (folder / f"picture {number:07d}.jpg").touch()


def measure(home: Path) -> dict[str, float]:
    """Find what is new, as a night does, and return what it took in this process."""
    settings = settings_in(home)
    groups = params.load(REPO / "params.yaml").groups
    pins = {group: f"{number:064x}" for number, group in enumerate(groups)}
    started, before = time.perf_counter(), time.process_time()
    now = datetime.now(UTC)
    with Store(settings.store_url) as store:
        run = TaggingRun(
            store.runs.start("night", pins, now), "night", now.isoformat(), pins, {}, ()
        )
        arrivals = run_module.find_arrivals(settings, run)
        shards = run_module.shards(settings, run)
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
