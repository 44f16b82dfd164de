"""`shoetagger init`: this repo becomes the project of somebody's pictures and spreadsheet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..config import params as parameters
from ..config.settings import Settings


def init(
    folder: Annotated[Path, typer.Argument(help="Folder with pictures and their sheet.")],
    sheet: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The .csv or .xlsx; by default the one in FOLDER."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Where the pictures are; by default FOLDER/images, or FOLDER."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(help="NAME=TAG,TAG: tags that one model learns; may be repeated."),
    ] = None,
    remote: Annotated[
        str | None,
        typer.Option(
            help="Where DVC keeps the data: a folder, or an address such as s3://b/shoes."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
) -> None:
    """Take your pictures, their sheet and its tags in place of the drawn shoes."""
    from ..project.columns import columns_of, groups_of, named_groups, named_tags
    from ..project.start import find_source, start
    from ..rendering import count

    settings = Settings.from_environment()
    known = parameters.load(settings.params_file)
    source = find_source(folder, sheet, images)
    named = named_tags(group or ())
    columns = columns_of(source.rows, source.files, [t for tags in named.values() for t in tags])
    if named:
        groups = named_groups(named, columns, known.groups)
    else:
        groups = groups_of(columns, known.groups)
    learned = {tag for one in groups.values() for tag in one.tags}
    typer.echo(f"{source.sheet} names its pictures in the column {columns.picture!r}")
    for name, one in groups.items():
        typer.echo(f"group {name}: {', '.join(one.tags)}")
    unnamed = {tag: "no --group names it" for tag in columns.tags if tag not in learned}
    if left := {**columns.others, **columns.rare, **unnamed}:
        typer.echo("kept, and not learned from:")
    for title, why in left.items():
        typer.echo(f"  {title}: {why}")
    if not yes and sys.stdin.isatty():
        typer.confirm("Is that right? (no: name groups with --group)", default=True, abort=True)
        if remote is None:
            asked = "Where shall DVC keep the data? A folder or an address; empty for nowhere yet"
            remote = typer.prompt(asked, default="", show_default=False).strip() or None
    done = start(settings.repo, source, columns, groups, remote)
    typer.echo(f"{done.pictures} labelled pictures are in data/ now")
    if done.left:
        left_there = count(done.left, "file")
        typer.echo(f"{left_there} without a row stayed in {source.files.folder}")
    for warning in done.warnings:
        typer.echo(f"warning: training would be refused: {warning}", err=True)
    if not done.pushed:
        typer.echo("the data is on this machine only: `dvc remote add --default storage ADDRESS`")
    typer.echo(
        "training starts from a commit: git add data.dvc params.yaml .dvc/config && "
        'git commit -m "Our shoes"'
    )
