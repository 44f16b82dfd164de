"""The page of an audit's findings."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...rendering import template
from .findings import Finding


@dataclass(frozen=True)
class AuditSection:
    """Findings of one kind, or of one tag, under a title: the first, and how many there are."""

    title: str
    says: str
    findings: Sequence[Finding]
    count: int


_AUDIT_SECTIONS = {
    "exclusive": ("Contradictions", "Tags that cannot be true of one picture."),
    "untagged": ("Without a tag of a group", "Was the row forgotten, or is a tag missing?"),
    "copy": ("Copies", "Nearly the same picture twice; a copy flatters figures across the split."),
}


def audit_sections(findings: Sequence[Finding], most: int) -> list[AuditSection]:
    """Part findings by what they are about, in their order; each section shows at most `most`."""
    parted: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        heading = _AUDIT_SECTIONS.get(
            finding.kind,
            (f"{finding.group}: {finding.tag}", "Scores out of fold contradict the sheet here."),
        )
        parted.setdefault(heading, []).append(finding)
    return [
        AuditSection(title, says, found[:most], len(found))
        for (title, says), found in parted.items()
    ]


def audit_page(sections: Sequence[AuditSection], thumbnails: Mapping[str, bytes]) -> str:
    """Return the contact sheet of an audit; `thumbnails` are JPEG bytes by image name."""
    pictures = {
        name: f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        for name, jpeg in thumbnails.items()
    }
    return template("audit.html").render(
        sections=sections, total=sum(section.count for section in sections), pictures=pictures
    )
