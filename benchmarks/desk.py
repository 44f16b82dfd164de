"""How long a page of the desk takes when it has many pictures: `python -m benchmarks.desk`.

Writes tables as a publication would, of drawn tags, and a store with the same pictures; opens the
desk over them, as Airflow does; and asks for pages as a browser does. Prints for each kind of page
the slowest of a few requests, in wall seconds and in CPU seconds; on a busy machine, these count.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from fastapi.testclient import TestClient

from shoetagger.config import params
from shoetagger.config.params import Params
from shoetagger.config.settings import Settings
from shoetagger.desk.app import create
from shoetagger.desk.dependencies import Person
from shoetagger.desk.gallery import Gallery
from shoetagger.publishing.tables import parquet_schema
from shoetagger.store.rows import Edit
from shoetagger.store.store import Store

from .filled import GROUPS, Filling, fill

REPO = Path(__file__).parents[1]
AGAIN = 3  # requests per page, of which the slowest counts
MOST_SECONDS = 0.5  # that a page may take on two cores, with a million pictures


def main(
    pictures: Annotated[int, typer.Option(help="Pictures that are published.")] = 1_000_000,
    days: Annotated[int, typer.Option(help="Days on which they arrived.")] = 1000,
    save: Annotated[Path | None, typer.Option(help="JSON file to write the figures to.")] = None,
) -> None:
    """Print a table with a row per kind of page; fail where a page takes too long."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), Filling(pictures, days))
    typer.echo(f"| {pictures:,} pictures, {days:,} days | wall | CPU |\n| --- | --- | --- |")
    for name, (wall, cpu) in figures.items():
        typer.echo(f"| {name} | {wall:.3f} | {cpu:.3f} |")
    if save:
        save.write_text(json.dumps(figures, indent=1))
    slow = [name for name in pages(Filling(pictures, days)) if figures[name][0] > MOST_SECONDS]
    if slow:
        typer.echo(f"slower than {MOST_SECONDS} s: {', '.join(slow)}", err=True)
        raise typer.Exit(1)


def pages(f: Filling) -> dict[str, str]:
    """Return the address of a page of each kind, by what it shows."""
    first, middle = (f.moment(i).date().isoformat() for i in (0, f.pictures // 2))
    return {
        "all pictures": "/",
        "all pictures, the last page": f"/?page={-(-f.pictures // 60)}",
        "one tag": "/?g.style=boot",
        "a rare tag": "/?g.detail=leather",
        "three groups, five tags": "/?g.color=black&g.color=tan&g.style=boot&g.style=heel"
        "&g.detail=shiny",
        "part of a name": "/?q=777",
        "a name that nothing has": "/?q=nothing",
        "half of the days": f"/?from={first}&to={middle}",
        "what people corrected": "/?state=corrected",
        "stale, of one colour, by name and day": f"/?state=stale&g.color=red&q=77&from={middle}",
    }


def measure(folder: Path, f: Filling) -> dict[str, tuple[float, float]]:
    """Return wall and CPU seconds of each step, in the order in which they are done."""
    options = params.load(REPO / "params.yaml")
    settings = installation(folder)
    write_tables(settings.published / "parquet", f, options)
    fill(settings.store_url, f)
    with Store(settings.store_url) as store:
        store.migrate()
    figures: dict[str, tuple[float, float]] = {}
    with browser(settings) as get:
        figures["the first page, which reads all tables"] = seconds(lambda: get("/"))
        for name, address in pages(f).items():
            figures[name] = max(seconds(lambda a=address: get(a)) for _ in range(AGAIN))
        picture = f"/picture/{f.image_ids[-1]}"
        figures["one picture"] = max(seconds(lambda: get(picture)) for _ in range(AGAIN))
        day = settings.published / "parquet" / f"day={f.moment(0).date()}" / "tags.parquet"
        day.touch()
        figures["a page after a day was published"] = seconds(lambda: get("/?g.style=boot"))
        with Store(settings.store_url) as store:
            correct(store, f.image_ids[-50:])
        figures["a page after 50 pictures were corrected"] = seconds(lambda: get("/?g.style=boot"))
    return figures


def installation(folder: Path) -> Settings:
    """Return the places of an installation in a folder, with our own parameters."""
    repo = folder / "repo"
    repo.mkdir()
    (repo / "params.yaml").write_text((REPO / "params.yaml").read_text())
    (repo / "dvc.yaml").touch()
    settings = Settings.from_environment({"SHOETAGGER_REPO": str(repo)})
    settings.home.mkdir()
    return replace(settings, inbox=Path("/inbox"))


@contextmanager
def browser(settings: Settings) -> Iterator[Callable[[str], str]]:
    """Open the desk as a server does; yield a function that gets a page."""
    app = create(lambda: Gallery(settings), lambda: Person("ann", may_write=True))

    with TestClient(app) as client:

        def get(address: str) -> str:
            response = client.get(address)
            response.raise_for_status()
            return response.text

        yield get


def write_tables(folder: Path, f: Filling, options: Params) -> None:
    """Write a table per day with the store's pictures, and tags that are drawn, some often."""
    rng = np.random.default_rng(0)
    numbers: dict[str, list[int]] = {}
    for i in range(f.pictures):
        numbers.setdefault(f.moment(i).date().isoformat(), []).append(i)
    schema = parquet_schema(options.groups)
    for day, pictures in numbers.items():
        count = len(pictures)
        columns: dict[str, pa.Array] = {
            "image_id": pa.array([f.image_ids[i] for i in pictures]),
            "file": pa.array([f"{i // 1000:05d}/picture {i:07d}.jpg" for i in pictures]),
            "locator": pa.array([f.locator(i) for i in pictures]),
            "copies": pa.array([[]] * count, schema.field("copies").type),
            "first_seen": pa.array([f.moment(i) for i in pictures]),
            "verdict": pa.nulls(count, pa.string()),
            "article": pa.array([f"{i // 4:06d}" for i in pictures]),
        }
        for name, tags in GROUPS.items():
            share = 1 / np.arange(1, len(tags) + 1)
            chosen = rng.choice(len(tags), count, p=share / share.sum())
            offsets = pa.array(np.arange(count + 1), pa.int32())
            columns[f"{name}_tags"] = pa.ListArray.from_arrays(offsets, pa.array(tags).take(chosen))
            columns[f"{name}_version"] = pa.array(["1"] * count)
            columns[f"{name}_stale"] = pa.array(rng.random(count) < 0.1)
            columns[f"{name}_corrected"] = pa.array(rng.random(count) < 0.01)
            columns[f"{name}_unsure"] = pa.array(rng.random(count) < 0.05)
            for tag in tags:
                columns[f"score_{tag}"] = pa.array(rng.random(count, np.float32))
        place = folder / f"day={day}"
        place.mkdir(parents=True)
        cast = [columns[field.name].cast(field.type) for field in schema]
        pq.write_table(
            pa.Table.from_arrays(cast, schema=schema), place / "tags.parquet", compression="zstd"
        )


def correct(store: Store, image_ids: list[str]) -> None:
    """Let a person correct pictures."""
    edits = [Edit(image_id, "style", ("boot",)) for image_id in image_ids]
    now = datetime.now(UTC)
    store.corrections.apply(edits, by="ann", why="", origin="browse", now=now)


def seconds(step: Callable[[], object]) -> tuple[float, float]:
    """Return the wall seconds of a step, and the CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - cpu


if __name__ == "__main__":
    typer.run(main)
