"""What the person who approves is shown, in Markdown as Airflow's UI draws it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from more_itertools import chunked

from .compare import ChangedPicture, Comparison
from .report import escaped

DESK = "/pictures"  # where the picture desk is in Airflow
_IN_UI = f"/plugin/pictures{DESK}"  # its pages with Airflow's bar beside them
_COLUMNS = 4


def body(comparison: Comparison, *, answer_by: datetime, airflow: str) -> str:
    """Return until when an answer is awaited, the comparison, and arrivals whose tags change.

    `airflow` is the address of the Airflow in whose UI the picture desk is: it serves thumbnails, a
    page per picture and a page of all that would change.
    """
    until = answer_by.astimezone(UTC)
    lines = [
        f"**Answer by {until:%A}, {until.day} {until:%B %Y, %H:%M} UTC.** Without an answer by "
        "then the challenger is rejected.",
        "",
        comparison.text,
    ]
    base = airflow.rstrip("/")
    if comparison.changed:
        lines += ["Arrivals whose tags change:", "", *_sheet(comparison.changed, base), ""]
    page = f"{quote(comparison.group, safe='')}/{quote(comparison.version, safe='')}"
    lines.append(
        "[What it would change, picture by picture, on the desk]"
        f"({base}{_IN_UI}/challengers/{page})"
    )
    return "\n".join(lines) + "\n"


def _sheet(pictures: Sequence[ChangedPicture], base: str) -> list[str]:
    """Return a contact sheet as a table: a row of pictures, then a row of what becomes of each."""
    lines = ["| " * _COLUMNS + "|", "| --- " * _COLUMNS + "|"]
    for row in chunked(pictures, _COLUMNS):
        ids = [quote(picture.image_id) for picture in row]
        images = [f"![a picture]({base}{DESK}/thumbs/{image_id}.jpg)" for image_id in ids]
        words = [
            f"[{_change(picture)}]({base}{_IN_UI}/picture/{image_id})"
            for picture, image_id in zip(row, ids, strict=True)
        ]
        for cells in (images, words):
            cells += [""] * (_COLUMNS - len(cells))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _change(picture: ChangedPicture) -> str:
    parts = [f"gains {escaped(tag)}" for tag in picture.gained]
    parts += [f"loses {escaped(tag)}" for tag in picture.lost]
    return ", ".join(parts)
