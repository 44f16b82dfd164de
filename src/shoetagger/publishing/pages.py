"""Pages of pictures with their tags as captions: plain HTML that can be copied anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from urllib.parse import quote

from ..config.recipe import Group
from ..rendering import TEMPLATES, template
from .rows import Row, Tally

# Colours of the groups in style.css; a seventh group takes the first one again.
COLOURS = 6

# Page numbers shown on either side of the one that is open.
AROUND = 3


@dataclass(frozen=True)
class Day:
    """An arrival day, as the index lists it; `thumbnails` are the ids of its first pictures.

    One that is not `paged` has tables only.
    """

    day: str
    tally: Tally
    thumbnails: tuple[str, ...] = ()
    paged: bool = True


@dataclass(frozen=True)
class LiveGroup:
    """A group's live version, and how many pictures it has tagged so far."""

    name: str
    version: str | None
    since: datetime | None
    tagged: int
    stale: int
    untagged: int


@dataclass(frozen=True)
class Refusal:
    """A rejected file."""

    file: str
    reason: str
    first_seen: datetime


@dataclass(frozen=True)
class Legend:
    """A tag as the pages show it: `mark` is its class there, `count` its pictures."""

    tag: str
    mark: str
    count: int
    share: float


def style(groups: Mapping[str, Group]) -> str:
    """Return the one style sheet; it knows how many tags the pages filter by."""
    count = sum(len(group.tags) for group in groups.values())
    return template("style.css").render(tags=range(count))


def day_page(
    day: str,
    rows: Sequence[Row],
    *,
    groups: Mapping[str, Group],
    titles: Mapping[str, str],
    gone: frozenset[str] | set[str],
    number: int,
    pages: int,
    page_size: int,
    pictures: int,
) -> str:
    """Return page `number` of a day's `pages`, which show at most page_size pictures each.

    `titles` are what people read for a tag or a group that has one. `gone` names the pictures that
    have no thumbnail; `pictures` is the day's total, more than the
    pages show where their number is bounded.
    """
    tally = Tally()
    tally.add(rows, groups)
    return template("day.html", _functions(titles)).render(
        day=day,
        date=date.fromisoformat(day),
        rows=rows,
        groups=groups,
        gone=gone,
        number=number,
        pages=pages,
        numbers=pager(number, pages),
        first=(number - 1) * page_size + 1,
        pictures=pictures,
        shown=min(pictures, pages * page_size),
        legend=legend(tally, groups),
        stale=sum(any(cell.stale for cell in row.groups.values()) for row in rows),
        marks=_marks(groups),
    )


def index_page(
    days: Sequence[Day],
    live: Sequence[LiveGroup],
    *,
    groups: Mapping[str, Group],
    titles: Mapping[str, str],
    tally: Tally,
    waiting: int,
    rejected: int,
    now: datetime,
) -> str:
    """Return the first page: live versions, tags in all, and the days, latest first."""
    return template("index.html", _functions(titles)).render(
        days=days,
        live=live,
        groups=groups,
        pictures=tally.pictures,
        waiting=waiting,
        rejected=rejected,
        legend=legend(tally, groups),
        now=now.astimezone(UTC),
    )


def rejected_page(shown: Sequence[Refusal], total: int) -> str:
    """Return the page of rejected files; `total` counts those that are not shown, too."""
    return template("rejected.html").render(refusals=shown, total=total)


def page_name(number: int) -> str:
    """Return the file name of a day's page."""
    return f"{number:03d}.html"


def fingerprint() -> str:
    """Return a digest of the templates; pages made from other ones have to be made again."""
    digest = hashlib.sha256()
    for name in _TEMPLATES:
        digest.update(name.encode() + b"\0" + (TEMPLATES / name).read_bytes())
    return digest.hexdigest()


def legend(tally: Tally, groups: Mapping[str, Group]) -> dict[str, list[Legend]]:
    """Return each group's tags in order, with their counts; shares are of the group's largest."""
    marks = _marks(groups)
    found: dict[str, list[Legend]] = {}
    for name, group in groups.items():
        counted: Mapping[str, int] = tally.tags.get(name, {})
        most = max((counted.get(tag, 0) for tag in group.tags), default=0) or 1
        found[name] = [
            Legend(tag, marks[tag], counted.get(tag, 0), counted.get(tag, 0) / most)
            for tag in group.tags
        ]
    return found


def _marks(groups: Mapping[str, Group]) -> dict[str, str]:
    """Return a class name for each tag: a number, so that no tag can break out of one."""
    tags = (tag for group in groups.values() for tag in group.tags)
    return {tag: f"t{i}" for i, tag in enumerate(tags)}


def pager(number: int, pages: int) -> list[int | None]:
    """Return the page numbers to link to; None stands for those left out between two."""
    near = range(max(1, number - AROUND), min(pages, number + AROUND) + 1)
    wanted = sorted({1, pages, *near})
    found: list[int | None] = []
    for page in wanted:
        if found and found[-1] is not None and page > found[-1] + 1:
            found.append(None)
        found.append(page)
    return found


def _functions(titles: Mapping[str, str]) -> Mapping[str, Callable[..., object]]:
    """Return what the templates of pages can call."""

    def title(name: str) -> str:
        return titles.get(name, name)

    return {
        "caption": lambda row: _caption(row, title),
        "colour": _colour,
        "hint": lambda row, name, tag: _hint(row, name, tag, title),
        "page_name": page_name,
        "thumbnail": _thumbnail,
        "title": title,
    }


def _colour(groups: Iterable[str], name: str) -> str:
    return f"g{list(groups).index(name) % COLOURS}"


def _hint(row: Row, name: str, tag: str | None, title: Callable[[str], str]) -> str:
    """Return the tooltip of a tag, or of a group without tags: its group, score and version."""
    cell = row.groups[name]
    parts = [title(name)]
    if cell.corrected:
        parts.append("set by hand")
    else:
        if tag is not None and tag in cell.scores:
            parts.append(f"score {cell.scores[tag]:.2f}")
        if cell.version is not None:
            parts.append(f"version {cell.version}")
    if cell.unsure:
        parts.append("unsure: far from all labelled pictures")
    if cell.stale:
        parts.append("of an earlier version, not tagged again yet")
    return " · ".join(parts)


def _caption(row: Row, title: Callable[[str], str]) -> str:
    """Return the tags of a picture as one sentence, for screen readers."""
    if row.verdict is not None:
        return f"Picture judged as {row.verdict}"
    tags = [title(tag) for cell in row.groups.values() for tag in cell.tags]
    return f"Picture tagged {', '.join(tags)}" if tags else "Picture without tags"


def _thumbnail(image_id: str) -> str:
    return f"thumbs/{quote(image_id[:2])}/{quote(image_id)}.jpg"


# What every published page is made from; a change of any makes all pages again.
_TEMPLATES = ("base.html", "day.html", "index.html", "rejected.html", "style.css")
