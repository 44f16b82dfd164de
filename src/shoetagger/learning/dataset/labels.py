"""Reads the label sheet as names and a 0/1 matrix, and reports all its faults at once."""

from __future__ import annotations

import csv
import io
import os
import posixpath
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

import numpy as np

from ...errors import ShoetaggerError

NAME_COLUMN = "image_name"
_YES = frozenset({"1", "1.0", "true", "x"})
_NO = frozenset({"", "0", "0.0", "false"})


class LabelsError(ShoetaggerError):
    """Everything that is wrong with a label sheet: one line per fault, also in `faults`."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Labels:
    """Pictures and their ticked tags, in the order of the sheet's rows.

    `names` are paths relative to images/, spelled as on disk; `matrix` is (names, tags) uint8 of
    0 and 1; `warnings` name the files that have no row.
    """

    names: tuple[str, ...]
    tags: tuple[str, ...]
    matrix: np.ndarray
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Formula:
    """A cell of a workbook whose formula was never computed, so that its value is unknown."""

    text: str


def find_sheet(data: Path) -> Path:
    """Return the label sheet in `data`: labels.csv or labels.xlsx.

    Raises LabelsError, in one line, where there is none or both.
    """
    sheets = [sheet for sheet in (data / "labels.csv", data / "labels.xlsx") if sheet.is_file()]
    if not sheets:
        raise LabelsError(
            [
                f"no label sheet: neither labels.csv nor labels.xlsx is in {data}; "
                "run `dvc pull data`, or put your own there"
            ]
        )
    if len(sheets) == 2:
        raise LabelsError(
            [f"two label sheets: labels.csv and labels.xlsx are both in {data}; remove one"]
        )
    return sheets[0]


def read_labels(
    sheet: Path,
    images: Path,
    tags: Sequence[str],
    *,
    unreadable: Callable[[Path], str | None],
) -> Labels:
    """Read the sheet and check it against the files in `images` (recursively).

    Column order, letter case and surrounding spaces do not matter. `unreadable` returns why a
    picture cannot be read, or None. Rows are numbered as in the spreadsheet: the header is row 1.
    Raises LabelsError with all faults.
    """
    rows = _read_rows(sheet)
    faults: list[str] = []
    columns = _columns(sheet.name, rows, tags, faults)
    if NAME_COLUMN not in columns:
        raise LabelsError(faults)
    if not images.is_dir():
        raise LabelsError(
            [*faults, f"{images} is missing: run `dvc pull data`, or put the pictures there"]
        )

    files = _Files(images)
    names: list[str] = []
    ticks: list[list[int]] = []
    first_row: dict[str, int] = {}
    for number, row in enumerate(rows[1:], start=2):
        if all(_text(cell) == "" for cell in row):
            continue
        where = f"{sheet.name} row {number}"
        faults += [
            f"{where}: the value {_shown(cell)} stands under no column name: name or clear it"
            for position, cell in enumerate(row)
            if _text(cell) != "" and (position >= len(rows[0]) or _text(rows[0][position]) == "")
        ]
        ticks.append([])
        for tag in tags:
            if tag in columns:
                cell = row[columns[tag]] if columns[tag] < len(row) else None
                ticks[-1].append(_tick(cell, f"{where}, column {tag!r}", faults))
        cell = row[columns[NAME_COLUMN]] if columns[NAME_COLUMN] < len(row) else None
        where += f", column {NAME_COLUMN!r}"
        name = files.resolve(cell, where, faults)
        key = name or unicodedata.normalize("NFC", _text(cell))
        if key and key in first_row:
            faults.append(f"{where}: {key!r} stands in row {first_row[key]} already: keep one row")
            continue
        first_row[key] = number
        if name is not None:
            names.append(name)
            reason = unreadable(images / name)
            if reason is not None:
                faults.append(f"{where}: {name!r} can't be read: {reason}")
    if not ticks:
        faults.append(f"{sheet.name} has no row below its header: add a row for each picture")
    if faults:
        raise LabelsError(faults)
    return Labels(
        names=tuple(names),
        tags=tuple(tags),
        matrix=np.array(ticks, dtype=np.uint8).reshape(len(names), len(tags)),
        warnings=tuple(
            f"{name!r} in {images} has no row in {sheet.name}: it is not learned from"
            for name in files.without(names)
        ),
    )


def _read_rows(sheet: Path) -> list[list[object]]:
    """Return all cells of the sheet, row by row, empty rows included."""
    try:
        if sheet.suffix.lower() == ".xlsx":
            return _read_xlsx(sheet)
        return _read_csv(sheet)
    except FileNotFoundError:
        raise LabelsError(
            [f"{sheet} is missing: run `dvc pull data`, or put your own label sheet there"]
        ) from None
    except OSError as error:
        raise LabelsError([f"{sheet} can't be read: {error.strerror or error}"]) from None


def _read_csv(sheet: Path) -> list[list[object]]:
    try:
        text = sheet.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = error.object[: error.start].count(b"\n") + 1
        raise LabelsError(
            [
                f"{sheet.name} row {row}: not UTF-8 text; save it as 'CSV UTF-8' or as .xlsx, "
                "or letters beyond A-Z would be garbled"
            ]
        ) from None
    header = text.split("\n", 1)[0]
    # A spreadsheet set to a language with a decimal comma writes semicolons.
    delimiter = max(",;\t", key=header.count)
    rows: list[list[object]] = []
    try:
        # Not strict, one stray quote would swallow all rows after it.
        for cells in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True):
            rows.append(list(cells))
    except csv.Error as error:
        raise LabelsError(
            [
                f"{sheet.name} row {len(rows) + 1}: broken quoting ({error}); a cell that starts "
                'with " must end with ", and a " within it is written twice'
            ]
        ) from None
    return rows


def _read_xlsx(sheet: Path) -> list[list[object]]:
    """Read the first worksheet."""
    from openpyxl import load_workbook  # slow to import, and most sheets are CSV

    grids: list[list[list[object]]] = []
    try:
        for data_only in (True, False):
            book = load_workbook(sheet, read_only=True, data_only=data_only)
            try:
                worksheet = book.worksheets[0]
                worksheet.reset_dimensions()  # some programs write wrong ones
                grids.append([list(row) for row in worksheet.iter_rows(values_only=True)])
            finally:
                book.close()
    except (zipfile.BadZipFile, ParseError, KeyError, ValueError, IndexError) as error:
        raise LabelsError(
            [f"{sheet.name} is not an Excel workbook that can be read ({error}); save it again"]
        ) from None
    values, formulas = grids
    for value_row, formula_row in zip(values, formulas, strict=True):
        for position, formula in enumerate(formula_row):
            if value_row[position] is None and isinstance(formula, str) and formula.startswith("="):
                value_row[position] = _Formula(formula)
    return values


def _columns(
    sheet: str, rows: Sequence[Sequence[object]], tags: Sequence[str], faults: list[str]
) -> Mapping[str, int]:
    """Return the position of each known column; adds what is wrong with the header to `faults`."""
    if not rows or all(_text(cell) == "" for cell in rows[0]):
        faults.append(f"{sheet} row 1: no header; it names the columns: {NAME_COLUMN}, then tags")
        return {}
    expected = (NAME_COLUMN, *tags)
    by_folded = {_folded(name): name for name in reversed(expected)}
    columns: dict[str, int] = {}
    for position, cell in enumerate(rows[0]):
        title = _text(cell)
        if title == "":
            continue
        name = title if title in expected else by_folded.get(_folded(title))
        if name is None:
            faults.append(
                f"{sheet} row 1: unknown column {title!r}: it is no tag of params.yaml; "
                "correct its name, or add it to a group there"
            )
        elif name in columns:
            faults.append(f"{sheet} row 1: column {name!r} stands there twice: remove one")
        else:
            columns[name] = position
    faults += [
        f"{sheet} row 1: no column {name!r}: add it" for name in expected if name not in columns
    ]
    return columns


def _tick(cell: object, where: str, faults: list[str]) -> int:
    text = _text(cell).lower()
    if text in _YES:
        return 1
    if text not in _NO:
        faults.append(f"{where}: {_shown(cell)} is neither 1 (or true, x) nor 0 (or false, empty)")
    return 0


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return cell.text if isinstance(cell, _Formula) else str(cell).strip()


def _shown(cell: object) -> str:
    if isinstance(cell, _Formula):
        return f"the formula {cell.text!r} without a computed value"
    return repr(cell if isinstance(cell, str) else str(cell))


def _folded(title: str) -> str:
    return unicodedata.normalize("NFC", title).casefold()


class _Files:
    """The regular files below images/, by their names in any Unicode normal form."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._names: set[str] = set()
        self._by_form: dict[str, list[str]] = {}
        self._by_case: dict[str, str] = {}
        for folder, _, leaves in os.walk(images):
            for leaf in leaves:
                path = Path(folder, leaf)
                if path.is_file():
                    name = path.relative_to(images).as_posix()
                    self._names.add(name)
                    self._by_form.setdefault(unicodedata.normalize("NFC", name), []).append(name)
                    self._by_case[_folded(name)] = name

    def resolve(self, cell: object, where: str, faults: list[str]) -> str | None:
        """Return the file's name as on disk; None, and a new fault, if there is no such file."""
        if _text(cell) == "":
            faults.append(f"{where}: '' is no file name: name the picture, or clear the row")
            return None
        if isinstance(cell, _Formula):
            faults.append(f"{where}: {_shown(cell)} names no file")
            return None
        for spelling in (str(cell), _text(cell)):  # a name may really start with a space
            name = posixpath.normpath(spelling)
            if name.startswith(("/", "../")) or name == "..":
                faults.append(f"{where}: {spelling!r} leaves {self._images}: name a file in it")
                return None
            if name in self._names:
                return name
        same = self._by_form.get(unicodedata.normalize("NFC", name), [])
        if len(same) == 1:
            return same[0]
        if same:
            faults.append(
                f"{where}: {spelling!r} could be any of {len(same)} files in {self._images} that "
                "differ only in how their accents are encoded: rename all but one"
            )
            return None
        near = self._by_case.get(_folded(name))
        hint = f"; there is {near!r}" if near else "; add the picture, or remove the row"
        faults.append(f"{where}: {spelling!r} is no file in {self._images}{hint}")
        return None

    def without(self, names: Iterable[str]) -> list[str]:
        """Return the files that are not among `names`, sorted; hidden ones are left out."""
        rest = self._names.difference(names)
        return sorted(name for name in rest if not posixpath.basename(name).startswith("."))
