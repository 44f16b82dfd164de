"""What a collection changes in the data: rows of the label sheet, and pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ..config.params import Params
from ..config.places import Place
from ..images.decode import Limits, image_id, unreadable
from ..ingest.inbox import Inbox, ReadError
from ..ingest.places import inbox_at
from ..learning.dataset.image_files import ImageFiles
from ..learning.dataset.labels import (
    LABELLED_AT,
    LABELLED_BY,
    NAME_COLUMN,
    ORIGIN,
    Labels,
    read_labels,
)
from ..learning.dataset.sheet import find_sheet
from ..learning.dataset.sheet_rows import Row, remove_rows, spelled_names, write_rows
from ..store.rows import NOT_A_SHOE
from .doubts import doubts
from .gather import Checked, NoShoe

# The folder below images/ that collected pictures go to.
FOLDER = "collected"


@dataclass(frozen=True)
class Taken:
    """A checked picture that is in the sheet now, under `names` below images/.

    `is_new` tells that no row had it; `before` are the tags that its rows had.
    """

    picture: Checked
    names: tuple[str, ...]
    is_new: bool
    before: frozenset[str] = frozenset()

    def changes(self, tags: Sequence[str]) -> str | None:
        """Return in words how the picture's rows changed; None where they say what they said."""
        added = [tag for tag in tags if tag in self.picture.tags - self.before]
        gone = [tag for tag in tags if tag in self.before - self.picture.tags]
        if self.is_new or not (added or gone):
            return None
        parts = [f"+ {tag}" for tag in added] + [f"- {tag}" for tag in gone]
        return f"{self.names[0]}: {', '.join(parts)} ({self.picture.by})"


@dataclass(frozen=True)
class Removed:
    """A picture that is not a shoe, and whose rows, under `names`, are gone with its files."""

    picture: NoShoe
    names: tuple[str, ...]


@dataclass(frozen=True)
class SheetEdits:
    """What was changed: pictures taken, and pictures removed since they are no shoes.

    `left_out` are sentences about pictures that could not be taken, `doubts` about what a person
    should look at before anybody learns from it.
    """

    taken: tuple[Taken, ...]
    removed: tuple[Removed, ...]
    left_out: tuple[str, ...]
    changes: tuple[str, ...]
    doubts: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.taken or self.removed)

    @property
    def summary(self) -> str:
        """How many pictures: checked, new, and removed."""
        checked = f"{len(self.taken)} checked picture{'s' * (len(self.taken) != 1)}"
        new = sum(one.is_new for one in self.taken)
        removed = f", {len(self.removed)} removed" if self.removed else ""
        return f"{checked}, {new} of them new{removed}"

    def pictures(self, title: Callable[[str], str]) -> Iterator[tuple[str, str]]:
        """Yield image id and words for each picture: its tags, or that its row goes, and who says.

        `title` returns what people read for a tag.
        """
        for removed in self.removed:
            yield removed.picture.image_id, f"{NOT_A_SHOE}: removed ({removed.picture.by})"
        for taken in self.taken:
            picture = taken.picture
            tags = ", ".join(map(title, sorted(picture.tags))) or "no tag"
            yield picture.image_id, f"{tags} ({picture.by})"


def edit_sheet(
    data: Path, checked: Sequence[Checked], judged: Sequence[NoShoe], inbox: Place, params: Params
) -> SheetEdits:
    """Write what people said into a folder with images/ and the label sheet.

    The sheet is read as training will read it, before and after; raises LabelsError with its
    faults, or with what keeps a workbook from being edited. A picture whose bytes are in images/
    already is not copied. One that is not a shoe loses its rows and files, if it has any.
    """
    images = data / "images"
    sheet = find_sheet(data)
    before = _Before(sheet, images, params)
    taken, left_out = _take(checked, before, inbox_at(inbox), Limits.of(params.images).max_bytes)
    removed = [
        Removed(one, tuple(names)) for one in judged if (names := before.rows_of(one.image_id))
    ]
    remove_rows(sheet, [before.spelled[name] for one in removed for name in one.names])
    for one in removed:
        for name in before.files[one.picture.image_id]:
            (images / name).unlink()
    columns = (NAME_COLUMN, *params.tags, ORIGIN, LABELLED_BY, LABELLED_AT)
    if taken:
        rows = [row for one in taken for row in _rows(one, before, params.tags)]
        write_rows(sheet, rows, columns)
    new = [name for one in taken if one.is_new for name in one.names]
    after = _read(sheet, images, params, {images / name for name in new})
    return SheetEdits(
        tuple(taken),
        tuple(removed),
        tuple(left_out),
        tuple(words for one in taken if (words := one.changes(params.tags)) is not None),
        tuple(doubts(after, [name for one in taken for name in one.names], images, params)),
    )


class _Before:
    """The data before any change: its files and rows by image id."""

    def __init__(self, sheet: Path, images: Path, params: Params) -> None:
        labels = _read(sheet, images, params, set())
        self.images = images
        self.spelled = spelled_names(sheet, ImageFiles(images))
        self.files: dict[str, list[str]] = {}
        for path in sorted(path for path in images.rglob("*") if path.is_file()):
            name = path.relative_to(images).as_posix()
            self.files.setdefault(image_id(path.read_bytes()), []).append(name)
        self._tags = {
            name: frozenset(tag for tag, tick in zip(labels.tags, ticks, strict=True) if tick)
            for name, ticks in zip(labels.names, labels.matrix.tolist(), strict=True)
        }

    def rows_of(self, picture: str) -> list[str]:
        """Return the images, by their names on disk, of the rows that show a picture."""
        return [name for name in self.files.get(picture, ()) if name in self._tags]

    def tags_of(self, names: Sequence[str]) -> frozenset[str]:
        """Return the tags that the rows of some images have, all taken together."""
        return frozenset().union(*(self._tags[name] for name in names))


def _take(
    checked: Sequence[Checked], before: _Before, inbox: Inbox, max_bytes: int
) -> tuple[list[Taken], list[str]]:
    """Copy the pictures' bytes into the data, but for those that are there already.

    Also returns a sentence for each picture that could not be taken.
    """
    taken, left_out = [], []
    for picture in checked:
        if rows := before.rows_of(picture.image_id):
            taken.append(Taken(picture, tuple(rows), False, before.tags_of(rows)))
        elif files := before.files.get(picture.image_id):
            taken.append(Taken(picture, tuple(files[:1]), is_new=True))
        elif (data := _bytes_of(picture, inbox, max_bytes)) is not None:
            name = _name_of(picture)
            path = before.images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            taken.append(Taken(picture, (name,), is_new=True))
        else:
            left_out.append(
                f"{_shown(picture)} is gone from the inbox, or was replaced: its labels wait in "
                "the store"
            )
    return taken, left_out


def _bytes_of(picture: Checked, inbox: Inbox, max_bytes: int) -> bytes | None:
    """Return the bytes of the first file that still holds the picture."""
    for locator in picture.locators:
        try:
            data = inbox.read(locator, max_bytes).data
        except ReadError:
            continue
        if image_id(data) == picture.image_id:
            return data
    return None


def _name_of(picture: Checked) -> str:
    """Return a name that every system and spreadsheet takes, the same for the same picture."""
    path = PurePosixPath(unquote(picture.locators[0], errors="replace"))
    stem = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:60] or "picture"
    suffix = re.sub(r"[^a-z0-9.]", "", path.suffix.lower())[:6]
    return f"{FOLDER}/{stem}-{picture.image_id[:8]}{suffix}"


def _rows(one: Taken, before: _Before, tags: Sequence[str]) -> Iterator[Row]:
    """Yield the cells to write; a picture that has a row keeps its origin, and so its side."""
    picture = one.picture
    ticks = {tag: "1" if tag in picture.tags else "0" for tag in tags}
    said: Mapping[str, str] = ticks | {
        LABELLED_BY: picture.by,
        LABELLED_AT: f"{picture.at:%Y-%m-%d}",
    }
    for name in one.names:
        row = {NAME_COLUMN: before.spelled.get(name, name), **said}
        yield row | {ORIGIN: picture.origin} if one.is_new else row


def _read(sheet: Path, images: Path, params: Params, new: set[Path]) -> Labels:
    """Read the sheet as training will; of the pictures, only `new` ones are looked into."""
    limits = Limits.of(params.images)
    return read_labels(
        sheet,
        images,
        params.tags,
        unreadable=lambda path: unreadable(path, limits) if path in new else None,
    )


def _shown(picture: Checked) -> str:
    if not picture.locators:
        return f"picture {picture.image_id[:12]}"
    return PurePosixPath(unquote(picture.locators[0], errors="replace")).name
