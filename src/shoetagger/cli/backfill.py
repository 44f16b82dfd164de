"""`shoetagger backfill`: known pictures get the live versions' tags, beside the nights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer
from tqdm import tqdm

from ..config.settings import Settings
from ..ops.installation import opened
from ..tagging.backfill import Filled


class Engine(StrEnum):
    """What works through the ranges."""

    LOCAL = "local"
    RAY = "ray"


def backfill(
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only pictures that arrived on this day or later."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="What works: this process, or actors of Ray.")
    ] = Engine.LOCAL,
    address: Annotated[
        str | None,
        typer.Option(help="Of a Ray cluster, such as auto or host:6379; without, this machine."),
    ] = None,
    actors: Annotated[
        int | None,
        typer.Option(min=1, help="Of Ray, side by side; without, one per GPU or else machine."),
    ] = None,
) -> None:
    """Tag all known pictures that a live version has not tagged, beside the nights.

    It can be stopped at any time, and goes on where it was. Nights go first: it takes what they
    leave of the processor, and raises no alert. The next night publishes what it did.
    """
    from ..orchestration import backfill as backfilling
    from ..orchestration import ray_backfill

    if engine is Engine.LOCAL and (address or actors):
        raise typer.BadParameter("--address and --actors are Ray's: add --engine ray")
    os.nice(10)  # before models and decoding processes start, which inherit it
    moment = since and since.replace(tzinfo=UTC)
    with opened(Settings.from_environment()) as here, backfilling.begun(here) as run:
        parts = backfilling.ranges(here, run, moment)
        total = sum(part.lacking for part in parts)
        if not parts:
            typer.echo("no picture lacks the tags of a live version")
            return
        typer.echo(f"{total} pictures lack tags of live versions, in {len(parts)} ranges")
        with tqdm(total=total, unit=" pictures", disable=None, dynamic_ncols=True) as bar:

            def progress(pictures: int) -> None:
                bar.update(pictures)

            work: Callable[..., Iterator[Filled]] = backfilling.worked_through
            if engine is Engine.RAY:
                work = partial(ray_backfill.worked_through, address=address, actors=actors)
            left = sum(filled.left for filled in work(here, run, parts, moment, progress))
        tagged = here.store.runs.find(run.run_id).counts["retagged"]
    typer.echo(f"{tagged} pictures tagged; the next night publishes them")
    if left:
        typer.echo(f"{left} could not be read now: nights try them again")
