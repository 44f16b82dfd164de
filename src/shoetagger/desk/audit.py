"""The findings of the last `shoetagger audit`: where the label sheet and the models disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..learning.audit.finding import PICTURES, TABLE, Finding, read_findings
from ..learning.audit.page import AuditSection, audit_sections


@dataclass(frozen=True)
class Audit:
    """An audit that was made at `at`; sections are as on its own page."""

    at: datetime
    total: int
    sections: Sequence[AuditSection]


def read_audit(folder: Path, most: int) -> Audit | None:
    """Read the audit in a folder, at most so many findings per section; None where there is none.

    Raises AuditError for a table that cannot be read.
    """
    table = folder / TABLE
    if not table.is_file():
        return None
    findings = read_findings(table)
    at = datetime.fromtimestamp(table.stat().st_mtime, UTC)
    return Audit(at, len(findings), audit_sections(findings, most))


def picture_of(folder: Path, name: str) -> Path | None:
    """Return a picture of an audit by the name of its file; None where there is none."""
    path = folder / PICTURES / name
    return path if path.is_file() else None


def sheet_says(finding: Finding) -> str:
    """Return in words what stands in the sheet."""
    match finding.kind:
        case "score":
            return finding.tag if finding.sheet == "1" else f"no {finding.tag}"
        case "exclusive":
            return finding.tag
        case "untagged":
            return f"no tag of {finding.group}"
        case _:
            return ""


def model_says(finding: Finding) -> str:
    """Return in words what models, which have not seen the picture, say of a cell."""
    if finding.kind != "score" or finding.score is None:
        return ""
    says = f"no {finding.tag}" if finding.sheet == "1" else finding.tag
    return f"{says} ({finding.score:.2f})"
