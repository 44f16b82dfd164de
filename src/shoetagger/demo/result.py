"""What the demo prints at its end: the arrivals' tags, and how many of them are right."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

from ..config.settings import Settings
from ..store.store import Store
from .airflow_api import DemoError
from .arrivals import ARRIVALS, SEED, drawn, rejected, tagged
from .sample import arrival_tags

Tags = Mapping[str, Sequence[str]]  # group -> tags of one picture


def result(settings: Settings, groups: Mapping[str, Sequence[str]]) -> str:
    """Return the current tags of the arrivals, by which versions, how good, and what was rejected.

    `groups` names the tags of each group. Raises DemoError where an arrival is neither tagged nor
    rejected.
    """
    with Store(settings.store_url) as store:
        rows = tagged(store, settings, list(groups))
        reasons = rejected(store)
    names = [path.name for path in drawn(settings)]
    if missing := set(names) - rows.keys() - reasons.keys():
        raise DemoError(f"neither tagged nor rejected: {', '.join(sorted(missing))}")
    versions = {
        f"{group} v{tags.version}" for row in rows.values() for group, tags in row.groups.items()
    }
    predicted = {
        name: {group: tags.tags for group, tags in row.groups.items()} for name, row in rows.items()
    }
    lines = [
        *_table(predicted, list(groups)),
        f"{len(rows)} pictures tagged by {', '.join(sorted(versions))}",
        "",
        f"{len(reasons)} files rejected:",
        *(f"{name}: {reason}" for name, reason in reasons.items()),
        "",
        *quality(predicted, arrival_tags(ARRIVALS, SEED), groups),
    ]
    return textwrap.indent("\n".join(lines), "      ")


def quality(
    predicted: Mapping[str, Tags],
    truth: Mapping[str, frozenset[str]],
    groups: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return lines that compare predicted tags with true ones: per group, and over all groups.

    A picture is right in a group where it has every true tag and no other; one without predicted
    tags is wrong. F1 is the micro average: over all tags of all pictures, alike.
    """
    lines = ["compared with the tags that the pictures were drawn to show:"]
    width = max(map(len, (*groups, "all")))
    right_in_all = set(truth)
    for group, tags in groups.items():
        pairs = {
            name: (set(predicted.get(name, {}).get(group, ())), true & set(tags))
            for name, true in truth.items()
        }
        right = {name for name, (given, true) in pairs.items() if given == true}
        hits = sum(len(given & true) for given, true in pairs.values())
        f1 = 2 * hits / max(1, sum(len(given) + len(true) for given, true in pairs.values()))
        lines.append(
            f"{group.ljust(width)}  {len(right):2} of {len(truth)} right: every true tag and no "
            f"other; micro F1 {f1:.2f}"
        )
        right_in_all &= right
    lines.append(
        f"{'all'.ljust(width)}  {len(right_in_all):2} of {len(truth)} right in every group"
    )
    return lines


def _table(predicted: Mapping[str, Tags], groups: Sequence[str]) -> list[str]:
    rows = [["picture", *groups]]
    for name, by_group in predicted.items():
        rows.append([name, *(", ".join(by_group.get(group, ())) or "-" for group in groups)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
