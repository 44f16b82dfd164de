"""Commands about the label sheet: validate, audit, collect."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import params as parameters
from ..config.settings import Settings

if TYPE_CHECKING:
    from ..collection.sheet_edits import SheetEdits


def validate(
    data: Annotated[
        Path | None, typer.Argument(help="Folder with images/ and the label sheet.")
    ] = None,
) -> None:
    """Check the label sheet and the pictures it names; all faults in one report."""
    from ..images.decode import Limits, unreadable
    from ..learning.audit.exclusive import check_exclusive
    from ..learning.dataset.labels import read_labels
    from ..learning.dataset.sheet import find_sheet

    settings = Settings.from_environment()
    options = parameters.load(settings.params_file)
    folder = data or settings.repo / "data"
    limits = Limits.of(options.images)
    labels = read_labels(
        find_sheet(folder),
        folder / "images",
        options.tags,
        unreadable=lambda path: unreadable(path, limits),
    )
    for warning in labels.warnings:
        typer.echo(f"warning: {warning}", err=True)
    check_exclusive(options)
    typer.echo(f"{len(labels.names)} labelled pictures, {len(labels.tags)} tags: no faults")
    if labels.extra:
        typer.echo(f"kept, and not learned from: {', '.join(labels.extra)}")


def audit(
    out: Annotated[
        Path | None, typer.Argument(help="Folder to write to; by default the desk's.")
    ] = None,
) -> None:
    """List the cells of the label sheet to look at again, as a table and a page of pictures."""
    from ..atomic import atomic_write
    from ..learning.audit import findings as auditing
    from ..learning.audit.finding import PICTURES, TABLE, as_lines, picture_file
    from ..learning.audit.page import audit_page, audit_sections
    from ..publishing.csv_lines import csv_line, defused
    from ..publishing.pages import style

    settings = Settings.from_environment()
    options, repo = parameters.load(settings.params_file), settings.repo
    images = repo / "data" / "images"
    split, crossval, predictions = (repo / name for name in ("split", "crossval", "predictions"))
    notes = _notes(repo / "data", options.tags)
    found = [
        replace(finding, notes=notes.get(finding.image_name, ""))
        for finding in auditing.findings(options, split, crossval, predictions, images)
    ]
    sections = audit_sections(found, options.audit.shown)
    shown = [finding for section in sections for finding in section.findings]
    thumbnails = auditing.thumbnails(shown, images, options)
    out = out or settings.audit
    shutil.rmtree(out / PICTURES, ignore_errors=True)
    (out / PICTURES).mkdir(parents=True)
    for name, content in {
        **{f"{PICTURES}/{picture_file(defused(n))}": jpeg for n, jpeg in thumbnails.items()},
        TABLE: b"".join(map(csv_line, as_lines(found))),
        "audit.html": audit_page(sections, thumbnails).encode(),
        "style.css": style(options.groups).encode(),
    }.items():
        with atomic_write(out / name) as file:
            file.write(content)
    kinds = Counter(finding.kind for finding in found)
    typer.echo(", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "no findings")
    typer.echo(f"written to {out / 'audit.html'} and audit.csv beside it")


def _notes(data: Path, tags: Sequence[str]) -> dict[str, str]:
    """Return what further columns of the sheet say of each picture: an article number, a price."""
    from ..learning.dataset.labels import read_labels
    from ..learning.dataset.sheet import LabelsError, find_sheet

    try:
        labels = read_labels(find_sheet(data), data / "images", tags, unreadable=lambda _: None)
    except LabelsError:  # edited since the stages ran: `validate` says what is wrong
        return {}
    return {
        name: " · ".join(f"{title}: {cell}" for title, cell in cells.items())
        for name, cells in labels.notes().items()
    }


def collect(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be collected, and change nothing.")
    ] = False,
) -> None:
    """Commit what people checked to the label sheet, and push the commit to git's remote.

    It is on the branch `labels.branch`, and goes to `origin`, else to the first remote that there
    is. The data goes to DVC's remote.
    """
    from ..collection.collect import collect as run
    from ..collection.collect import preview
    from ..ops.installation import opened
    from ..rendering import count

    with opened(Settings.from_environment()) as here:
        branch = here.params.labels.branch
        if dry_run:
            found = preview(here.settings, here.params, here.store)
            edits = found.edits if found else None
        else:
            collected = run(here.settings, here.params, here.store)
    if dry_run:
        _print_preview(edits, branch, here.settings.repo)
        return
    for sentence in (*collected.left_out, *collected.doubts, *collected.warnings):
        typer.echo(f"warning: {sentence}", err=True)
    if collected.commit is None:
        typer.echo(_NOTHING)
        return
    for sentence in collected.changes:
        typer.echo(f"changed: {sentence}")
    removed = f", {collected.removed} removed from the sheet" if collected.removed else ""
    pushed = f", pushed to {collected.pushed_to}" if collected.pushed_to else ""
    typer.echo(
        f"{count(collected.pictures, 'picture')} collected{removed}: commit "
        f"{collected.commit[:12]} on {branch}{pushed}; `git merge {branch}` and `dvc checkout "
        "data.dvc` bring it into your workspace"
    )


_NOTHING = "nothing to collect: no picture was checked in all groups since the last time"


def _print_preview(edits: SheetEdits | None, branch: str, repo: Path) -> None:
    from ..pipeline.commits import git_remote

    if edits is None or not (edits or edits.left_out):
        typer.echo(_NOTHING)
        return
    for taken in edits.taken:
        picture = taken.picture
        tags = " ".join(sorted(picture.tags)) or "no tag"
        typer.echo(f"{', '.join(taken.names)}  {tags}  ({picture.by}, {picture.origin})")
    for removed in edits.removed:
        names = ", ".join(removed.names)
        typer.echo(f"{names}  removed, since it is not a shoe  ({removed.picture.by})")
    for sentence in edits.changes:
        typer.echo(f"changed: {sentence}")
    for sentence in (*edits.left_out, *edits.doubts):
        typer.echo(f"warning: {sentence}", err=True)
    remote = git_remote(repo)
    pushed = f", pushed to {remote}" if remote else ""
    typer.echo(f"would be a commit on {branch}{pushed}: {edits.summary}")
