"""The forms that Airflow's *Trigger* opens: parameters with titles, explanations and examples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from airflow.sdk import Param

from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..store.database import Database  # not the whole store, which imports numpy
from ..store.ledger import Ledger


def training(groups: Sequence[str]) -> dict[str, Param]:
    """Return the form of a training run; `groups` are those of params.yaml."""
    texts: dict[str, Any] = {"type": ["array", "null"], "items": {"type": "string"}}
    return {
        "groups": Param(
            [],
            title="Groups",
            description="Which groups to train. Without a choice: all that the commit has.",
            examples=list(groups),
            **texts,
        ),
        "revision": Param(
            "HEAD",
            type="string",
            minLength=1,
            title="Revision",
            description="The commit to train from: a branch, a tag or a commit of this project. A "
            "run that a collection of labels starts takes the collection's commit instead.",
            examples=["HEAD", "main", "HEAD~1"],
        ),
        "overrides": Param(
            [],
            title="Overrides",
            description="Parameters of params.yaml for this run alone, one per line, such as "
            "train.head_l2=0.001",
            **texts,
        ),
    }


def rollback(groups: Sequence[str]) -> dict[str, Param]:
    """Return the form of a rollback, which lists the versions that there are to go back to."""
    earlier = earlier_versions(groups)
    listed = [
        f"- {group}: " + (", ".join(f"**{n}** (live from {day})" for n, day in found) or "none")
        for group, found in earlier.items()
    ]
    numbers = list(dict.fromkeys(number for found in earlier.values() for number, _ in found))
    suggested: dict[str, Any] = {"examples": numbers} if numbers else {}
    return {
        "group": Param(
            groups[0],
            type="string",
            enum=list(groups),
            title="Group",
            description="The group to move back.",
        ),
        "version": Param(
            None,
            type=["null", "string"],
            title="Version",
            description_md="The version to go back to. Empty: the one before the present. "
            "Versions that were live before:\n\n" + "\n".join(listed),
            **suggested,
        ),
        "why": Param(
            "",
            type="string",
            minLength=1,
            title="Why",
            description="The reason. It goes into the ledger, which shoetagger history shows.",
        ),
    }


def earlier_versions(groups: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Return for each group the versions that were live and are not, the latest first.

    Each has its number, and the day since which it was live. DAG files call this whenever they are
    parsed: where the store cannot be read, as before the first set-up, there are none.
    """
    found: dict[str, list[tuple[str, str]]] = {group: [] for group in groups}
    try:
        database = Database(Settings.from_environment().store_url)
        with closing(database):
            ledger = Ledger(database)
            numbers = {version.digest: version.version for version in ledger.versions()}
            live, moves = ledger.live(), ledger.history()
    except ShoetaggerError:
        return found
    began = {
        (move.group, number): f"{move.done_at or move.created_at:%Y-%m-%d}"
        for move in moves
        if move.state == "done"
        and (number := numbers.get(move.to_digest or ""))
        and live.get(move.group) != move.to_digest
    }
    for (group, number), day in reversed(began.items()):
        if group in found:
            found[group].append((number, day))
    return found
