"""The entry point of every stage: arguments from dvc.yaml, one clear line on an error."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from ..errors import ShoetaggerError

# Arguments that the stages of a group share.
Group = Annotated[str, typer.Argument(help="group of tags, as in params.yaml")]
SplitTable = Annotated[Path, typer.Option("--split", help="split table of the group")]
Images = Annotated[Path, typer.Option("--images", help="folder of the images")]
Features = Annotated[Path, typer.Option("--features", help="folder that the stage features wrote")]


def run(stage: Callable[..., None]) -> None:
    """Call a stage with the command line's arguments; an error prints one line and exits with 1."""
    try:
        typer.run(stage)
    except ShoetaggerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def progress(total: int, what: str) -> tqdm[Any]:
    """Return a progress bar on stderr, silent where that is no terminal."""
    return tqdm(total=total, desc=what, disable=None, dynamic_ncols=True)
