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
    lines = [until(answer_by, "the challenger is rejected"), "", comparison.text]
    if comparison.changed:
        pictures = [(picture.image_id, _change(picture)) for picture in comparison.changed]
        lines += ["Arrivals whose tags change:", "", *contact_sheet(pictures, airflow), ""]
    page = f"{quote(comparison.group, safe='')}/{quote(comparison.version, safe='')}"
    address = desk_page(airflow, f"challengers/{page}")
    lines.append(f"[What it would change, picture by picture, on the desk]({address})")
    return "\n".join(lines) + "\n"


def until(answer_by: datetime, otherwise: str) -> str:
    """Return until when an answer is awaited, and what happens without one."""
    moment = answer_by.astimezone(UTC)
    return (
        f"**Answer by {moment:%A}, {moment.day} {moment:%B %Y, %H:%M} UTC.** Without an answer by "
        f"then {otherwise}."
    )


def desk_page(airflow: str, path: str) -> str:
    """Return the address of one of the desk's pages, with Airflow's bar beside it."""
    return f"{airflow.rstrip('/')}{_IN_UI}/{path}"


def contact_sheet(pictures: Sequence[tuple[str, str]], airflow: str) -> list[str]:
    """Return a contact sheet as a table: a row of pictures, then a row of words for each.

    `pictures` are image ids, each with its words as Markdown.
    """
    lines = ["| " * _COLUMNS + "|", "| --- " * _COLUMNS + "|"]
    thumbs = f"{airflow.rstrip('/')}{DESK}/thumbs"
    for row in chunked(pictures, _COLUMNS):
        images = [f"![a picture]({thumbs}/{quote(image_id)}.jpg)" for image_id, _ in row]
        words = [
            f"[{text}]({desk_page(airflow, f'picture/{quote(image_id)}')})"
            for image_id, text in row
        ]
        for cells in (images, words):
            cells += [""] * (_COLUMNS - len(cells))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _change(picture: ChangedPicture) -> str:
    parts = [f"gains {escaped(tag)}" for tag in picture.gained]
    parts += [f"loses {escaped(tag)}" for tag in picture.lost]
    return ", ".join(parts)
