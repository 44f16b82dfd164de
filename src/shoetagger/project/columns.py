"""What the columns of somebody's spreadsheet are: pictures, tags in groups, something else."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..config.params import can_be_group, can_be_tag
from ..config.recipe import Group
from ..errors import ShoetaggerError
from ..learning.dataset.image_files import ImageFiles
from ..learning.dataset.labels import NAME_COLUMN, RESERVED, ticked
from ..learning.dataset.sheet import folded, nearest, text_of

# A title such as `color: black` or `color/black` names its group.
_WITH_GROUP = re.compile(r"(\w+)\s*[:/.]\s*\S")

# A tag of fewer pictures cannot be learned from one and measured on another.
_FEWEST = 2


class ColumnsError(ShoetaggerError):
    """A spreadsheet does not say which pictures it is about, or has no column that is a tag."""


@dataclass(frozen=True)
class Columns:
    """The titles of a sheet: `picture` names the pictures, `tags` are ticked, `others` are kept.

    `rare` are the ticked columns, not among `tags`, that too few pictures have.
    """

    picture: str
    tags: tuple[str, ...]
    others: tuple[str, ...]
    rare: tuple[str, ...]


def columns_of(
    rows: Sequence[Sequence[object]], files: ImageFiles, known: Iterable[str]
) -> Columns:
    """Tell what the columns of a sheet are; `known` are tags, however few pictures have them."""
    titles = {text_of(cell): place for place, cell in enumerate(rows[0])} if rows else {}
    titles.pop("", None)
    body = [row for row in rows[1:] if any(text_of(cell) for cell in row)]
    picture = _picture(titles, body, files)
    by_folded = {folded(tag) for tag in known}
    tags, others, rare = [], [], []
    for title, place in titles.items():
        if title == picture:
            continue
        ticks = [ticked(row[place] if place < len(row) else None) for row in body]
        is_known = folded(title) in by_folded
        if folded(title) in RESERVED or None in ticks or not (is_known or can_be_tag(title)):
            others.append(title)
        elif is_known or sum(map(bool, ticks)) >= _FEWEST:
            tags.append(title)
        else:
            rare.append(title)
    if not tags:
        raise ColumnsError(
            "no column is a tag: one has 1 (or true, x) for yes and 0 (or nothing) for no, and at "
            f"least {_FEWEST} pictures that have it; there are {', '.join(titles)}"
        )
    return Columns(picture, tuple(tags), tuple(others), tuple(rare))


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


def groups_of(tags: Sequence[str], known: Mapping[str, Group]) -> dict[str, Group]:
    """Return groups for tags: those that are known as a whole, then by what titles begin with.

    What is left is one group, `all` or `other`.
    """
    titles = {folded(tag): tag for tag in tags}
    groups = {
        name: group
        for name, group in known.items()
        if all(folded(tag) in titles for tag in group.tags)
    }
    taken = {folded(tag) for group in groups.values() for tag in group.tags}
    left = [tag for tag in tags if folded(tag) not in taken]
    begun: dict[str, list[str]] = {}
    for tag in left:
        match = _WITH_GROUP.match(tag)
        if match and can_be_group(match[1]) and match[1] not in groups:
            begun.setdefault(match[1], []).append(tag)
    begun = {name: members for name, members in begun.items() if len(members) > 1}
    rest = [tag for tag in left if not any(tag in members for members in begun.values())]
    if rest:
        begun["other" if groups or begun else "all"] = rest
    return groups | {name: Group(tuple(members)) for name, members in begun.items()}


def named_groups(pairs: Iterable[str], tags: Sequence[str]) -> dict[str, Group]:
    """Return the groups of options such as `color=black,white`; raises ColumnsError by name."""
    titles = {folded(tag): tag for tag in tags}
    groups: dict[str, Group] = {}
    for pair in pairs:
        name, equals, members = pair.partition("=")
        wanted = [member.strip() for member in members.split(",") if member.strip()]
        if not (equals and wanted and can_be_group(name)) or name in groups:
            raise ColumnsError(f"--group {pair!r}: write NAME=TAG,TAG, each name once")
        for member in wanted:
            if folded(member) not in titles:
                near = nearest(member, tags)
                hint = f"; did you mean {near!r}?" if near else f": there are {', '.join(tags)}"
                raise ColumnsError(f"--group {name}: {member!r} is no column of ticks{hint}")
        groups[name] = Group(tuple(titles[folded(member)] for member in wanted))
    return groups
