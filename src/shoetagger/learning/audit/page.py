"""The page of an audit's findings."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...rendering import template
from .finding import Finding


@dataclass(frozen=True)
class AuditSection:
    """The first findings of one kind, or of one tag, under a title; `count` counts all."""

    title: str
    note: str
    findings: Sequence[Finding]
    count: int


_AUDIT_SECTIONS = {
    "exclusive": ("Contradictions", "Tags that cannot be true of one picture."),
    "untagged": ("Without a tag of a group", "Was the row forgotten, or is a tag missing?"),
    "near_duplicate": (
        "Near-duplicates",
        "Nearly the same picture twice; across the split, that makes the metrics too good.",
    ),
}


def audit_sections(findings: Sequence[Finding], most: int) -> list[AuditSection]:
    """Group findings by kind or tag, in their order; each section shows at most `most`."""
    grouped: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        heading = _AUDIT_SECTIONS.get(
            finding.kind,
            (f"{finding.group}: {finding.tag}", "Out-of-fold scores contradict the sheet here."),
        )
        grouped.setdefault(heading, []).append(finding)
    return [
        AuditSection(title, note, members[:most], len(members))
        for (title, note), members in grouped.items()
    ]


def audit_page(sections: Sequence[AuditSection], thumbnails: Mapping[str, bytes]) -> str:
    """Return the contact sheet of an audit as HTML; `thumbnails` are JPEG bytes by image name."""
    pictures = {
        name: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        for name, jpeg in thumbnails.items()
    }
    return template("audit.html").render(
        sections=sections, total=sum(section.count for section in sections), pictures=pictures
    )
