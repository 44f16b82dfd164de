"""Reads a label sheet, CSV or Excel, as rows of cells."""

from __future__ import annotations

import csv
import difflib
import io
import unicodedata
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import ParseError

from ...errors import ShoetaggerError


class LabelsError(ShoetaggerError):
    """Everything that is wrong with a label sheet: one line per fault, also in `faults`."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Formula:
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


def read_rows(sheet: Path) -> list[list[object]]:
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
                value_row[position] = Formula(formula)
    return values


def text_of(cell: object) -> str:
    if cell is None:
        return ""
    return cell.text if isinstance(cell, Formula) else str(cell).strip()


def shown(cell: object) -> str:
    if isinstance(cell, Formula):
        return f"the formula {cell.text!r} without a computed value"
    return repr(cell if isinstance(cell, str) else str(cell))


def folded(title: str) -> str:
    return unicodedata.normalize("NFC", title).casefold()


def nearest(name: str, among: Iterable[str]) -> str | None:
    """Return the title that is most like a name, if one is like it."""
    by_folded = {folded(title): title for title in among}
    found = difflib.get_close_matches(folded(name), by_folded, n=1, cutoff=0.75)
    return by_folded[found[0]] if found else None
