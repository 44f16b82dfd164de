"""Which pictures a page of the desk shows: what stands in its address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from urllib.parse import urlencode

from ..config.recipe import Group
from ..errors import ShoetaggerError
from ..store.rows import NOT_A_SHOE

# States of a group of a picture, and those of a picture as a whole.
NONE = "none of these"
CONTRADICTION = "contradiction"
GROUP_STATES = ("unsure", "corrected", "stale", "untagged", NONE)
STATES = (*GROUP_STATES, CONTRADICTION, NOT_A_SHOE)
SIZE = 60

# A tag's field in the address is its group's name behind this, so that a group may be called `q`.
_GROUP = "g."


class SelectionError(ShoetaggerError):
    """An address asks for something that does not exist; the message names it."""


@dataclass(frozen=True)
class Selection:
    """Pictures with any of the `tags` of each group, in any of the `states`, of a range of days.

    `text` is a part of a file's name, in any case; `article` is an article's number. `since`
    and `until` are days (YYYY-MM-DD), both included. An empty field selects everything. `page`
    counts from 1.
    """

    tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    states: tuple[str, ...] = ()
    text: str = ""
    article: str = ""
    since: str = ""
    until: str = ""
    page: int = 1

    @classmethod
    def from_query(cls, query: Iterable[tuple[str, str]], groups: Mapping[str, Group]) -> Selection:
        """Read an address's fields; raises SelectionError that names a wrong one.

        Fields that nobody knows are passed over: links of other pages may carry their own.
        """
        values: dict[str, list[str]] = {}
        for name, value in query:
            values.setdefault(name, []).append(value)
        tags = {
            group: chosen
            for group in groups
            if (chosen := _known(group, values.get(_GROUP + group, []), groups[group].tags))
        }
        return cls(
            tags=tags,
            states=_known("state", values.get("state", []), STATES),
            text=_last(values, "q").strip(),
            article=_last(values, "article").strip(),
            since=_day(values, "from"),
            until=_day(values, "to"),
            page=_page(_last(values, "page")),
        )

    def query(self) -> str:
        """Return the address's fields as text, from which `from_query` makes an equal selection."""
        fields = [(_GROUP + group, tag) for group, tags in self.tags.items() for tag in tags]
        fields += [("state", state) for state in self.states]
        texts = {"q": self.text, "article": self.article, "from": self.since, "to": self.until}
        fields += [(name, value) for name, value in texts.items() if value]
        if self.page > 1:
            fields.append(("page", str(self.page)))
        return urlencode(fields)

    def is_everything(self) -> bool:
        """Return whether nothing narrows the pictures down."""
        return replace(self, page=1) == Selection()

    def at(self, page: int) -> Selection:
        """Return the same pictures at another page."""
        return replace(self, page=page)


def field_of(group: str) -> str:
    """Return the name of the field in an address that holds tags of a group."""
    return _GROUP + group


def _known(name: str, values: Sequence[str], allowed: Sequence[str]) -> tuple[str, ...]:
    for value in values:
        if value not in allowed:
            raise SelectionError(f"{name}: there is no {value!r}, only {', '.join(allowed)}")
    return tuple(value for value in allowed if value in values)


def _last(values: Mapping[str, Sequence[str]], name: str) -> str:
    return values.get(name, [""])[-1]


def _day(values: Mapping[str, Sequence[str]], name: str) -> str:
    text = _last(values, name)
    if text:
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError:
            raise SelectionError(f"{name}: {text!r} is no day: write it as YYYY-MM-DD") from None
    return ""


def _page(text: str) -> int:
    if not text:
        return 1
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise SelectionError(f"page: {text!r} is no page number: pages count from 1")
    return int(text)
