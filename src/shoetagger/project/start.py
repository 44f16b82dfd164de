"""Makes this repo the project of somebody's pictures and spreadsheet."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..atomic import atomic_write
from ..config.params import Params
from ..config.params import read as read_params
from ..config.recipe import Group
from ..config.settings import redacted
from ..errors import ShoetaggerError
from ..images.decode import Limits, image_id, unreadable
from ..learning.dataset.image_files import ImageFiles
from ..learning.dataset.labels import NAME_COLUMN, Labels, read_labels
from ..learning.dataset.sheet import LabelsError, read_rows, text_of
from ..learning.dataset.sheet_rows import rename_column
from ..learning.dataset.split import SplitError, split_group
from ..pipeline.process import command_environment, run_dvc
from .columns import Columns
from .params_file import with_groups

SHEETS = (".csv", ".xlsx")
_REMOTE = "storage"


class StartError(ShoetaggerError):
    """Nothing was changed; the message says why, and what to do."""


@dataclass(frozen=True)
class Source:
    """Somebody's pictures and their sheet, with its rows."""

    sheet: Path
    files: ImageFiles
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Started:
    """What was put into the repo: `left` pictures of the source have no row and stay there.

    `warnings` are what training will refuse.
    """

    pictures: int
    left: int
    warnings: tuple[str, ...]
    pushed: bool


def find_source(folder: Path, sheet: Path | None, images: Path | None) -> Source:
    """Find the sheet and the pictures in a folder; raises StartError that names what there is."""
    if not folder.is_dir():
        raise StartError(f"{folder} is no folder: name the one with your pictures and their sheet")
    if sheet is None:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SHEETS)
        named = [path for path in found if path.stem.lower() == "labels"] or found
        if len(named) != 1:
            there = ", ".join(path.name for path in named) or "none"
            raise StartError(
                f"one .csv or .xlsx is expected in {folder}, and there is {there}: name it with "
                "--sheet"
            )
        sheet = named[0]
    if sheet.suffix.lower() not in SHEETS:
        raise StartError(f"{sheet} is no sheet that can be read: save it as .csv or .xlsx")
    if images is None:
        images = folder / "images" if (folder / "images").is_dir() else folder
    return Source(sheet, ImageFiles(images), read_rows(sheet))


def start(
    repo: Path, source: Source, columns: Columns, groups: dict[str, Group], remote: str | None
) -> Started:
    """Put the pictures that have a row, the sheet and the groups into the repo; version the data.

    Everything is checked before anything is replaced, and where something fails the repo is as
    before. What `data/` holds must be what data.dvc says: it goes, and DVC has it. With a `remote`,
    it becomes the default one, and the data is pushed there.
    """
    _refuse_unversioned(repo)
    path = repo / "params.yaml"
    text, params = with_groups(read_params(path), groups, path)
    beside = repo / ".dvc" / "tmp"
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix="init-") as work:
        staged = Path(work) / "data"
        labels = _stage(source, columns, params, staged)
        warnings = _what_training_refuses(labels, staged / "images", params)
        with _replaced(repo, staged, Path(work) / "before", text):
            if remote is not None:
                _dvc(repo, "remote", "add", "--default", "--force", _REMOTE, _url(remote))
            _dvc(repo, "add", "data")
            if remote is not None:
                _dvc(repo, "push", "data.dvc")
    rest = source.files.without(labels.names)
    left = sum(not name.lower().endswith(SHEETS) for name in rest)
    return Started(len(labels.names), left, tuple(warnings), pushed=remote is not None)


def _refuse_unversioned(repo: Path) -> None:
    if not (repo / "data").exists():
        return
    known = (repo / "data.dvc").is_file()
    if not known or run_dvc(repo, _environment(), "status", "--quiet", "data.dvc").code:
        raise StartError(
            f"{repo / 'data'} holds what data.dvc does not have, and it would be lost: `dvc add "
            "data` and commit data.dvc, or move it away"
        )


def _stage(source: Source, columns: Columns, params: Params, staged: Path) -> Labels:
    """Copy the sheet and the pictures that it names, and check them as training will."""
    images = staged / "images"
    images.mkdir(parents=True)
    sheet = staged / f"labels{source.sheet.suffix.lower()}"
    shutil.copyfile(source.sheet, sheet)
    place = [text_of(cell) for cell in source.rows[0]].index(columns.picture)
    for row in source.rows[1:]:
        name = source.files.resolve(row[place], "", []) if place < len(row) else None
        if name is not None and not (images / name).exists():
            (images / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.files.folder / name, images / name)
    limits = Limits.of(params.images)
    try:
        if columns.picture != NAME_COLUMN:
            rename_column(sheet, columns.picture, NAME_COLUMN)
        return read_labels(
            sheet, images, params.tags, unreadable=lambda path: unreadable(path, limits)
        )
    except LabelsError as error:
        faults = str(error).replace(str(images), str(source.files.folder))
        raise StartError(f"nothing was changed, for {source.sheet} has faults:\n{faults}") from None


def _what_training_refuses(labels: Labels, images: Path, params: Params) -> list[str]:
    ids = [image_id((images / name).read_bytes()) for name in labels.names]
    sentences = []
    for name, group in params.groups.items():
        try:
            split_group(labels, ids, group.tags, params.split)
        except SplitError as error:
            sentences.append(f"group {name}: {error}")
    return sentences


@contextmanager
def _replaced(repo: Path, staged: Path, before: Path, params: str) -> Iterator[None]:
    """Put the data and params.yaml in place; where the block fails, what was there comes back."""
    data, files = (
        repo / "data",
        [repo / name for name in ("params.yaml", "data.dvc", ".dvc/config")],
    )
    contents = {path: path.read_bytes() if path.is_file() else None for path in files}
    if data.exists():
        data.rename(before)
    try:
        staged.rename(data)
        with atomic_write(repo / "params.yaml") as file:
            file.write(params.encode())
        yield
    except BaseException:
        shutil.rmtree(data, ignore_errors=True)
        if before.exists():
            before.rename(data)
        for path, content in contents.items():
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
        raise


def _url(remote: str) -> str:
    """Return a remote as DVC takes it from anywhere: a folder by its absolute path."""
    return remote if "://" in remote else str(Path(remote).expanduser().absolute())


def _dvc(repo: Path, *arguments: str) -> None:
    # Not quiet: then DVC would not say why it failed.
    done = run_dvc(repo, _environment(), *arguments)
    if done.code:
        raise StartError(
            f"nothing was changed, for `dvc {redacted(' '.join(arguments))}` failed: mend what it "
            f"says, and repeat the command\n{done.tail}"
        )


def _environment() -> dict[str, str]:
    return command_environment(os.environ)
