"""Rows written into a label sheet, CSV or Excel, that leave every other cell as it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ...atomic import atomic_write
from .image_files import ImageFiles
from .labels import NAME_COLUMN
from .sheet import LabelsError, folded, read_rows, text_of

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

# column -> text, of one row
Row = Mapping[str, str]


def write_rows(sheet: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Write rows into a sheet: over the row of the same image, else below the last one.

    `columns` that the sheet lacks are added at its right. The sheet is replaced by a new file, for
    DVC may keep the old one's bytes under another name. Raises LabelsError where a workbook cannot
    take the rows, and leaves it as it was.
    """
    rows_before = read_rows(sheet)
    write = _write_xlsx if sheet.suffix.lower() == ".xlsx" else _write_csv
    positions = _positions(rows_before[0], columns)
    places = _places(rows_before, positions[NAME_COLUMN])
    write(sheet, rows, positions, places, len(rows_before))


def remove_rows(sheet: Path, names: Collection[str]) -> None:
    """Remove the rows of images, as the sheet spells them; in a workbook they become empty.

    No other row of a workbook moves: formulas elsewhere in it name cells by their place. Without
    names, the sheet is not touched.
    """
    if not names:
        return
    rows = read_rows(sheet)
    places = _places(rows, _positions(rows[0], [NAME_COLUMN])[NAME_COLUMN])
    gone = {places[name] for name in names}
    if sheet.suffix.lower() == ".xlsx":
        with _edited(sheet) as worksheet:
            for place in gone:
                for column in range(1, worksheet.max_column + 1):
                    _set(sheet, worksheet, place + 1, column, None)
        return
    mark, _, _, records = _parsed(sheet)
    _put(sheet, mark, [record for place, record in enumerate(records) if place not in gone])


def spelled_names(sheet: Path, images: ImageFiles) -> dict[str, str]:
    """Return how a sheet spells the images of its rows, which may be otherwise than on disk."""
    rows = read_rows(sheet)
    column = _positions(rows[0], [NAME_COLUMN])[NAME_COLUMN]
    return {
        name: text_of(row[column])
        for row in rows[1:]
        if column < len(row)
        and text_of(row[column])
        and (name := images.resolve(row[column], "", []))
    }


def rename_column(sheet: Path, old: str, new: str) -> None:
    """Give a column of a sheet another title."""
    position = [text_of(cell) for cell in read_rows(sheet)[0]].index(old)
    if sheet.suffix.lower() == ".xlsx":
        with _edited(sheet) as worksheet:
            _set(sheet, worksheet, 1, position + 1, new)
        return
    mark, delimiter, ending, records = _parsed(sheet)
    cells = list(records[0][1])
    cells[position] = new
    records[0] = _line(cells, delimiter, ending), cells
    _put(sheet, mark, records)


def _positions(header: Sequence[object], columns: Sequence[str]) -> dict[str, int]:
    """Return the position of each column, those that the sheet lacks behind its last."""
    titles = [text_of(cell) for cell in header]
    by_folded = {folded(title): position for position, title in enumerate(titles) if title}
    end = len(titles)
    found: dict[str, int] = {}
    for column in columns:
        position = titles.index(column) if column in titles else by_folded.get(folded(column))
        if position is None:
            position, end = end, end + 1
        found[column] = position
    return found


def _places(rows: Sequence[Sequence[object]], column: int) -> dict[str, int]:
    """Return the row number, from 0, of each image that the sheet names."""
    return {
        text_of(row[column]): number
        for number, row in enumerate(rows)
        if number and column < len(row) and text_of(row[column])
    }


def _write_csv(
    sheet: Path,
    rows: Sequence[Row],
    positions: Mapping[str, int],
    places: Mapping[str, int],
    _: int,
) -> None:
    mark, delimiter, ending, records = _parsed(sheet)

    def line(cells: Sequence[str]) -> str:
        return _line(cells, delimiter, ending)

    new_columns = [name for name, at in positions.items() if at >= len(records[0][1])]
    if new_columns:
        records[0] = line([*records[0][1], *new_columns]), records[0][1]
    for row in rows:
        place = places.get(row[NAME_COLUMN])
        cells = [] if place is None else list(records[place][1])
        cells += [""] * (max(positions.values()) + 1 - len(cells))
        for column, value in row.items():
            cells[positions[column]] = value
        if place is None:
            if not records[-1][0].endswith("\n"):
                records[-1] = records[-1][0] + ending, records[-1][1]
            records.append((line(cells), cells))
        else:
            records[place] = line(cells), cells
    _put(sheet, mark, records)


def _parsed(sheet: Path) -> tuple[str, str, str, list[tuple[str, list[str]]]]:
    """Return a CSV's byte order mark, delimiter and line ending, and its records."""
    data = sheet.read_bytes()
    text = data.decode("utf-8-sig")
    mark = "\ufeff" if data.startswith(b"\xef\xbb\xbf") else ""
    delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
    return mark, delimiter, "\r\n" if "\r\n" in text else "\n", _records(text, delimiter)


def _line(cells: Sequence[str], delimiter: str, ending: str) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator=ending).writerow(cells)
    return out.getvalue()


def _put(sheet: Path, mark: str, records: Sequence[tuple[str, list[str]]]) -> None:
    with atomic_write(sheet) as file:
        file.write((mark + "".join(written for written, _ in records)).encode())


def _records(text: str, delimiter: str) -> list[tuple[str, list[str]]]:
    """Return the records of a CSV: each with the very text that it was read from."""
    lines = io.StringIO(text, newline="").readlines()
    reader = csv.reader(iter(lines), delimiter=delimiter, strict=True)
    records, begin = [], 0
    for cells in reader:
        records.append(("".join(lines[begin : reader.line_num]), cells))
        begin = reader.line_num
    return records


def _write_xlsx(
    sheet: Path,
    rows: Sequence[Row],
    positions: Mapping[str, int],
    places: Mapping[str, int],
    length: int,
) -> None:
    with _edited(sheet) as worksheet:
        for column, position in positions.items():
            if worksheet.cell(1, position + 1).value is None:
                _set(sheet, worksheet, 1, position + 1, column)
        end = length
        for row in rows:
            place = places.get(row[NAME_COLUMN])
            if place is None:
                place, end = end, end + 1
            for column, value in row.items():
                number = value in ("0", "1")
                written = int(value) if number else value
                _set(sheet, worksheet, place + 1, positions[column] + 1, written)


@contextmanager
def _edited(sheet: Path) -> Iterator[Worksheet]:
    """Open a workbook's first worksheet; where the block ends without an error, save the workbook.

    Raises LabelsError for one with formulas: a saved workbook has their texts, and not the values
    that a spreadsheet program computed, so nobody could read these cells.
    """
    from openpyxl import load_workbook  # slow to import, and most sheets are CSV

    book = load_workbook(sheet)
    worksheet = book.worksheets[0]
    cells = (cell for row in worksheet.iter_rows() for cell in row)
    if formulas := [cell.coordinate for cell in cells if cell.data_type == "f"]:
        others = f", and {len(formulas) - 1} more cells have one" if formulas[1:] else ""
        raise LabelsError(
            [
                f"{sheet.name}: cell {formulas[0]} has a formula{others}: no row can be written "
                "without losing what they compute; replace them by their values (copy, then paste "
                "values only), or save the sheet as CSV UTF-8 in place of the workbook"
            ]
        )
    yield worksheet
    with atomic_write(sheet) as file:
        book.save(file)


def _set(sheet: Path, worksheet: Worksheet, row: int, column: int, value: str | int | None) -> None:
    """Set the value of a cell; raises LabelsError, which names the cell, where it cannot be set."""
    from openpyxl.utils.exceptions import IllegalCharacterError  # slow to import, as above

    cell = worksheet.cell(row, column)
    if cell.coordinate in worksheet.merged_cells:
        raise LabelsError(
            [f"{sheet.name}: cell {cell.coordinate} is merged with others: unmerge them"]
        )
    try:
        cell.value = value
    except IllegalCharacterError:
        raise LabelsError(
            [
                f"{sheet.name}: cell {cell.coordinate} cannot hold {value!r}: take the control "
                "characters out of it"
            ]
        ) from None
    if isinstance(value, str):
        cell.data_type = "s"  # text, also where it begins as a formula does
