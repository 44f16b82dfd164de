"""The published tables in memory, so that any choice of tags among a million pictures is quick."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..config.places import Place
from ..config.recipe import Group
from ..review.day_tables import DayTables
from ..store.rows import NOT_A_SHOE, WHOLE_IMAGE, CurrentRow
from .selection import CONTRADICTION, GROUP_STATES, NONE, SIZE, Selection

# What a group has in the tables, of what is needed here.
_COLUMNS = ("tags", "unsure", "stale", "corrected")

# What marks a picture: ("tag", group, tag), (state, group), or a state of the whole picture.
Mark = tuple[str, ...]
VERDICT: Mark = (NOT_A_SHOE, WHOLE_IMAGE)
Marks = Mapping[Mark, np.ndarray]


@dataclass(frozen=True)
class Found:
    """The pictures of a selection: how many, those of its page, and how many have each tag.

    `tags` counts, for each tag, the pictures that choosing it would show: those that meet the
    selection in all that concerns other groups. `states` counts likewise.
    """

    pictures: int
    image_ids: tuple[str, ...]
    tags: Mapping[str, Mapping[str, int]]
    states: Mapping[str, int]


@dataclass(frozen=True)
class Partition:
    """The table of one arrival day, its latest picture first.

    `image_ids`, `names` and `articles` (n,) are Arrow strings, names in lower case, those of copies
    in further lines, articles null where there is none; `marks` are (n,) bool.
    """

    image_ids: pa.Array
    names: pa.Array
    articles: pa.Array
    marks: Marks


@dataclass(frozen=True)
class Index:
    """All pictures, the latest first; as in Partition. `starts` are the first rows of `days`."""

    days: tuple[str, ...]
    starts: tuple[int, ...]
    image_ids: pa.ChunkedArray
    names: pa.ChunkedArray
    articles: pa.ChunkedArray
    marks: Marks

    def __len__(self) -> int:
        return len(self.image_ids)

    def find(
        self,
        selection: Selection,
        groups: Mapping[str, Group],
        exclusive: Sequence[Sequence[str]] = (),
        disputed: Collection[str] = (),
    ) -> Found:
        """Return the pictures of a selection; `groups` are those that the index was made with.

        A picture is a contradiction where it has two tags of one of the sets of `exclusive`, or
        where people disagree about it: `disputed` are image ids.
        """
        states = {
            state: self._any(self.marks[state, group] for group in groups) for state in GROUP_STATES
        }
        states[CONTRADICTION] = self._contradictions(groups, exclusive, disputed)
        states[NOT_A_SHOE] = self.marks[VERDICT]
        conditions: dict[Mark, np.ndarray] = {("rest",): self._meets_rest(selection)}
        for group, tags in selection.tags.items():
            conditions["group", group] = self._any(self.marks["tag", group, tag] for tag in tags)
        if selection.states:
            conditions[("state",)] = self._any(states[state] for state in selection.states)

        def all_but(*left_out: str) -> np.ndarray:
            return reduce(np.logical_and, (c for name, c in conditions.items() if name != left_out))

        rows = np.flatnonzero(all_but())
        first = (selection.page - 1) * SIZE
        return Found(
            pictures=len(rows),
            image_ids=tuple(self.image_ids.take(rows[first : first + SIZE]).to_pylist()),
            tags={
                name: self._count_tags(name, group, all_but("group", name))
                for name, group in groups.items()
            },
            states={state: _size(all_but("state") & there) for state, there in states.items()},
        )

    def with_rows(self, rows: Iterable[CurrentRow]) -> Index:
        """Return an index in which these pictures, where they are in it, have other tags."""
        marks = {mark: there.copy() for mark, there in self.marks.items()}
        for row in rows:
            if (place := self._place(row)) is not None:
                for mark, there in marks.items():
                    there[place] = _has(row, mark)
        return replace(self, marks=marks)

    def of_article(self, article: str) -> list[str]:
        """Return the pictures of an article, the latest first."""
        mask = pc.equal(self.articles, article).fill_null(False)
        found: list[str] = self.image_ids.filter(mask).to_pylist()
        return found

    def _meets_rest(self, selection: Selection) -> np.ndarray:
        """Return which pictures meet the days and the text of a selection."""
        met = np.ones(len(self), bool)
        for day, start, stop in self._slices():
            if (selection.since and day < selection.since) or (
                selection.until and day > selection.until
            ):
                met[start:stop] = False
        if selection.text:
            met &= pc.match_substring(self.names, selection.text.lower()).to_numpy()
        if selection.article:
            met &= pc.equal(self.articles, selection.article).fill_null(False).to_numpy()
        return met

    def _contradictions(
        self,
        groups: Mapping[str, Group],
        exclusive: Sequence[Sequence[str]],
        disputed: Collection[str],
    ) -> np.ndarray:
        found = np.zeros(len(self), bool)
        for tags in exclusive:
            marks = [
                self.marks["tag", name, tag]
                for name, group in groups.items()
                for tag in group.tags
                if tag in tags
            ]
            for one, other in combinations(marks, 2):
                found |= one & other
        if disputed:
            ids = pa.array(sorted(disputed), pa.string())
            found |= pc.is_in(self.image_ids, value_set=ids).to_numpy()
        return found

    def _any(self, masks: Iterable[np.ndarray]) -> np.ndarray:
        return reduce(np.logical_or, masks, np.zeros(len(self), bool))

    def _count_tags(self, name: str, group: Group, among: np.ndarray) -> dict[str, int]:
        return {tag: _size(among & self.marks["tag", name, tag]) for tag in group.tags}

    def _slices(self) -> Iterator[tuple[str, int, int]]:
        """Yield the days, each with its first row and the one after its last."""
        bounds = pairwise((*self.starts, len(self)))
        return ((day, *bound) for day, bound in zip(self.days, bounds, strict=True))

    def _place(self, row: CurrentRow) -> int | None:
        for day, start, stop in self._slices():
            if day == row.day:
                place = pc.index(self.image_ids.slice(start, stop - start), row.image_id).as_py()
                return None if place < 0 else start + int(place)
        return None


class Catalogue:
    """The index of the tables in a folder, brought up to date when they change."""

    def __init__(self, published: Place) -> None:
        self._tables = DayTables(published, _read)
        self.index = _concatenated({}, {})

    def refresh(self, groups: Mapping[str, Group]) -> set[str]:
        """Read the tables that changed; returns their days, those that vanished among them.

        A table that lacks a group, being of before it, has it as untagged.
        """
        before = self._tables.groups
        changed = self._tables.refresh(groups)
        if changed or groups != before:
            latest_first = dict(reversed(self._tables.contents.items()))
            self.index = _concatenated(latest_first, groups)
        return changed

    def overlay(self, rows: Iterable[CurrentRow]) -> None:
        """Lay the tags of single pictures over those of the tables."""
        self.index = self.index.with_rows(rows)


def _read(table: pq.ParquetFile, groups: Mapping[str, Group]) -> Partition:
    wanted = [f"{group}_{what}" for group in groups for what in _COLUMNS]
    there = [n for n in (*wanted, "verdict", "article") if n in table.schema_arrow.names]
    rows = table.read(["image_id", "file", "copies", *there])
    rows = rows.take(np.arange(len(rows))[::-1]).combine_chunks()
    columns = {name: rows[name].combine_chunks() for name in rows.column_names}
    copies = pc.binary_join(columns["copies"], "\n")
    names = pc.binary_join_element_wise(columns["file"], copies, "\n")
    verdicts = columns.get("verdict", pa.nulls(len(rows), pa.string()))
    marks: dict[Mark, np.ndarray] = {VERDICT: _as_numpy(verdicts.is_valid())}
    for name, group in groups.items():
        marks |= _marks_of(columns, name, group, marks[VERDICT])
    articles = columns.get("article", pa.nulls(len(rows), pa.string()))
    return Partition(columns["image_id"], pc.utf8_lower(names), articles, marks)


def _marks_of(
    columns: Mapping[str, pa.Array], name: str, group: Group, judged: np.ndarray
) -> dict[Mark, np.ndarray]:
    """Return the marks of one group of a table; `judged` tells which pictures are no shoes."""
    length = len(judged)
    lists = columns.get(f"{name}_tags", pa.nulls(length, pa.list_(pa.string())))
    parents, values = pc.list_parent_indices(lists), pc.list_flatten(lists)
    empty = pc.equal(pc.list_value_length(lists), 0).fill_null(False)
    marks: dict[Mark, np.ndarray] = {
        ("untagged", name): _as_numpy(lists.is_null()),
        (NONE, name): _as_numpy(empty) & ~judged,
    }
    for tag in group.tags:
        there = np.zeros(length, bool)
        there[parents.filter(pc.equal(values, tag)).to_numpy()] = True
        marks["tag", name, tag] = there
    for state in ("unsure", "stale", "corrected"):
        column = columns.get(f"{name}_{state}", pa.nulls(length, pa.bool_()))
        marks[state, name] = _as_numpy(column.fill_null(False))
    return marks


def _as_numpy(column: pa.Array) -> np.ndarray:
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _concatenated(partitions: Mapping[str, Partition], groups: Mapping[str, Group]) -> Index:
    parts = list(partitions.values())
    ends = np.cumsum([len(part.image_ids) for part in parts], dtype=int)
    names: list[Mark] = [("tag", g, tag) for g, group in groups.items() for tag in group.tags]
    names += [(state, group) for group in groups for state in GROUP_STATES]
    names.append(VERDICT)
    return Index(
        days=tuple(partitions),
        starts=tuple([0, *ends.tolist()][: len(parts)]),
        image_ids=pa.chunked_array([part.image_ids for part in parts], pa.string()),
        names=pa.chunked_array([part.names for part in parts], pa.string()),
        articles=pa.chunked_array([part.articles for part in parts], pa.string()),
        marks={
            mark: np.concatenate([np.zeros(0, bool), *(part.marks[mark] for part in parts)])
            for mark in names
        },
    )


def _has(row: CurrentRow, mark: Mark) -> bool:
    """Return whether a mark is a picture's."""
    if mark == VERDICT:
        return row.verdict is not None
    cell = row.groups.get(mark[1])
    match mark:
        case ("untagged", _):
            return cell is None
        case (state, _) if state == NONE:
            return row.verdict is None and cell is not None and not cell.tags
        case ("tag", _, tag):
            return cell is not None and tag in cell.tags
        case ("unsure", _):
            return cell is not None and cell.unsure
        case ("stale", _):
            return cell is not None and cell.stale
        case _:
            return cell is not None and cell.corrected


def _size(mask: np.ndarray) -> int:
    return int(np.count_nonzero(mask))
