"""Rejected files as people name them: by a path, or as the pages show them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from ..config.places import Place
from ..errors import ShoetaggerError
from ..ingest.places import locators_named
from ..publishing.rows import shown_name
from ..store.store import Store

_NEAREST = 3


def rejected_locators(store: Store, inbox: Place, names: Sequence[str]) -> list[str]:
    """Return the locators of the rejected files that are named.

    A name is one that `locators_named` takes, or what the pages and rejected.csv show. Raises
    ShoetaggerError for one that is no rejected file's, with the nearest.
    """
    shown: dict[str, list[str]] = {}
    for row in store.files.rejected():
        shown.setdefault(shown_name(row.locator, inbox), []).append(row.locator)
    rejected = {locator for locators in shown.values() for locator in locators}
    found: list[str] = []
    for name in names:
        locators = sorted(rejected.intersection(locators_named(inbox, name))) or shown.get(name)
        if not locators:
            nearest = difflib.get_close_matches(name, shown, _NEAREST, cutoff=0.5)
            hint = f"the nearest are {', '.join(nearest)}" if nearest else "none is like it"
            raise ShoetaggerError(
                f"no rejected file is called {name!r}: {hint} (pages/rejected.html lists all); "
                "nothing was changed"
            )
        found += locators
    return found
