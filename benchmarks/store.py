"""What each question to the store costs when it knows many pictures: `python -m benchmarks.store`.

Fills a store on SQLite and on PostgreSQL, then does what nights, people and pages do, and prints
for each step CPU and wall seconds, and how the database looks the rows up (from EXPLAIN). On
PostgreSQL the server's CPU time counts too. Then writers write pictures as fast as they can, one
and several at once; per CPU second says what they do where others use the machine. `--save` writes
the figures, `--beside` prints earlier ones next to the new ones.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import psutil
import sqlalchemy as sa
import typer

from shoetagger.config import params
from shoetagger.ingest.inbox import Arrival
from shoetagger.publishing import publication, thumbnails
from shoetagger.store.rows import Prediction, RejectedFile, Tagged, file_id_of, short_id
from shoetagger.store.store import Store

from . import writers
from .filled import GROUPS, Filling, digest_of, fill

REPO = Path(__file__).parents[1]
NEW = 100
BATCH = 64
INBOX = Path("/inbox")


class Databases(StrEnum):
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass
class Figure:
    """What one step cost; `plan` names the ways in which its statements looked rows up."""

    cpu: float
    wall: float
    plan: list[str] = field(default_factory=list)


def main(
    pictures: Annotated[int, typer.Option(help="Pictures that are known.")] = 1_000_000,
    on: Annotated[list[Databases] | None, typer.Option(help="Which databases.")] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps the filled SQLite file here for the next run.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="JSON file to write the figures to.")] = None,
    beside: Annotated[Path | None, typer.Option(help="Figures of before, to print too.")] = None,
    written: Annotated[int, typer.Option(help="Pictures that writers write, per row.")] = 20_000,
    writers_only: Annotated[bool, typer.Option(help="Leave the steps out.")] = False,
) -> None:
    """Print a table per database, with a row per step, and one of writers."""
    before = json.loads(beside.read_text()) if beside else {}
    figures: dict[str, dict[str, Any]] = {}
    filling = Filling(pictures)
    for kind in on or list(Databases):
        with filled(kind, filling, folder) as url, tempfile.TemporaryDirectory() as published:
            typer.echo(f"\n### {kind}, {pictures:,} pictures\n")
            figures[kind] = {}
            if not writers_only:
                found, size = measure(url, filling, Path(published))
                figures[kind] |= {name: vars(figure) for name, figure in found.items()}
                print_table(found, before.get(kind, {}))
                typer.echo(f"\n{size / 1000:.2f} kB on disk per picture and bundle")
            rates = written_per_second(url, written)
            figures[kind] |= {name: vars(rate) for name, rate in rates.items()}
            print_rates(rates, before.get(kind, {}))
        if save:
            save.write_text(json.dumps(figures, indent=1))


@contextmanager
def filled(kind: str, filling: Filling, folder: Path | None) -> Iterator[str]:
    """Yield the URL of a filled database to work in, which is removed afterwards."""
    if kind == Databases.SQLITE:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            kept = (folder or Path(work)) / f"filled-{filling.pictures}.db"
            if not kept.exists():
                making = kept.with_suffix(".making")
                making.unlink(missing_ok=True)
                fill(f"sqlite:///{making}", filling)
                making.rename(kept)
            copy = Path(shutil.copy(kept, Path(work) / "store.db"))
            yield f"sqlite:///{copy}"
        return
    sys.path.insert(0, str(REPO / "tests"))
    from helpers import postgres

    from shoetagger.ops.cluster.services import postgres_binaries

    binaries = postgres_binaries()
    if binaries is None:
        raise typer.BadParameter("no PostgreSQL binaries on this machine")
    with postgres.server(binaries) as server, postgres.database(server) as url:
        fill(url, filling)
        yield url


def measure(url: str, filling: Filling, published: Path) -> tuple[dict[str, Figure], float]:
    """Do every step once, in an order in which none disturbs the next.

    Returns the figures of each, and the bytes on disk per picture and bundle.
    """
    figures: dict[str, Figure] = {}
    filling.image_ids  # noqa: B018 - computed once, and not within a step
    with Store(url) as store:
        watch = Watch(store)
        figures["migrate from 0006"] = watch("", store.migrate)
        warm(store)
        figures |= {
            name: watch(name, step) for name, step in steps(store, filling, published).items()
        }
        bundles = 3.5  # of which each picture has a prediction, on average
        return figures, bytes_of(store) / bundles / filling.pictures


def written_per_second(url: str, pictures: int) -> dict[str, writers.Rate]:
    """Let one and several writers write new pictures, and known ones again."""
    with Store(url) as store:
        store.migrate()
        warm(store)
    return {
        f"{number} of {what}": writers.rate(url, work, number, pictures)
        for number in (1, 4)
        for work, what in (("new", "new pictures"), ("retag", "pictures tagged again"))
    }


def steps(store: Store, f: Filling, published: Path) -> dict[str, Callable[[], object]]:
    """Return what a night, a page, a person asks, by name."""
    options = params.load(REPO / "params.yaml")
    now = datetime.now(UTC)
    half, total = f.pictures // 2, f.pictures
    known = [i for i in range(total) if not f.is_gone(i)]
    files = {short_id(file_id_of(f.locator(i))) for i in range(total) if not f.is_gone(i)}
    files |= {
        short_id(file_id_of(f"file:///inbox/broken/{i:07d}.jpg")) for i in range(0, total, 200)
    }
    arrivals = f.arrivals(known[:5000])
    new = [Arrival(f"file:///inbox/new/{n}.jpg", "1-1-1", None) for n in range(NEW)]
    files |= {short_id(file_id_of(arrival.locator)) for arrival in new}
    new_ids = [file_id_of(f"{arrival.locator}#bytes") for arrival in new]
    prepare_published(published, f, new_ids, options)

    def publish() -> None:
        publication.publish_changes(store, options, published=published, inbox=INBOX)

    def record_new() -> None:
        for some in range(0, NEW, BATCH):
            store.predictions.record(
                tagged=[
                    Tagged(file_id_of(a.locator), a.token, i, 100, 100)
                    for a, i in zip(
                        new[some : some + BATCH], new_ids[some : some + BATCH], strict=True
                    )
                ],
                predictions=[
                    prediction(image_id, group, digest)
                    for image_id in new_ids[some : some + BATCH]
                    for group, digest in f.pins.items()
                ],
                run_id="run",
                now=now,
            )

    def retag(group: str, number: int) -> Callable[[], None]:
        pins = f.pins | {group: digest_of(group, number)}

        def pages() -> None:
            run = store.runs.start("night", pins, now)
            for _ in range(2):
                page = store.predictions.hand_out(run, pins, 4 * BATCH)
                for some in range(0, len(page), BATCH):
                    store.predictions.record(
                        predictions=[
                            prediction(row.image_id, g, pins[g])
                            for row in page[some : some + BATCH]
                            for g in row.groups
                        ],
                        run_id=run,
                        now=now,
                    )

        return pages

    def first_shard_backlog() -> None:
        store.predictions.backlog(f.pins, "4", "8", 4 * BATCH)

    def move(kind: str, number: int) -> Callable[[], None]:
        def act() -> None:
            store.ledger.finish(
                store.ledger.begin(
                    "color", digest_of("color", number),
                    kind=kind, by="me", why="so", expect_from=store.ledger.live()["color"],
                )
            )  # fmt: skip

        return act

    def reject() -> None:
        store.files.note([Arrival("file:///inbox/odd.jpg", "1-1-1", None)], now)
        odd = RejectedFile(file_id_of("file:///inbox/odd.jpg"), "1-1-1", "odd")
        store.predictions.record(rejected=[odd], run_id="run", now=now)

    middle_day = f.moment(half).date().isoformat()
    groups = list(GROUPS)
    return {
        "night: 5,000 known files of the listing": lambda: store.files.note(arrivals, now),
        "night: 100 new files": lambda: store.files.note(new, now),
        "night: files not in the listing": lambda: store.files.unseen(files, now),
        "night: count the work": lambda: store.predictions.count_work(f.pins),
        "night: draw the files that wait": lambda: store.files.hand_out("run", 4 * BATCH),
        "night: look up what is known of 64 pictures": lambda: store.predictions.tags_known(
            f.pins.values(), f.image_ids[half : half + BATCH]
        ),
        "night: write 100 new pictures, 3 groups": record_new,
        "night: the files left to a shard": lambda: store.files.waiting("4", "8", 4 * BATCH),
        "night: rates of past nights": lambda: store.runs.past_rates(30, f"{f.days - 1:032x}"),
        "publish: 100 new pictures": publish,
        "re-tag 512 pictures at the start": retag("color", 3),
        "re-tag 512 pictures half way": retag("color", 2),
        "re-tag 512 pictures at the end": retag("detail", 1),
        "the backlog left to a shard": first_shard_backlog,
        "count the work of a new bundle": lambda: store.predictions.count_work(
            {"color": digest_of("color", 3)}
        ),
        "status: counts": lambda: store.current.counts(groups),
        "status: last runs": lambda: (store.runs.latest(1), store.runs.latest(1, "manual")),
        "page: rows of a day": lambda: list(store.current.rows(groups, day=middle_day)),
        "export: first 1,000 rows": lambda: list(islice(store.current.rows(groups), 1000)),
        "desk: one picture": lambda: list(store.current.rows(groups, image_ids=f.image_ids[:1])),
        "compare: sample 500 pictures": lambda: store.predictions.sample_tagged(
            digest_of("color", 2), 500
        ),
        "forget a picture": lambda: store.files.forget(f.image_ids[half], now),
        "retry one file": lambda: store.files.retry(["file:///inbox/broken/0000000.jpg"]),
        "reject a file": reject,
        "promote": move("promote", 3),
        "status after a promotion": lambda: store.current.counts(groups),
        "days to publish after a promotion": store.days.changed,
        "all rows exported after a promotion, last 1,000": lambda: list(
            store.current.rows(groups, day=f.moment(total - 1).date().isoformat())
        ),
        "roll back": move("rollback", 2),
        "status after a rollback": lambda: store.current.counts(groups),
        "retry all files": store.files.retry,
        "a store that is in use": store.is_empty,
    }


def prediction(image_id: str, group: str, digest: str) -> Prediction:
    return Prediction(image_id, digest, (0.5,) * len(GROUPS[group]), GROUPS[group][:1])


def prepare_published(
    published: Path, f: Filling, new_ids: list[str], options: params.Params
) -> None:
    """Publish a small store, and let its day stand for all days that are known here."""
    with tempfile.TemporaryDirectory() as small:
        url = f"sqlite:///{small}/store.db"
        fill(url, Filling(1000, days=1))
        with Store(url) as store:
            store.migrate()
            touch_thumbnails(published, Filling(1000, days=1).image_ids)
            publication.publish_changes(store, options, published=published, inbox=INBOX)
    table = next((published / "parquet").glob("day=*/tags.parquet"))
    sheet = next((published / "csv").glob("*.csv"))
    for day in {f.moment(i).date().isoformat() for i in range(f.pictures)}:
        place = published / "parquet" / f"day={day}"
        place.mkdir(exist_ok=True)
        if not (place / table.name).exists():
            shutil.copy(table, place)
            shutil.copy(sheet, sheet.with_stem(day))
    touch_thumbnails(published, new_ids)


def touch_thumbnails(published: Path, image_ids: list[str]) -> None:
    for image_id in image_ids:
        place = published / thumbnails.thumbnail_name(image_id)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


class Watch:
    """Times steps, and explains the statements that each one executed."""

    def __init__(self, store: Store) -> None:
        self._engine = store._database._engine
        self._sqlite = store._database.is_sqlite
        self._statements: dict[str, Any] = {}
        self._servers: set[int] = set()
        sa.event.listen(self._engine, "before_cursor_execute", self._note)

    def __call__(self, name: str, step: Callable[[], object]) -> Figure:
        self._statements.clear()
        self._server_cpu()
        wall, cpu = time.perf_counter(), time.process_time() + self._server_cpu()
        step()
        cpu = time.process_time() + self._server_cpu() - cpu
        figure = Figure(round(cpu, 4), round(time.perf_counter() - wall, 4))
        if name:
            figure.plan = self._explain()
        return figure

    def _note(self, connection: Any, _: Any, statement: str, parameters: Any, *__: Any) -> None:
        many = isinstance(parameters, list)
        self._statements.setdefault(statement, parameters[0] if many else parameters)
        if not self._sqlite:
            driver = connection.connection.dbapi_connection
            self._servers.add(driver.info.backend_pid)

    def _server_cpu(self) -> float:
        """Return the CPU seconds of the server's processes that answered so far."""
        spent = 0.0
        for pid in self._servers:
            if psutil.pid_exists(pid):
                times = psutil.Process(pid).cpu_times()
                spent += times.user + times.system
        return spent

    def _explain(self) -> list[str]:
        explain = "EXPLAIN QUERY PLAN " if self._sqlite else "EXPLAIN "
        found: dict[str, None] = {}
        statements = dict(self._statements)
        with self._engine.connect() as connection:
            for statement, parameters in statements.items():
                if statement.split(None, 1)[0] not in ("SELECT", "UPDATE", "DELETE", "INSERT"):
                    continue
                rows = connection.exec_driver_sql(explain + statement, parameters).all()
                found |= dict.fromkeys(filter(None, (access(str(row[-1])) for row in rows)))
            connection.rollback()
        return list(found)


def access(line: str) -> str | None:
    """Return how a line of a plan looks rows up; None where it does not."""
    line = line.strip().removeprefix("->").strip()
    if "alembic_version" in line or " on pg_" in line:  # asked once per process
        return None
    if line.startswith(("SEARCH", "SCAN", "USE TEMP B-TREE")):
        return line
    return line.partition("  (")[0] if " Scan " in line else None


def warm(store: Store) -> None:
    """Bring the database into memory, so that no step pays for the disk; statistics too."""
    with store._database._engine.connect() as connection:
        if store._database.is_sqlite:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            with Path(str(store._database._engine.url.database)).open("rb") as file:
                while file.read(1 << 24):
                    pass
            return
    with store._database._engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.exec_driver_sql("VACUUM ANALYZE")


def bytes_of(store: Store) -> int:
    """Return the size of the database."""
    with store._database.reading() as connection:
        if store._database.is_sqlite:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            return int(pages) * int(connection.exec_driver_sql("PRAGMA page_size").scalar_one())
        size = connection.exec_driver_sql("SELECT pg_database_size(current_database())")
        return int(size.scalar_one())


def print_table(figures: dict[str, Figure], before: dict[str, Any]) -> None:
    typer.echo("| step | CPU s before | CPU s | wall s | how rows are looked up |")
    typer.echo("| --- | --- | --- | --- | --- |")
    for name, figure in figures.items():
        old = f"{before[name]['cpu']:.3f}" if name in before else ""
        plan = "; ".join(figure.plan[:6]) + (" ..." if len(figure.plan) > 6 else "")
        typer.echo(f"| {name} | {old} | {figure.cpu:.3f} | {figure.wall:.3f} | {plan} |")


def print_rates(rates: dict[str, writers.Rate], before: dict[str, Any]) -> None:
    typer.echo("\n| writers, three groups | a second before | a second | a CPU second |")
    typer.echo("| --- | --- | --- | --- |")
    for name, rate in rates.items():
        old = f"{before[name]['wall']:,.0f}" if name in before else ""
        typer.echo(f"| {name} | {old} | {rate.wall:,.0f} | {rate.cpu:,.0f} |")


if __name__ == "__main__":
    typer.run(main)
