"""What the columns of somebody's spreadsheet are: pictures, tags in groups, something else."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ..config.params import can_be_group, can_be_tag
from ..config.recipe import Group
from ..errors import ShoetaggerError
from ..learning.dataset.image_files import ImageFiles
from ..learning.dataset.labels import NAME_COLUMN, RESERVED, no_tick, ticked
from ..learning.dataset.sheet import folded, nearest, shown, text_of

# A title such as `color: black` or `color/black` names its group.
_WITH_GROUP = re.compile(r"(\w+)\s*[:/.]\s*\S")

# A tag of fewer pictures cannot be learned from one and measured on another.
_FEWEST = 2


class ColumnsError(ShoetaggerError):
    """A spreadsheet does not say which pictures it is about, or has no column that is a tag."""


@dataclass(frozen=True)
class Columns:
    """The titles of a sheet: `picture` names the pictures, `tags` are ticked, the others are kept.

    `others` says of each that is no tag why, and `rare` of each that too few pictures have.
    """

    picture: str
    tags: tuple[str, ...]
    others: Mapping[str, str]
    rare: Mapping[str, str]


def columns_of(
    rows: Sequence[Sequence[object]], files: ImageFiles, named: Collection[str] = ()
) -> Columns:
    """Tell what the columns of a sheet are; `named` are those that somebody says are tags.

    Raises ColumnsError with each cell that is no tick in a column that is meant to be a tag.
    """
    titles = {text_of(cell): place for place, cell in enumerate(rows[0])} if rows else {}
    titles.pop("", None)
    body = [(number, row) for number, row in enumerate(rows[1:], start=2) if any(map(text_of, row))]
    picture = _picture(titles, [row for _, row in body], files)
    tags: list[str] = []
    others: dict[str, str] = {}
    rare: dict[str, str] = {}
    faults: list[str] = []
    for title, place in titles.items():
        if title == picture:
            continue
        cells = {number: row[place] for number, row in body if place < len(row)}
        having = sum(ticked(cell) is True for cell in cells.values())
        if _is_meant(title, cells.values(), named):
            faults += _faults_of(title, cells)
        if (why := _why_no_tag(title, cells)) is not None:
            others[title] = why
        elif having < _FEWEST:
            rare[title] = f"a tag needs {_FEWEST} pictures at least, and {having or 'none'} has it"
        else:
            tags.append(title)
    if faults:
        way_out = "" if named else ", or leave a column aside by naming the tags with --group"
        raise ColumnsError("\n".join([*faults, f"nothing was changed: correct this{way_out}"]))
    if not tags:
        left = "".join(f"\n{title}: {why}" for title, why in {**others, **rare}.items())
        raise ColumnsError(
            "no column is a tag: one has 1 (or true, x) for yes and 0 (or nothing) for no, and at "
            f"least {_FEWEST} pictures that have it{left}"
        )
    return Columns(picture, tuple(tags), others, rare)


def _is_meant(title: str, cells: Collection[object], named: Collection[str]) -> bool:
    """Tell whether a column is meant to be a tag: named, or with more than three quarters of ticks.

    Where columns are named, no other one is meant. Columns of numbers have ones and zeros, too.
    """
    if folded(title) in RESERVED:
        return False
    if named:
        return folded(title) in map(folded, named)
    filled = [cell for cell in cells if text_of(cell)]
    return sum(ticked(cell) is not None for cell in filled) > 0.75 * len(filled)


def _faults_of(title: str, cells: Mapping[int, object]) -> Iterator[str]:
    for number, cell in cells.items():
        if ticked(cell) is None:
            yield f"row {number}, column {title!r}: {no_tick(cell)}"


def _why_no_tag(title: str, cells: Mapping[int, object]) -> str | None:
    """Return why a column is no tag, however many pictures have it; None for one that is."""
    if folded(title) in RESERVED:
        return "`shoetagger collect` fills it"
    for number, cell in cells.items():
        if ticked(cell) is None:
            return f"row {number}: {shown(cell)} is no tick"
    if can_be_tag(title):
        return None
    if "," in title:
        return "a tag has no comma in its title, for lists of tags have commas in between"
    return "every table has a column of that title, or it is too long for a tag"


def _picture(titles: Mapping[str, int], body: Sequence[Sequence[object]], files: ImageFiles) -> str:
    """Return the title of the column that names the pictures."""
    for title in titles:
        if folded(title) == NAME_COLUMN:
            return title
    for title, place in titles.items():
        cells = [row[place] for row in body if place < len(row) and text_of(row[place])]
        found = sum(files.resolve(cell, "", []) is not None for cell in cells)
        if cells and found * 2 > len(cells):
            return title
    raise ColumnsError(
        f"no column names pictures in {files.folder}: call it {NAME_COLUMN}, or say with --images "
        f"where they are; there are {', '.join(titles) or 'no columns'}"
    )


def groups_of(columns: Columns, known: Mapping[str, Group]) -> dict[str, Group]:
    """Return groups for tags: those that are known as a whole, then by what titles begin with.

    A group is known as a whole where each of its tags has a column, if only for few pictures. What
    is left is one group, `all` or `other`.
    """
    titles = {folded(tag) for tag in columns.tags}
    rare = {folded(tag) for tag in columns.rare}
    groups = {
        name: replace(group, tags=tags)
        for name, group in known.items()
        if all(folded(tag) in titles | rare for tag in group.tags)
        and (tags := tuple(tag for tag in group.tags if folded(tag) in titles))
    }
    taken = {folded(tag) for group in groups.values() for tag in group.tags}
    left = [tag for tag in columns.tags if folded(tag) not in taken]
    begun: dict[str, list[str]] = {}
    for tag in left:
        match = _WITH_GROUP.match(tag)
        if match and can_be_group(match[1]) and match[1] not in groups:
            begun.setdefault(match[1], []).append(tag)
    begun = {name: members for name, members in begun.items() if len(members) > 1}
    rest = [tag for tag in left if not any(tag in members for members in begun.values())]
    if rest:
        begun["other" if groups or begun else "all"] = rest
    return groups | {name: _group(name, members, known) for name, members in begun.items()}


def named_tags(pairs: Iterable[str]) -> dict[str, list[str]]:
    """Return the tags by group of options such as `color=black,white`."""
    named: dict[str, list[str]] = {}
    for pair in pairs:
        name, equals, members = pair.partition("=")
        wanted = [member.strip() for member in members.split(",") if member.strip()]
        if not (equals and wanted and can_be_group(name)) or name in named:
            raise ColumnsError(f"--group {pair!r}: write NAME=TAG,TAG, each name once")
        named[name] = wanted
    return named


def named_groups(
    named: Mapping[str, Sequence[str]], columns: Columns, known: Mapping[str, Group]
) -> dict[str, Group]:
    """Return the named groups; raises ColumnsError by name."""
    titles = {folded(tag): tag for tag in columns.tags}
    left = {folded(title): why for title, why in {**columns.others, **columns.rare}.items()}
    groups: dict[str, Group] = {}
    for name, members in named.items():
        for member in members:
            if (why := left.get(folded(member))) is not None:
                raise ColumnsError(f"--group {name}: {member!r} cannot be learned: {why}")
            if folded(member) not in titles:
                near = nearest(member, columns.tags)
                there = ", ".join(columns.tags)
                hint = f"; did you mean {near!r}?" if near else f": there are {there}"
                raise ColumnsError(f"--group {name}: {member!r} is no column of ticks{hint}")
        groups[name] = _group(name, [titles[folded(member)] for member in members], known)
    return groups


def _group(name: str, tags: Sequence[str], known: Mapping[str, Group]) -> Group:
    """Return a group of tags, by the recipe that is known for its name."""
    return replace(known[name], tags=tuple(tags)) if name in known else Group(tuple(tags))
