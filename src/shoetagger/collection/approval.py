"""What the person who approves a collection of labels is shown, as Airflow's UI draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice

from ..promotion.approval import contact_sheet, desk_page, until
from ..promotion.report import escaped
from .sheet_edits import SheetEdits

_PICTURES, _SENTENCES = 40, 40  # shown


def body(
    edits: SheetEdits,
    *,
    answer_by: datetime,
    airflow: str,
    title: Callable[[str], str] = str,
) -> str:
    """Return in Markdown until when an answer is awaited, the pictures, and what to look at.

    `airflow` is the address of the Airflow in whose UI the picture desk is; `title` returns what
    people read for a tag.
    """
    shown = islice(edits.pictures(title), _PICTURES)
    pictures = [(image_id, escaped(words)) for image_id, words in shown]
    more = len(edits.taken) + len(edits.removed) - len(pictures)
    return "\n".join(
        [
            until(answer_by, "nothing is collected; the pictures wait for the next time"),
            "",
            f"{edits.summary}:",
            "",
            *contact_sheet(pictures, airflow),
            "",
            *([f"… and {more} more.", ""] if more > 0 else []),
            *_section("To look at", edits.doubts),
            *_section("Rows that change", edits.changes),
            *_section("Left out", edits.left_out),
            f"[The pictures on the desk]({desk_page(airflow, 'collection')})",
            "",
        ]
    )


def _section(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield f"**{title}**"
        yield ""
        yield from (f"- {escaped(sentence)}" for sentence in sentences[:_SENTENCES])
        if len(sentences) > _SENTENCES:
            yield f"- … and {len(sentences) - _SENTENCES} more"
        yield ""
