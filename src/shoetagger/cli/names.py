"""Rejected files as people name them: by a path, or as the pages show them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from ..errors import ShoetaggerError
from ..ingest.inbox import locator_of
from ..publishing.rows import shown_name
from ..store.store import Store

_NEAREST = 3


def rejected_locators(store: Store, inbox: Path, names: Sequence[str]) -> list[str]:
    """Return the locators of the rejected files that are named.

    A name is a path, from the working directory or from the inbox, or what the pages and
    rejected.csv show. Raises ShoetaggerError for one that is no rejected file's, with the nearest.
    """
    shown: dict[str, list[str]] = {}
    for row in store.files.rejected():
        shown.setdefault(shown_name(row.locator, inbox), []).append(row.locator)
    rejected = {locator for locators in shown.values() for locator in locators}
    found: list[str] = []
    for name in names:
        paths = {locator_of(inbox / name), locator_of(name)}
        locators = sorted(paths & rejected) or shown.get(name)
        if not locators:
            nearest = difflib.get_close_matches(name, shown, _NEAREST, cutoff=0.5)
            hint = f"the nearest are {', '.join(nearest)}" if nearest else "none is like it"
            raise ShoetaggerError(
                f"no rejected file is called {name!r}: {hint} (pages/rejected.html lists all); "
                "nothing was changed"
            )
        found += locators
    return found
