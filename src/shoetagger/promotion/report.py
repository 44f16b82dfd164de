"""A comparison as people and programs read it: JSON, an HTML page, a contact sheet, a text."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ..rendering import template
from .gate import Verdict
from .paired import Figures, Paired
from .side_by_side import Trial

PAGE, DOCUMENT, SHEET = "comparison.html", "comparison.json", "changes.png"


def document(title: str, verdict: Verdict, trial: Trial | None) -> dict[str, Any]:
    """Return the whole comparison as plain values; no trial: there was nothing to compare with."""
    told: dict[str, Any] = {
        "title": title,
        "passes": verdict.passes,
        "reasons": list(verdict.reasons),
        "asks": verdict.asks,
        "validation": None,
        "out_of_fold": None,
        "new_tags": [],
        "dropped_tags": [],
        "arrivals": None,
    }
    if trial is None:
        return told
    arrivals = trial.arrivals
    return told | {
        "validation": _paired(trial.validation),
        "out_of_fold": trial.out_of_fold and _paired(trial.out_of_fold),
        "new_tags": list(trial.new_tags),
        "dropped_tags": list(trial.dropped_tags),
        "arrivals": {
            "pictures": arrivals.diff.pictures,
            "changed": arrivals.diff.changed,
            "share": arrivals.diff.share,
            "unread": arrivals.unread,
            "tags": {tag: list(counts) for tag, counts in arrivals.diff.counts().items()},
        },
    }


def files(told: Mapping[str, Any], trial: Trial | None) -> dict[str, bytes]:
    """Return the report's files by name; the page needs none of the others."""
    sheet = _sheet(str(told["title"]), trial) if trial and trial.arrivals.shown else None
    inline = base64.b64encode(sheet).decode() if sheet else None
    made = {
        DOCUMENT: (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode(),
        PAGE: template(PAGE).render(told, sheet=inline).encode(),
    }
    return made | ({SHEET: sheet} if sheet else {})


def text(told: Mapping[str, Any], page: str | None) -> str:
    """Return what the person who approves is shown, in Markdown."""
    lines = [f"**{told['title']}**", ""]
    if told["asks"]:
        lines += [f"You are asked because {_plain(told['asks'])}.", ""]
    lines += [f"- {_plain(reason)}" for reason in told["reasons"]]
    if validation := told["validation"]:
        lines += ["", f"On {validation['pictures']} validation pictures:", ""]
        lines += ["| tag | positives | challenger | champion | difference | interval |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        lines += [_row("macro F1", "", validation["macro_f1"])]
        lines += [_row(t["tag"], t["positives"], t["figures"]) for t in validation["tags"]]
    if out_of_fold := told["out_of_fold"]:
        lines += ["", "Rare tags, out of fold:", ""]
        lines += ["| tag | positives | challenger | champion | difference | interval |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        lines += [_row(t["tag"], t["positives"], t["figures"]) for t in out_of_fold["tags"]]
    arrivals = told["arrivals"]
    if arrivals and arrivals["pictures"]:
        lines += ["", f"{arrivals['changed']} of {arrivals['pictures']} sampled arrivals change:"]
        lines += [
            f"- {_plain(tag)}: {gained} gain it, {lost} lose it"
            for tag, (gained, lost) in arrivals["tags"].items()
        ]
    if page:
        lines += ["", f"[The whole comparison, with pictures]({page})"]
    return "\n".join(lines) + "\n"


def _paired(found: Paired) -> dict[str, Any]:
    return {
        "pictures": found.pictures,
        "macro_f1": _figures(found.macro_f1),
        "tags": [
            {"tag": t.tag, "positives": t.positives, "figures": _figures(t.figures)}
            for t in found.tags
        ],
    }


def _figures(figures: Figures | None) -> dict[str, Any] | None:
    if figures is None:
        return None
    return asdict(figures) | {"difference": figures.difference}


def _sheet(title: str, trial: Trial) -> bytes:
    from ..learning.evaluation.plots import contact_sheet

    buffer = io.BytesIO()
    figure = contact_sheet(trial.arrivals.shown, f"{title}: + gained, - lost")
    figure.savefig(buffer, dpi=80, format="png")
    return buffer.getvalue()


def _row(name: str, positives: object, figures: Mapping[str, Any] | None) -> str:
    cells = [_plain(name), str(positives)]
    if figures is None:
        cells += ["not measurable", "", "", ""]
    else:
        cells += [f"{figures['challenger']:.3f}", f"{figures['champion']:.3f}"]
        cells += [f"{figures['difference']:+.3f}"]
        interval = figures["interval"]
        cells += [f"{interval[0]:+.3f} … {interval[1]:+.3f}" if interval else ""]
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Return a text in which Markdown sees no mark of its own."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|~" else letter for letter in text)
