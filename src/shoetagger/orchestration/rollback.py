"""The step that goes back to an earlier version: the DAG's task and the command share it."""

from __future__ import annotations

from ..ops.installation import Installation
from ..promotion import moves


def roll_back(installation: Installation, group: str, *, to: str | None, by: str, why: str) -> str:
    """Make an earlier version of a group live again, and return its number.

    Without `to`, that is the version before the live one. Raises ParamsError for an unknown group,
    and PromotionError where no version can be gone back to.
    """
    installation.params.group(group)
    return moves.rollback(
        installation.store,
        installation.registry,
        group,
        bundles=installation.settings.bundles,
        to=to,
        by=by,
        why=why,
    )
