"""Which days were published and not yet announced, so that no publication is missed.

A day is noted when its tables are in their place, and before it counts as published: what a killed
publisher wrote is announced by the next one.
"""

from __future__ import annotations

from pathlib import Path

from .lock import alone

_FILE = ".unannounced"


class Unannounced:
    """The days, a line each, to which a publication, which holds the lock, adds its own."""

    def __init__(self, published: Path) -> None:
        self._file = published / _FILE
        self._days = set(_read(self._file))

    def add(self, day: str) -> None:
        if day not in self._days:
            with self._file.open("a", encoding="ascii") as file:
                file.write(f"{day}\n")
            self._days.add(day)


def take_unannounced(published: Path) -> list[str]:
    """Return the days, the latest first; they count as announced from now on."""
    with alone(published):
        file = published / _FILE
        days = sorted(set(_read(file)), reverse=True)
        file.unlink(missing_ok=True)
    return days


def _read(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except FileNotFoundError:
        return []
