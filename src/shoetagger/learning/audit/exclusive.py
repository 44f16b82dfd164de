"""Tags that cannot be true of one picture, as `audit.exclusive` of params.yaml names them."""

from __future__ import annotations

from ...config.params import Params
from .finding import AuditError


def check_exclusive(params: Params) -> None:
    """Raise AuditError where `audit.exclusive` names what is no tag."""
    for i, tags in enumerate(params.audit.exclusive):
        if unknown := [tag for tag in tags if tag not in params.tags]:
            raise AuditError(
                f"params.yaml: audit.exclusive[{i}] names {', '.join(unknown)}, which no group "
                "learns: correct it, or take it out"
            )
