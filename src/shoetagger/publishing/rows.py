"""What a row of the tables holds, and what rows add up to."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote_to_bytes

from ..config.operations import Articles
from ..config.places import Place, root
from ..config.recipe import Group
from ..store.rows import CurrentRow

# Pictures that a day's footer names, for the row of thumbnails that stands for the day.
FIRST = 8


@dataclass(frozen=True)
class Cell:
    """What counts now for one picture and one group."""

    tags: tuple[str, ...]
    scores: Mapping[str, float]
    version: str | None
    stale: bool
    corrected: bool
    unsure: bool = False


@dataclass(frozen=True)
class Row:
    """One picture: a group that has not tagged it yet is missing from `groups`.

    `file` is a name for people, valid text of one line; `locator` is the exact one. `copies` are
    the names, for people, of further files with the same bytes. `verdict` is what a person said of
    the whole picture, such as "not a shoe"; with one, no group has tags. `article` is the number of
    the article that it shows, by its name.
    """

    image_id: str
    file: str
    locator: str
    first_seen: datetime
    groups: Mapping[str, Cell]
    copies: tuple[str, ...] = ()
    verdict: str | None = None
    article: str | None = None


def is_none(row: Row, group: str) -> bool:
    """Return whether a shoe has none of a group's tags, as far as models or people know."""
    cell = row.groups.get(group)
    return row.verdict is None and cell is not None and not cell.tags


def shown_name(locator: str, inbox: Place) -> str:
    """Return a file's name below `inbox` (else its last part) as one line of valid text.

    Bytes that are not UTF-8, control characters and those that turn the direction of writing
    appear as escapes (`\\xff`, `\\n`, `\\u202e`), so that a name can neither break a line nor pass
    for another.
    """
    above = root(inbox)
    name = locator[len(above) :] if locator.startswith(above) else locator.rsplit("/", 1)[-1]
    return printable(unquote_to_bytes(name).decode("utf-8", "backslashreplace"))


def printable(text: str) -> str:
    """Return a text as one line, with what a terminal or a page would obey as escapes."""
    return "".join(_visible(letter) for letter in text)


# Left-to-right and right-to-left overrides, embeddings, isolates and marks.
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _visible(letter: str) -> str:
    if letter in _TURNS or unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp"):
        return letter.encode("unicode_escape").decode("ascii")
    return letter


def rows(
    current: Iterable[CurrentRow],
    groups: Mapping[str, Group],
    inbox: Place,
    articles: Articles,
) -> Iterator[Row]:
    """Turn the store's rows into those of the tables, one by one."""
    for picture in current:
        locator = picture.locators[0] if picture.locators else ""
        file, *copies = (shown_name(each, inbox) for each in picture.locators or ("",))
        yield Row(
            image_id=picture.image_id,
            file=file,
            locator=locator,
            first_seen=picture.first_seen,
            copies=tuple(copies),
            verdict=picture.verdict,
            article=articles.of((file, *copies)),
            groups={
                name: Cell(
                    tags=tuple(cell.tags),
                    scores=cell.scores,
                    version=cell.version,
                    stale=cell.stale,
                    corrected=cell.corrected,
                    unsure=cell.unsure,
                )
                for name in groups
                if (cell := picture.groups.get(name)) is not None
            },
        )


@dataclass
class Tally:
    """What the rows of a table add up to; the tags are counted a group."""

    pictures: int = 0
    tags: dict[str, Counter[str]] = field(default_factory=dict)
    stale: Counter[str] = field(default_factory=Counter)
    untagged: Counter[str] = field(default_factory=Counter)
    first: list[str] = field(default_factory=list)

    def add(self, chunk: Sequence[Row], groups: Iterable[str]) -> None:
        self.pictures += len(chunk)
        self.first += [row.image_id for row in chunk[: max(0, FIRST - len(self.first))]]
        for group in groups:
            counted = self.tags.setdefault(group, Counter())
            for row in chunk:
                cell = row.groups.get(group)
                if cell is None:
                    self.untagged[group] += 1
                    continue
                counted.update(cell.tags)
                self.stale[group] += cell.stale

    def merge(self, other: Tally) -> None:
        """Add another table's counts to these."""
        self.pictures += other.pictures
        for group, counted in other.tags.items():
            self.tags.setdefault(group, Counter()).update(counted)
        self.stale.update(other.stale)
        self.untagged.update(other.untagged)

    def to_json(self) -> str:
        return json.dumps(
            {
                "pictures": self.pictures,
                "tags": self.tags,
                "stale": self.stale,
                "untagged": self.untagged,
                "first": self.first,
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Tally:
        known = json.loads(text)
        return cls(
            pictures=known["pictures"],
            tags={group: Counter(counted) for group, counted in known["tags"].items()},
            stale=Counter(known["stale"]),
            untagged=Counter(known["untagged"]),
            first=list(known["first"]),
        )
