"""`shoetagger backfill`: known pictures get the live versions' tags, beside the nights."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Annotated

import typer
from tqdm import tqdm

from ..config.settings import Settings
from ..ops.installation import opened


def backfill(
    since: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="Only pictures that arrived on this day or later."),
    ] = None,
) -> None:
    """Tag all known pictures that a live version has not tagged, beside the nights.

    It can be stopped at any time, and goes on where it was. Nights go first: it takes what they
    leave of the processor, and raises no alert. The next night publishes what it did.
    """
    from ..orchestration import backfill as backfilling

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

            filled = list(backfilling.worked_through(here, run, parts, moment, progress))
    tagged, left = (sum(numbers) for numbers in zip(*filled, strict=True))
    typer.echo(f"{tagged} pictures tagged; the next night publishes them")
    if left:
        typer.echo(f"{left} could not be read now: nights try them again")
