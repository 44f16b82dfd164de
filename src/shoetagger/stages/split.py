"""Stage `split`: from the label sheet and the pictures to one table per group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..config import params as parameters
from ..images.decode import Limits, image_id, unreadable
from ..learning.dataset.labels import read_labels
from ..learning.dataset.sheet import find_sheet
from ..learning.dataset.split import SplitError, split_group
from ..learning.dataset.tables import write_split
from .command import run


def main(
    data: Annotated[Path, typer.Argument(help="folder with images/ and the label sheet")],
    out: Annotated[Path, typer.Argument(help="folder to write the tables to")],
) -> None:
    """Check the label sheet, then write images.csv and <group>.csv with side and fold."""
    params = parameters.load(Path("params.yaml"))
    limits = Limits.of(params.images)

    images = data / "images"
    labels = read_labels(
        find_sheet(data), images, params.tags, unreadable=lambda path: unreadable(path, limits)
    )
    ids = [image_id((images / name).read_bytes()) for name in labels.names]
    out.mkdir(parents=True, exist_ok=True)
    sentences, faults = list(labels.warnings), []
    for group, spec in params.groups.items():
        try:
            table, report = split_group(labels, ids, spec.tags, params.split)
        except SplitError as error:
            faults.append(f"group {group}: {error}")
            continue
        write_split(table, out / f"{group}.csv")
        # Equal for every group, and without labels, which `features` does not depend on.
        write_split(table[["image_name", "image_id"]], out / "images.csv")
        sentences += [f"group {group}: {sentence}" for sentence in report]
    if faults:
        raise SplitError("\n".join(faults))
    (out / "report.txt").write_text("".join(f"{s}\n" for s in sentences), encoding="utf-8")
    for sentence in sentences:
        typer.echo(sentence)
    typer.echo(f"{len(labels.names)} labelled pictures for {', '.join(params.groups)}")


if __name__ == "__main__":
    run(main)
