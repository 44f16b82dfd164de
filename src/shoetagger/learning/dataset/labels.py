"""Reads the label sheet as names and a 0/1 matrix, and reports all its faults at once."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .image_files import ImageFiles
from .sheet import LabelsError, folded, nearest, read_rows, shown, text_of

NAME_COLUMN = "image_name"

# Where a row comes from: columns that a collection of corrections fills, and that may be missing.
ORIGIN, LABELLED_BY, LABELLED_AT = "origin", "labelled_by", "labelled_at"
RESERVED = (ORIGIN, LABELLED_BY, LABELLED_AT)

# Origins of pictures that somebody or something chose: they are no sample of what arrives, so that
# no model may be measured with them. `random` ones, and rows without an origin, may be on any side.
CHOSEN = frozenset({"browse", "queue"})
_YES = frozenset({"1", "1.0", "true", "x"})
_NO = frozenset({"", "0", "0.0", "false"})


@dataclass(frozen=True)
class Labels:
    """Pictures and their ticked tags, in the order of the sheet's rows.

    `names` are paths relative to images/, spelled as on disk; `matrix` is (names, tags) uint8 of
    0 and 1; `warnings` name the files that have no row, and columns that may be misspelt tags;
    `origins` says for each name where its row comes from ("" where the sheet does not say).
    `extra` has the sheet's other columns, such as an article number: title to cells, of each name.
    """

    names: tuple[str, ...]
    tags: tuple[str, ...]
    matrix: np.ndarray
    warnings: tuple[str, ...]
    origins: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def notes(self) -> dict[str, dict[str, str]]:
        """Return by name what further columns say of a picture: title to cell, if it has one."""
        return {
            name: {title: cells[row] for title, cells in self.extra.items() if cells[row]}
            for row, name in enumerate(self.names)
        }


def read_labels(
    sheet: Path,
    images: Path,
    tags: Sequence[str],
    *,
    unreadable: Callable[[Path], str | None],
) -> Labels:
    """Read the sheet and check it against the files in `images` (recursively).

    Column order, letter case and surrounding spaces do not matter. A column that is neither a tag
    nor known otherwise is kept in `extra`, and nothing is learned from it. `unreadable` returns why
    a picture cannot be read, or None. Rows are numbered as in the spreadsheet: the header is row 1.
    Raises LabelsError with all faults.
    """
    rows = read_rows(sheet)
    faults: list[str] = []
    columns, others = _columns(sheet.name, rows, tags, faults)
    if NAME_COLUMN not in columns:
        raise LabelsError(faults)
    if not images.is_dir():
        raise LabelsError(
            [*faults, f"{images} is missing: run `dvc pull data`, or put the pictures there"]
        )

    files = ImageFiles(images)
    named = _NamedImages(files, unreadable)
    ticks: list[list[int]] = []
    origins: list[str] = []
    extra: dict[str, list[str]] = {title: [] for title in others}
    for number, row in enumerate(rows[1:], start=2):
        if _is_blank(row):
            continue
        where = f"{sheet.name} row {number}"
        faults += _without_column(row, rows[0], where)
        ticks.append(_ticks(row, tags, columns, where, faults))
        named.add(_cell(row, columns[NAME_COLUMN]), number, where, faults)
        origins.append(_origin(row, columns, where, faults))
        for title, position in others.items():
            extra[title].append(text_of(_cell(row, position)))
    if not ticks:
        faults.append(f"{sheet.name} has no row below its header: add a row for each picture")
    if faults:
        raise LabelsError(faults)
    return Labels(
        names=tuple(named.names),
        tags=tuple(tags),
        matrix=np.array(ticks, dtype=np.uint8).reshape(len(named.names), len(tags)),
        warnings=(
            *(
                f"{name!r} in {images} has no row in {sheet.name}: it is not learned from"
                for name in files.without(named.names)
            ),
            *_like_tags(sheet.name, others, tags),
        ),
        origins=tuple(origins),
        extra={title: tuple(cells) for title, cells in extra.items()},
    )


def _columns(
    sheet: str, rows: Sequence[Sequence[object]], tags: Sequence[str], faults: list[str]
) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return the positions of the known columns, and those of the others, by their titles.

    Adds what is wrong with the header to `faults`.
    """
    if not rows or _is_blank(rows[0]):
        faults.append(f"{sheet} row 1: no header; it names the columns: {NAME_COLUMN}, then tags")
        return {}, {}
    expected = (NAME_COLUMN, *tags)
    known = (*expected, *(name for name in RESERVED if name not in expected))
    by_folded = {folded(name): name for name in reversed(known)}
    columns: dict[str, int] = {}
    others: dict[str, int] = {}
    for position, cell in enumerate(rows[0]):
        title = text_of(cell)
        if title == "":
            continue
        name = title if title in known else by_folded.get(folded(title))
        if name in columns or title in others:
            faults.append(f"{sheet} row 1: column {name or title!r} is there twice: remove one")
        elif name is None:
            others[title] = position
        else:
            columns[name] = position
    for name in expected:
        if name not in columns:
            near = nearest(name, others)
            hint = f"correct {near!r} to {name!r}, or add it" if near else "add it"
            faults.append(f"{sheet} row 1: no column {name!r}: {hint}")
    return columns, others


def _like_tags(sheet: str, others: Iterable[str], tags: Sequence[str]) -> Iterator[str]:
    """Yield a warning for each further column whose title is nearly a tag."""
    for title in others:
        if near := nearest(title, tags):
            yield (
                f"{sheet} row 1: {title!r} is no tag of params.yaml, so nothing is learned from "
                f"that column; the tag {near!r} has one of its own"
            )


def _is_blank(row: Sequence[object]) -> bool:
    return all(text_of(cell) == "" for cell in row)


def _cell(row: Sequence[object], column: int) -> object:
    """Return a cell of a row, which may be shorter than the header."""
    return row[column] if column < len(row) else None


def _without_column(row: Sequence[object], header: Sequence[object], where: str) -> Iterator[str]:
    """Yield a fault for each value of a row that has no column name above it."""
    for position, cell in enumerate(row):
        if text_of(cell) != "" and text_of(_cell(header, position)) == "":
            yield f"{where}: the value {shown(cell)} is under no column name: name or clear it"


def _ticks(
    row: Sequence[object],
    tags: Sequence[str],
    columns: Mapping[str, int],
    where: str,
    faults: list[str],
) -> list[int]:
    """Return 0 or 1 per tag that has a column; adds a fault for each cell that is neither."""
    return [
        _tick(_cell(row, columns[tag]), f"{where}, column {tag!r}", faults)
        for tag in tags
        if tag in columns
    ]


def ticked(cell: object) -> bool | None:
    """Return what a cell of a tag says; None where it is no answer."""
    text = text_of(cell).lower()
    return text in _YES if text in _YES | _NO else None


def no_tick(cell: object) -> str:
    """Return the fault of a cell of which `ticked` is None."""
    return f"{shown(cell)} is neither 1 (or true, x) nor 0 (or false, empty)"


def _tick(cell: object, where: str, faults: list[str]) -> int:
    tick = ticked(cell)
    if tick is None:
        faults.append(f"{where}: {no_tick(cell)}")
    return int(bool(tick))


def _origin(
    row: Sequence[object], columns: Mapping[str, int], where: str, faults: list[str]
) -> str:
    """Return the origin of a row, "" where it has none; adds a fault for one that is unknown."""
    if ORIGIN not in columns:
        return ""
    text = text_of(_cell(row, columns[ORIGIN])).lower()
    if text not in {"", "random", *CHOSEN}:
        faults.append(
            f"{where}, column {ORIGIN!r}: {text!r} is no origin: random, queue, browse, or empty"
        )
    return text


class _NamedImages:
    """The images that the rows of a sheet name, each in one row; `names` are as on disk."""

    def __init__(self, files: ImageFiles, unreadable: Callable[[Path], str | None]) -> None:
        self.names: list[str] = []
        self._files, self._unreadable = files, unreadable
        self._first_row: dict[str, int] = {}

    def add(self, cell: object, number: int, where: str, faults: list[str]) -> None:
        """Add the image that row `number` names; adds what is wrong with it to `faults`."""
        where += f", column {NAME_COLUMN!r}"
        name = self._files.resolve(cell, where, faults)
        key = name or unicodedata.normalize("NFC", text_of(cell))
        if key and key in self._first_row:
            row = self._first_row[key]
            faults.append(f"{where}: {key!r} is in row {row} already: keep one row")
            return
        self._first_row[key] = number
        if name is None:
            return
        self.names.append(name)
        reason = self._unreadable(self._files.folder / name)
        if reason is not None:
            faults.append(f"{where}: {name!r} can't be read: {reason}")
