"""The published tables as their readers keep them: a day's is read again when its file changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import pyarrow.parquet as pq

from ..config.places import Place
from ..config.recipe import Group
from ..storage.places import published_at
from ..storage.storage import Stamp, of_day

Content = TypeVar("Content")


@dataclass(frozen=True)
class _Read(Generic[Content]):
    """What was read of a table; `stamp` tells whether the file changed since."""

    stamp: Stamp
    content: Content


class DayTables(Generic[Content]):
    """What `read` returns of each day's table, for the present groups; not for several threads."""

    def __init__(
        self, published: Place, read: Callable[[pq.ParquetFile, Mapping[str, Group]], Content]
    ) -> None:
        self._storage = published_at(published)
        self._read = read
        self._days: dict[str, _Read[Content]] = {}
        self.groups: Mapping[str, Group] = {}

    @property
    def contents(self) -> dict[str, Content]:
        """What was read, by day, the earliest first."""
        return {day: one.content for day, one in self._days.items()}

    @property
    def stamps(self) -> dict[str, Stamp]:
        """What changes with the tables, by day."""
        return {day: one.stamp for day, one in self._days.items()}

    def refresh(self, groups: Mapping[str, Group]) -> set[str]:
        """Read the tables that changed; return their days, those that vanished among them."""
        known = self._days if groups == self.groups else {}
        found: dict[str, _Read[Content]] = {}
        listed = self._storage.listed("parquet")
        for day, name in of_day(listed).items():
            try:
                found[day] = self._unless_known(name, listed[name], groups, known.get(day))
            except FileNotFoundError:
                continue  # it vanished meanwhile
        self._days, self.groups = found, groups
        days = known.keys() | found.keys()
        return {day for day in days if known.get(day) is not found.get(day)}

    def _unless_known(
        self, name: str, stamp: Stamp, groups: Mapping[str, Group], known: _Read[Content] | None
    ) -> _Read[Content]:
        if known is not None and known.stamp == stamp:
            return known
        with self._storage.opened(name) as file, pq.ParquetFile(file) as table:
            return _Read(stamp, self._read(table, groups))
