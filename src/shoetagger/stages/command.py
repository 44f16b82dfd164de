"""The entry of every stage: arguments from dvc.yaml, one clear line on a fault."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer
from tqdm import tqdm

from ..errors import ShoetaggerError


def run(stage: Callable[..., None]) -> None:
    """Call a stage with the command line's arguments; a user's error prints one line, exit 1."""
    try:
        typer.run(stage)
    except ShoetaggerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


def progress(total: int, what: str) -> tqdm[Any]:
    """Return a progress bar on stderr, silent where that is no terminal."""
    return tqdm(total=total, desc=what, disable=None, dynamic_ncols=True)
