"""Nights of `make cluster`, one of which loses a worker: `python -m benchmarks.cluster`.

Each worker has a clone and a state of its own. The training DAG trains the sample's three groups
and promotes them; it fails unless their bundles are those of a training on one machine. Then three
nights tag the same drawn shoes from S3, each from an empty store: one undisturbed; one in which a
worker and all that it started are killed amid a shard; one with the worker that is left. It fails
where a night's counts are not exact, or where its tables are not those of the first night, row for
row.
"""

from __future__ import annotations

import io
import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import psutil
import psycopg
import pyarrow.parquet as pq
import typer
from obstore.store import S3Store

from shoetagger.config.settings import Settings
from shoetagger.demo.__main__ import QUICK, TAGGING, TRAINING
from shoetagger.demo.airflow_api import Airflow, TaskState
from shoetagger.ops.cluster import services, site
from shoetagger.ops.cluster.start import WORKERS, cluster, worker
from shoetagger.ops.environment import Ports, log_file
from shoetagger.ops.processes import (
    end_processes,
    free_port_near,
    marked_processes,
    read_state,
)
from shoetagger.ops.programs import down, start
from shoetagger.ops.servers import of_running
from shoetagger.store.store import Store

from . import machine
from .clones import Project
from .copies import make_copies

KILLED = WORKERS[-1]
# Rows of the published tables, by locator.
Rows = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Installation:
    """A cluster that runs: the settings it was started with, its addresses and its Airflow."""

    settings: Settings
    values: Mapping[str, str]
    airflow: Airflow

    @property
    def store_url(self) -> str:
        return of_running(self.settings).store_url


@dataclass(frozen=True)
class Night:
    """What a night took: seconds by the clock, and of the workers' CPU; `killed_at` is a count."""

    name: str
    seconds: float
    tagging_seconds: float
    rate: float
    cpu_seconds: float
    tries: tuple[int, ...]
    killed_at: int | None


def main(
    pictures: Annotated[int, typer.Option(help="Copies of drawn shoes to tag.")] = 6000,
) -> None:
    """Print a table of the three nights, and what the death of a worker cost."""
    with tempfile.TemporaryDirectory(prefix="shoetagger-cluster-") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # PostgreSQL's user must be able to enter it
        project = Project.make(folder)
        settings = Settings.from_environment(
            {"SHOETAGGER_REPO": str(project.servers), "SHOETAGGER_HOME": str(folder / "home")}
        )
        ports = Ports(free_port_near(28080), free_port_near(25000))
        try:
            cluster(settings, ports, typer.echo)
            values = site.read_site(settings)
            give_workers_clones(settings, values, project)
            here = Installation(settings, values, Airflow(settings, ports))
            train(here, project)
            measure(here, project.servers / "data" / "images", pictures)
        finally:
            down(settings, typer.echo)


def give_workers_clones(settings: Settings, values: Mapping[str, str], project: Project) -> None:
    """Start the workers again, each with a clone and a state of its own."""
    for name in WORKERS:
        end_processes(processes(settings, f"worker-{name}"), kill=True, patience=10)
        clone, state = project.clone(name), project.folder / f"state of {name}"
        state.mkdir()
        own = {**values, "REPO": str(clone), "STATE": str(state)}
        known = read_state(settings)
        if known is None:
            raise RuntimeError("the cluster does not run")
        start(settings, known, {f"worker-{name}": worker(replace(settings, repo=clone), own, name)})


def measure(here: Installation, originals: Path, pictures: int) -> None:
    fill_inbox(here, originals, pictures)
    nights: list[Night] = []
    first: Rows | None = None
    for name, kill_at in (
        ("two workers", None),
        ("two workers, one killed", pictures // 4),
        ("one worker", None),
    ):
        empty_store(here)
        nights.append(night(here, name, pictures, kill_at))
        typer.echo(str(nights[-1]))
        check_counts(here, pictures)
        found = published(here)
        if first is None:
            first = found
        typer.echo(f"{len(found)} rows; scores differ by at most {difference(first, found):.2g}")
    typer.echo(report(machine.description(), pictures, nights))


def train(here: Installation, project: Project) -> None:
    """Train and promote all groups, and wait for the runs that the promotions start.

    Raises RuntimeError where a bundle is not that of a training on one machine, or where one of the
    workers has trained nothing.
    """
    here.airflow.activate(TAGGING)
    began = time.perf_counter()
    run = here.airflow.trigger(TRAINING, {"overrides": list(QUICK)})
    tasks = here.airflow.follow(TRAINING, run, typer.echo)
    typer.echo(f"trained and promoted in {time.perf_counter() - began:.0f} s")
    registered = [
        here.airflow.result(TRAINING, run, task.task_id, task.map_index)
        for task in tasks
        if task.task_id == "model.register"
    ]
    found = {of_group["group"]: of_group["challenger"]["digest"] for of_group in registered}
    for name in WORKERS:
        stages = trained(log_file(here.settings, f"worker-{name}").read_text())
        typer.echo(f"worker {name} trained {', '.join(stages)}")
        if not stages:
            raise RuntimeError(f"worker {name} has trained nothing")
    alone = project.trained_on_one_machine(QUICK)
    if alone != found:
        raise RuntimeError(f"one machine makes {alone}, two workers {found}")
    typer.echo(f"the same bundles as on one machine: {found}")
    while here.airflow.is_queued(TAGGING):
        time.sleep(1)
    for run in here.airflow.runs(TAGGING):
        here.airflow.follow(TAGGING, run, typer.echo)


def trained(log: str) -> list[str]:
    """Return the numbers of the groups whose training a worker's log begins."""
    return sorted(set(re.findall(r"task_id=model\.train/map_index=(\d+)", log)))


def fill_inbox(here: Installation, originals: Path, pictures: int) -> None:
    """Put copies of the sample's shoes into the bucket, no two with the same bytes."""
    with tempfile.TemporaryDirectory(prefix="shoetagger-copies-") as temporary:
        paths = make_copies(sorted(originals.iterdir()), Path(temporary) / "inbox", pictures)
        bucket = bucket_of(here.values)
        for path in paths:
            bucket.put(f"inbox/{path.name}", path)


def empty_store(here: Installation) -> None:
    """Forget all that was tagged and published; the next night takes over the champions."""
    with psycopg.connect(services.superuser_url(here.values), autocommit=True) as connection:
        connection.execute("DROP DATABASE shoetagger WITH (FORCE)")
    services.make_databases(here.values)
    with Store(here.store_url) as store:
        store.migrate()
    bucket = bucket_of(here.values)
    for batch in bucket.list("published"):
        bucket.delete([entry["path"] for entry in batch])


def night(here: Installation, name: str, pictures: int, kill_at: int | None) -> Night:
    """Run a night; with `kill_at`, kill a worker as soon as so many pictures are tagged."""
    before, lost = cpu_seconds(here.settings), 0.0
    began = time.perf_counter()
    samples: list[tuple[float, int]] = []
    killed_at = None
    run = here.airflow.trigger(TAGGING, {})
    with Store(here.store_url) as store, ThreadPoolExecutor(max_workers=1) as executor:
        following = executor.submit(here.airflow.follow, TAGGING, run, typer.echo)
        while not following.done():
            latest = store.runs.latest(1)
            tagged = latest[0].counts["tagged"] if latest else 0
            samples.append((time.perf_counter() - began, tagged))
            if kill_at is not None and killed_at is None and tagged >= kill_at:
                lost = cpu_seconds(here.settings)[f"worker-{KILLED}"] - before[f"worker-{KILLED}"]
                kill(here.settings, f"worker-{KILLED}")
                killed_at = tagged
            time.sleep(0.5)
        tasks: Sequence[TaskState] = following.result()
    seconds = time.perf_counter() - began
    after = cpu_seconds(here.settings)
    left = [name for name in after if name.startswith("worker-")]
    spent = sum(after[name] - before[name] for name in left)
    tries = tuple(sorted(task.try_number for task in tasks if task.task_id == "tag_shard"))
    tagging = tagging_seconds(samples)
    return Night(name, seconds, tagging, pictures / tagging, spent + lost, tries, killed_at)


def tagging_seconds(samples: Sequence[tuple[float, int]]) -> float:
    """Return the seconds from the last sample without a tagged picture to the first with all.

    A sample is the seconds since the beginning, and how many pictures are tagged.
    """
    most = max(tagged for _, tagged in samples)
    begins = max(seconds for seconds, tagged in samples if tagged == 0)
    return min(seconds for seconds, tagged in samples if tagged == most) - begins


def cpu_seconds(settings: Settings) -> dict[str, float]:
    """Return server -> seconds of CPU of its processes, and of those of theirs that have ended."""
    found: dict[str, float] = {}
    for name, process in marked_processes(settings):
        try:
            found[name] = found.get(name, 0.0) + sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue
    return found


def bucket_of(values: Mapping[str, str]) -> S3Store:
    """Return the bucket of pictures and tables that a cluster's site.env names."""
    return S3Store(
        site.BUCKETS[0],
        endpoint=values["S3_URL"],
        region=values["S3_REGION"],
        access_key_id=values["S3_KEY"],
        secret_access_key=values["S3_SECRET"],
        client_options={"allow_http": True},
    )


def processes(settings: Settings, server: str) -> list[psutil.Process]:
    """Return the processes of a server, such as worker-a, and all that it started."""
    return [process for name, process in marked_processes(settings) if name == server]


def kill(settings: Settings, server: str) -> None:
    """Kill a server's whole tree at once, as where its machine is lost."""
    tree = processes(settings, server)
    for process in tree:
        process.suspend()
    for process in tree:
        process.kill()
    psutil.wait_procs(tree, timeout=10)


def check_counts(here: Installation, pictures: int) -> None:
    """Raise RuntimeError where the night's counts are not exact."""
    with Store(here.store_url) as store:
        counts = store.runs.latest(1)[0].counts
    wanted = {"seen": pictures, "new": pictures, "tagged": pictures, "rejected": 0, "deferred": 0}
    if {name: counts[name] for name in wanted} != wanted:
        raise RuntimeError(f"the night counted {counts}, and not {wanted}")


def published(here: Installation) -> Rows:
    """Return the rows of all published tables, without the times at which files were seen."""
    bucket = bucket_of(here.values)
    names = [entry["path"] for batch in bucket.list("published/parquet") for entry in batch]
    rows: dict[str, dict[str, Any]] = {}
    for name in names:
        if name.endswith("tags.parquet"):
            table = pq.read_table(io.BytesIO(bytes(bucket.get(name).bytes())))
            rows |= {row["locator"]: row for row in table.drop_columns("first_seen").to_pylist()}
    return rows


def difference(first: Rows, other: Rows) -> float:
    """Return the largest difference of a score; raises RuntimeError where anything else differs."""
    if first.keys() != other.keys():
        raise RuntimeError(f"{len(first.keys() ^ other.keys())} pictures are in one table only")
    largest = 0.0
    for locator, row in first.items():
        for column, value in row.items():
            found = other[locator][column]
            if column.startswith("score_"):
                largest = max(largest, abs(value - found))
            elif value != found:
                raise RuntimeError(f"{locator}: {column} is {found}, and was {value}")
    return largest


def report(where: str, pictures: int, nights: Sequence[Night]) -> str:
    """Return the table for docs/SCALE.md, and what the death of a worker cost."""
    lines = [
        f"{pictures} pictures; {where}",
        "",
        "| night | seconds | of which tagging | pictures per second | CPU of the workers, s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for each in nights:
        lines.append(
            f"| {each.name} | {each.seconds:.0f} | {each.tagging_seconds:.0f} | {each.rate:.0f} "
            f"| {each.cpu_seconds:.0f} |"
        )
    undisturbed, disturbed, _ = nights
    lost = disturbed.seconds - undisturbed.seconds
    lines += ["", f"killed after {disturbed.killed_at} pictures: {lost:.0f} s longer"]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
