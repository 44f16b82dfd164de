"""Which days were published and not yet announced, so that no publication is missed.

A day is noted when its tables are in their place, and before it counts as published: what a killed
publisher wrote is announced by the next one. Who takes the days has to announce them.
"""

from __future__ import annotations

from ..config.places import Place
from ..storage.places import published_at
from ..storage.storage import Storage
from ..store.store import Store
from .lock import alone

_FILE = ".unannounced"


class Unannounced:
    """The days, a line each, to which a publication, whose turn it is, adds its own."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._days = _read(storage)

    def add(self, day: str) -> None:
        if day not in self._days:
            self._days.append(day)
            self._storage.write(_FILE, "".join(f"{day}\n" for day in self._days).encode("ascii"))


def take_unannounced(store: Store, published: Place) -> list[str]:
    """Return the days, the latest first; they count as announced from now on."""
    storage = published_at(published)
    with alone(store) as check:
        days = sorted(set(_read(storage)), reverse=True)
        check()
        storage.remove([_FILE])
    return days


def _read(storage: Storage) -> list[str]:
    return (storage.read(_FILE) or b"").decode("ascii").split()
