"""A comparison as people and programs read it: JSON, an HTML page, a contact sheet, a text.

The document keeps the names of tags; where people read, `title` gives what they read for one.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from ..rendering import template
from .by_itself import ByItself
from .gate import Verdict
from .paired import PairedMetrics, ScorePair
from .side_by_side import SideBySide

if TYPE_CHECKING:
    from ..learning.evaluation.contact_sheet import Shown

_INLINE_SHEET = re.compile(rb'<img src="data:image/png;base64,[^"]*"[^>]*>')
_WARNING = "\N{WARNING SIGN}\N{VARIATION SELECTOR-16}"  # in colour
Title = Callable[[str], str]

PAGE, DOCUMENT, SHEET = "comparison.html", "comparison.json", "changes.png"


def document(
    title: str,
    verdict: Verdict,
    gate: str,
    outcome: SideBySide | None,
    alone: ByItself | None = None,
) -> dict[str, Any]:
    """Return the whole comparison as plain values; `outcome` is None where nothing was run.

    `gate` has the rules that were applied; `alone` is how a first version did by itself.
    """
    plain: dict[str, Any] = {
        "title": title,
        "passes": verdict.passes,
        "reasons": list(verdict.reasons),
        "warnings": list(verdict.warnings),
        "approval_reason": verdict.approval_reason,
        "gate": gate,
        "left_out": 0,
        "validation": None,
        "out_of_fold": None,
        "new_tags": [],
        "dropped_tags": [],
        "arrivals": None,
        "checked": None,
        "by_itself": alone and _by_itself(alone.validation),
    }
    if outcome is None:
        return plain
    arrivals = outcome.arrivals
    return plain | {
        "validation": _paired(outcome.validation),
        "left_out": outcome.left_out,
        "out_of_fold": outcome.out_of_fold and _paired(outcome.out_of_fold),
        "new_tags": list(outcome.new_tags),
        "dropped_tags": list(outcome.dropped_tags),
        "arrivals": {
            "pictures": arrivals.diff.pictures,
            "changed": arrivals.diff.changed,
            "share": arrivals.diff.share,
            "unread": arrivals.unread,
            "tags": {tag: list(counts) for tag, counts in arrivals.diff.counts().items()},
            "shown": [change.image_id for change in arrivals.changes[: len(arrivals.shown)]],
        },
        "checked": _paired(outcome.checked.metrics)
        | {"learned": outcome.checked.learned, "unread": outcome.checked.unread},
    }


def files(
    document: Mapping[str, Any],
    outcome: SideBySide | None,
    alone: ByItself | None = None,
    title: Title = str,
) -> dict[str, bytes]:
    """Return the report's files by name; the page needs none of the others."""
    shown_changes = outcome.arrivals.shown if outcome else ()
    sheet = _sheet(str(document["title"]), shown_changes, title) if shown_changes else None
    shown = {"sheet": sheet, "validation_sheet": alone and alone.sheet}
    inline = {name: png and base64.b64encode(png).decode() for name, png in shown.items()}
    words = {"title_of": title, "listed": lambda tags: ", ".join(map(title, tags))}
    return {
        DOCUMENT: _json(document),
        PAGE: template(PAGE, words).render(document, **inline).encode(),
        SHEET: sheet or _blank(),  # in place of that of an earlier comparison
    }


def without_pictures(files: Mapping[str, bytes], image_id: str) -> dict[str, bytes]:
    """Return those of a comparison's files that have to change so that none shows the image.

    Comparisons of before the document named what is shown may show it, and so may the sheet of an
    earlier comparison, which one that shows nothing left in its place.
    """
    if DOCUMENT not in files or SHEET not in files:
        return {}
    document = json.loads(files[DOCUMENT])
    arrivals = document["arrivals"] or {"shown": []}
    shown = arrivals.get("shown", [image_id])
    if not shown and files[SHEET] != _blank():
        return {SHEET: _blank()}
    if image_id not in shown:
        return {}
    note = b"The pictures were removed, as one of them was erased on request."
    return {
        DOCUMENT: _json(document | {"arrivals": arrivals | {"shown": []}}),
        PAGE: _INLINE_SHEET.sub(note, files.get(PAGE, b"")),
        # Not every store of artifacts can delete a file, but all can replace it.
        SHEET: _blank(),
    }


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def text(document: Mapping[str, Any], page: str | None, title: Title = str) -> str:
    """Return what the person who approves is shown, in Markdown."""
    lines = [f"**{document['title']}**", ""]
    if document["approval_reason"]:
        lines += [f"You are asked because {escaped(document['approval_reason'])}.", ""]
    lines += [f"- {escaped(reason)}" for reason in document["reasons"]]
    lines += [f"- {_WARNING} {escaped(warning)}" for warning in document["warnings"]]
    if alone := document["by_itself"]:
        lines += ["", f"By itself, on {alone['pictures']} validation pictures:", ""]
        lines += ["| tag | positives | predicted | right | F1 |", "| --- | --- | --- | --- | --- |"]
        lines += [f"| macro F1 |  |  |  | {_number(alone['macro_f1'])} |"]
        lines += [
            f"| {escaped(title(row['tag']))} | {row['positives']} | {row['predicted']} | "
            f"{'' if row['right'] is None else row['right']} | {_number(row['f1'])} |"
            for row in alone["tags"]
        ]
    if validation := document["validation"]:
        without = _without(document["left_out"])
        lines += ["", f"On {validation['pictures']} validation pictures{without}:", ""]
        lines += [
            *_HEAD,
            _row("macro F1", "", validation["macro_f1"]),
            *_tag_rows(validation, title),
        ]
    if out_of_fold := document["out_of_fold"]:
        lines += ["", "Rare tags, out of fold:", "", *_HEAD, *_tag_rows(out_of_fold, title)]
    if (checked := document["checked"]) and checked["pictures"]:
        without = _without(checked["learned"])
        lines += ["", f"On {checked['pictures']} arrivals that people checked{without}:", ""]
        lines += [*_HEAD, _row("macro F1", "", checked["macro_f1"]), *_tag_rows(checked, title)]
        lines += ["", "No rule of the gate: people chose these pictures, and saw the tags."]
    arrivals = document["arrivals"]
    if arrivals and arrivals["pictures"]:
        lines += ["", f"{arrivals['changed']} of {arrivals['pictures']} sampled arrivals change:"]
        lines += [
            f"- {escaped(title(tag))}: {gained} gain it, {lost} lose it"
            for tag, (gained, lost) in arrivals["tags"].items()
        ]
    lines += ["", f"The gate (`promote` in params.yaml): {escaped(document['gate'])}."]
    if page:
        lines += ["", f"[The whole comparison, with pictures]({page})"]
    return "\n".join(lines) + "\n"


_HEAD = (
    "| tag | positives | challenger | champion | difference | interval |",
    "| --- | --- | --- | --- | --- | --- |",
)


def _without(pictures: int) -> str:
    return f", without {pictures} that one of the two trained on" if pictures else ""


def _tag_rows(part: Mapping[str, Any], title: Title) -> list[str]:
    return [_row(title(t["tag"]), t["positives"], t["f1"]) for t in part["tags"]]


def _paired(metrics: PairedMetrics) -> dict[str, Any]:
    return {
        "pictures": metrics.pictures,
        "macro_f1": _score_pair(metrics.macro_f1),
        "tags": [
            {"tag": t.tag, "positives": t.positives, "f1": _score_pair(t.f1)} for t in metrics.tags
        ],
    }


def _by_itself(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a report of `evaluate` as a comparison shows it; what is not a number is None."""

    def number(value: object) -> float | None:
        return float(value) if isinstance(value, int | float) else None

    rows = []
    for tag, values in report["tags"].items():
        precision = number(values["precision"])
        right = None if precision is None else round(precision * values["predicted"])
        rows.append(
            {
                "tag": tag,
                "positives": values["support"],
                "predicted": values["predicted"],
                "right": right,
                "f1": number(values["f1"]),
            }
        )
    return {"pictures": report["pictures"], "macro_f1": number(report["macro_f1"]), "tags": rows}


def _number(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.3f}"


def _score_pair(pair: ScorePair | None) -> dict[str, Any] | None:
    if pair is None:
        return None
    return asdict(pair) | {"difference": pair.difference}


def _sheet(heading: str, shown: Sequence[Shown], title: Title) -> bytes:
    from ..learning.evaluation.contact_sheet import CHANGES, contact_sheet

    titled = [
        replace(
            picture,
            true_tags=[title(tag) for tag in picture.true_tags],
            predicted_tags=[title(tag) for tag in picture.predicted_tags],
        )
        for picture in shown
    ]
    buffer = io.BytesIO()
    figure = contact_sheet(titled, f"{heading}: pictures whose tags change", CHANGES)
    figure.savefig(buffer, dpi=80, format="png")
    return buffer.getvalue()


def _blank() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (1, 1), 255).save(buffer, "PNG")
    return buffer.getvalue()


def _row(name: str, positives: object, pair: Mapping[str, Any] | None) -> str:
    cells = [escaped(name), str(positives)]
    if pair is None:
        cells += ["not measurable", "", "", ""]
    else:
        cells += [f"{pair['challenger']:.3f}", f"{pair['champion']:.3f}"]
        cells += [f"{pair['difference']:+.3f}"]
        interval = pair["interval"]
        cells += [f"{interval[0]:+.3f} … {interval[1]:+.3f}" if interval else ""]
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Return a text in which Markdown sees no mark of its own."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|~" else letter for letter in text)
