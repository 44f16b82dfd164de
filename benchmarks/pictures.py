"""The pictures to measure with: those of a folder, or drawn ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shoetagger.demo import sample

PicturesOption = Annotated[
    Path | None, typer.Option(help="Folder of pictures; without it, shoes are drawn.")
]


def folder_of(pictures: Path | None, drawn: Path, count: int) -> Path:
    """Return the absolute path of the folder, or draw `count` shoes into `drawn`."""
    if pictures is None:
        typer.echo(f"no --pictures: drawing {count}")
        sample.write_arrivals(drawn, count=count, seed=1)
    return (pictures or drawn).absolute()
