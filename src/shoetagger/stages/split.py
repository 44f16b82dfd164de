"""Stage `split`: from the label sheet and the pictures to one table per group."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import typer

from ..config import params as parameters
from ..config.recipe import Images
from ..images.decode import Limits, image_id, unreadable
from ..images.views import Transform
from ..learning.dataset.labels import read_labels
from ..learning.dataset.sheet import find_sheet
from ..learning.dataset.split import SplitError, split_group
from ..learning.dataset.tables import write_split
from .command import run


def main(
    data: Annotated[Path, typer.Argument(help="folder with images/ and the label sheet")],
    out: Annotated[Path, typer.Argument(help="folder to write the tables to")],
) -> None:
    """Check the label sheet, then write images.csv and <group>.csv with side and fold.

    Writes weights.txt as well: the digests of the files that `train.weights` and `images.detector`
    name, or `none`, for the stages that read them.
    """
    params = parameters.load(Path("params.yaml"))
    limits = Limits.of(params.images)

    images = data / "images"
    labels = read_labels(
        find_sheet(data), images, params.tags, unreadable=lambda path: unreadable(path, limits)
    )
    ids = [image_id((images / name).read_bytes()) for name in labels.names]
    weights = _digest_of(params.train.weights) + _digest_of_detector(params.images)
    out.mkdir(parents=True, exist_ok=True)
    # Of an empty file, DVC warns once per stage that depends on it.
    (out / "weights.txt").write_text(weights or "none\n", encoding="utf-8")
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


def _digest_of_detector(images: Images) -> str:
    """Return the SHA-256 of the shoe detector and a line end, if there is one; it is tried out."""
    detector = Transform.of(images).detector
    if detector is None:
        return ""
    detector.check()
    return f"{detector.sha256}\n"


def _digest_of(weights: str) -> str:
    """Return the SHA-256 of a file of pretrained weights and a line end; of a word, nothing."""
    path = Path(weights)
    if not path.suffix:
        return ""
    try:
        with path.open("rb") as file:
            return f"{hashlib.file_digest(file, 'sha256').hexdigest()}\n"
    except OSError as error:
        raise SplitError(
            f"train.weights: {path} cannot be read ({error.strerror}): put the file there and run "
            "`dvc add data`, or name imagenet, pretrained or none"
        ) from None


if __name__ == "__main__":
    run(main)
