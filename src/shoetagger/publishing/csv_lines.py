"""Lines of CSV that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from ..storage.storage import Storage


def is_whole(storage: Storage, name: str) -> bool:
    """Tell whether a table that CsvTable wrote is there and ends as one does."""
    try:
        with storage.opened(name) as file:
            file.seek(-1, io.SEEK_END)
            return file.read() == b"\n"
    except (OSError, ValueError):  # empty, or not there
        return False


def csv_line(cells: Iterable[str]) -> bytes:
    """Return one line of CSV in UTF-8, its formulas defused."""
    line = io.StringIO(newline="")
    # The writer quotes only those line ends that it would write itself: so let it write both.
    csv.writer(line, lineterminator="\r\n").writerow(defused(cell) for cell in cells)
    return line.getvalue().removesuffix("\r\n").encode("utf-8") + b"\n"


def defused(cell: str) -> str:
    """Return `cell` so that no spreadsheet takes it for a formula: with a ' before it if need be.

    The wide forms of the signs count too: some spreadsheets read them as the narrow ones.
    """
    return f"'{cell}" if cell.startswith(tuple("=+-@\t\r\n＝＋－＠")) else cell
