"""`shoetagger labels import` and `export`: the label sheet and the files of other tools."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..config import params as parameters
from ..config.settings import Settings
from ..errors import ShoetaggerError
from .file_format import format_for

app = typer.Typer(
    help="Bring labels from other tools into the label sheet, and out of it.",
    no_args_is_help=True,
)


class Format(StrEnum):
    CSV = "csv"
    LABEL_STUDIO = "label-studio"
    COCO = "coco"
    CVAT = "cvat"


_SUFFIXES = {
    Format.CSV: ".csv",
    Format.LABEL_STUDIO: ".json",
    Format.COCO: ".json",
    Format.CVAT: ".xml",
}


@app.command("import")
def import_(
    file: Annotated[
        Path, typer.Argument(help="Label Studio's JSON, COCO's JSON, CVAT's XML, or CSV.")
    ],
    rename: Annotated[
        list[str] | None, typer.Option(help="LABEL=TAG: which tag a label is; may be repeated.")
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="A label to leave out; may be repeated.")
    ] = None,
) -> None:
    """Write the labels of a file into the label sheet: all of them, or none."""
    from ..collection.imports import import_labels

    settings = Settings.from_environment()
    params = parameters.load(settings.params_file)
    done = import_labels(
        file, settings.repo / "data", params, renamed=_renamed(rename or ()), ignored=ignore or ()
    )
    typer.echo(f"{done.new} new rows, {done.changed} changed, {done.same} as they were")
    if done.without:
        typer.echo(f"{done.without} pictures of {file.name} have no answer: they were left alone")
    if not done.new and not done.changed:
        return
    sheet = done.sheet.relative_to(settings.repo)
    if (settings.repo / "data.dvc").is_file():
        typer.echo(
            f"{sheet} is no longer what data.dvc says: `dvc add data`, `dvc push data.dvc` and a "
            "commit of data.dvc make it the one that training starts from"
        )
    else:
        typer.echo("data/ is not versioned yet: `dvc add data`, and commit data.dvc")


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="File to write.")],
    format: Annotated[
        Format | None, typer.Option(help="What to write; by default what OUT's suffix says.")
    ] = None,
    images_url: Annotated[
        str | None,
        typer.Option(help="What Label Studio's addresses of pictures begin with."),
    ] = None,
) -> None:
    """Write the label sheet to a file for another tool."""
    from ..collection.exports import export_labels
    from ..exchange.label_studio import LOCAL_FILES

    fmt = format_for(out, format, _SUFFIXES)
    if images_url is not None and fmt is not Format.LABEL_STUDIO:
        raise ShoetaggerError("--images-url needs --format label-studio")
    settings = Settings.from_environment()
    params = parameters.load(settings.params_file)
    root = LOCAL_FILES if images_url is None else images_url
    written = export_labels(out, settings.repo / "data", params, fmt.value, root=root)
    typer.echo(f"written to {' and '.join(map(str, written))}")


def _renamed(pairs: list[str] | tuple[str, ...]) -> dict[str, str]:
    renamed = {}
    for pair in pairs:
        label, equals, tag = pair.rpartition("=")
        if not (label and equals and tag):
            raise ShoetaggerError(f"--rename {pair!r}: write LABEL=TAG, such as 'Stiefel=boot'")
        renamed[label] = tag
    return renamed
