"""One finding of an audit, and the table that has all of them; imports no pandas."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, cast

from ...errors import ShoetaggerError

Kind = Literal["score", "exclusive", "untagged", "near_duplicate"]

# In the folder of an audit: the table, and the folder of the pictures that its page shows.
TABLE, PICTURES = "audit.csv", "pictures"


class AuditError(ShoetaggerError):
    """The stages whose results are audited have not run, or ran on other inputs."""


@dataclass(frozen=True)
class Finding:
    """One thing to look at: a cell, a row, or a pair of pictures.

    `sheet` is the value in the sheet. `score` is the out-of-fold score of the tag (the most certain
    findings are near 0 where it is ticked, near 1 where it is not), or the correlation of two
    pictures, or None where nothing is measured.
    """

    kind: Kind
    group: str
    tag: str
    image_name: str
    sheet: str
    score: float | None
    message: str
    other: str = ""  # the other picture of a pair
    image_id: str = ""
    notes: str = ""  # what further columns of the sheet say of the picture


def as_lines(findings: Sequence[Finding]) -> list[list[str]]:
    """Return findings as the cells of a table, its head first."""
    head = [field.name for field in fields(Finding)]
    return [head, *(["" if v is None else str(v) for v in astuple(f)] for f in findings)]


def read_findings(table: Path) -> list[Finding]:
    """Read the table of an audit; names are as in the table. Raises AuditError."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
        return [_finding(row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError) as error:
        raise AuditError(
            f"{table} cannot be read ({error}): run `shoetagger audit` again"
        ) from None


def _finding(row: dict[str, str]) -> Finding:
    return Finding(
        kind=cast("Kind", row["kind"]),
        group=row["group"],
        tag=row["tag"],
        image_name=row["image_name"],
        sheet=row["sheet"],
        score=float(row["score"]) if row["score"] else None,
        message=row["message"],
        other=row["other"],
        image_id=row.get("image_id") or "",
        notes=row.get("notes") or "",
    )


def picture_file(name: str) -> str:
    """Return the file, in the folder of pictures, of an image by its name in the table."""
    return f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.jpg"
