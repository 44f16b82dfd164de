"""Articles: the pictures that show one article, and the tags that they give it together."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..config.recipe import Group
from ..storage.storage import Storage
from .csv_lines import csv_line
from .rows import Cell, Row
from .tables import UNREADABLE, timestamp

# By format, beside the folders with the days' tables.
TABLES = {"parquet": "articles.parquet", "csv": "articles.csv"}


@dataclass
class Votes:
    """How many pictures of an article have a word on one group, and on each of its tags."""

    pictures: int = 0
    tags: Counter[str] = field(default_factory=Counter)

    def add(self, tags: Iterable[str]) -> None:
        self.pictures += 1
        self.tags.update(tags)

    def include(self, other: Votes) -> None:
        self.pictures += other.pictures
        self.tags.update(other.tags)


@dataclass
class Article:
    """What the pictures of an article say, by group: people, and models.

    A tag is the article's if at least half of its pictures have it. Where people corrected or
    confirmed some of the pictures in a group, only these count. Pictures that are not shoes, or are
    not tagged yet, have no say.
    """

    pictures: int = 0
    first_seen: datetime | None = None
    people: dict[str, Votes] = field(default_factory=dict)
    models: dict[str, Votes] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        self.pictures += 1
        if self.first_seen is None or row.first_seen < self.first_seen:
            self.first_seen = row.first_seen
        if row.verdict is not None:
            return
        for group, cell in row.groups.items():
            votes = self.people if cell.corrected else self.models
            votes.setdefault(group, Votes()).add(cell.tags)

    def include(self, other: Article) -> None:
        """Count the pictures of another table as well."""
        self.pictures += other.pictures
        seen = [time for time in (self.first_seen, other.first_seen) if time is not None]
        self.first_seen = min(seen, default=None)
        for mine, more in ((self.people, other.people), (self.models, other.models)):
            for group, votes in more.items():
                mine.setdefault(group, Votes()).include(votes)

    def tags(self, name: str, group: Group) -> tuple[str, ...] | None:
        """Return the article's tags in a group, in its order; None where no picture has a say."""
        votes = self.people.get(name) or self.models.get(name)
        if votes is None:
            return None
        return tuple(tag for tag in group.tags if 2 * votes.tags[tag] >= votes.pictures)

    def is_corrected(self, name: str) -> bool:
        """Return whether people's word on a group is all that counts."""
        return name in self.people


def by_article(rows: Iterable[Row]) -> dict[str, Article]:
    """Return the articles that rows belong to; rows of none are passed over."""
    found: dict[str, Article] = {}
    for row in rows:
        if row.article is not None:
            found.setdefault(row.article, Article()).add(row)
    return dict(sorted(found.items()))


def from_tables(
    storage: Storage,
    tables: Iterable[str],
    groups: Mapping[str, Group],
    write_again: Callable[[str], None],
) -> dict[str, Article]:
    """Return the articles of the pictures in published tables, as `by_article` does.

    `write_again` is called with the name of a table that is damaged, which is then read once more.
    """

    found: dict[str, Article] = {}
    for table in tables:
        try:
            of_table = by_article(_rows(storage, table, groups))
        except UNREADABLE:
            write_again(table)
            of_table = by_article(_rows(storage, table, groups))
        for name, article in of_table.items():
            found.setdefault(name, Article()).include(article)
    return dict(sorted(found.items()))


def _rows(storage: Storage, table: str, groups: Mapping[str, Group]) -> Iterator[Row]:
    """Yield the pictures of an article in a day's table, with what counts for it."""
    cells = [f"{name}_{what}" for name in groups for what in ("tags", "corrected")]
    with storage.opened(table) as source, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(columns=["article", "first_seen", "verdict", *cells]):
            for record in batch.filter(pc.is_valid(batch["article"])).to_pylist():
                yield Row(
                    "", "", "",
                    record["first_seen"],
                    {
                        name: Cell(tuple(tags), {}, None, False, record[f"{name}_corrected"])
                        for name in groups
                        if (tags := record[f"{name}_tags"]) is not None
                    },
                    verdict=record["verdict"],
                    article=record["article"],
                )  # fmt: skip


def stage_tables(
    stage: Callable[[str], Path],
    storage: Storage,
    tables: Sequence[str],
    groups: Mapping[str, Group],
    write_again: Callable[[str], None],
) -> None:
    """Write the tables of articles, of the pictures in the days' tables, where `stage` says.

    `write_again` is called as by `from_tables`, before anything is staged.
    """
    articles = from_tables(storage, tables, groups, write_again)
    for fmt, name in TABLES.items():
        with stage(name).open("wb") as out:
            write_articles(articles, groups, fmt, out)


def are_behind(storage: Storage, tables: Sequence[str]) -> bool:
    """Return whether a table of articles is missing or older than one of a day.

    So it is where a publication was cut off after it had written its days.
    """
    written = storage.stamps(TABLES.values())
    if len(written) < len(TABLES):
        return True
    latest = max((stamp.modified for stamp in storage.stamps(tables).values()), default=0.0)
    return min(stamp.modified for stamp in written.values()) < latest


def remove_tables(storage: Storage) -> None:
    """Remove the tables of articles, which no name tells any more."""
    storage.remove(TABLES.values())


def write_articles(
    articles: Mapping[str, Article], groups: Mapping[str, Group], fmt: str, out: BinaryIO
) -> int:
    """Write a row per article as parquet, csv or jsonl; return the number of rows.

    Columns: article, pictures (their number), first_seen (of the first), the tags per group, and
    `corrected`, the groups in which only what people said counts.
    """
    {"parquet": _write_parquet, "csv": _write_csv, "jsonl": _write_jsonl}[fmt](
        articles, groups, out
    )
    return len(articles)


def _write_csv(articles: Mapping[str, Article], groups: Mapping[str, Group], out: BinaryIO) -> None:
    out.write(csv_line(["article", "pictures", "first_seen", *groups, "corrected"]))
    for number, article in articles.items():
        tags = [", ".join(article.tags(name, group) or ()) for name, group in groups.items()]
        corrected = ", ".join(_corrected(article, groups))
        out.write(csv_line([number, str(article.pictures), _seen(article), *tags, corrected]))


def _write_jsonl(
    articles: Mapping[str, Article], groups: Mapping[str, Group], out: BinaryIO
) -> None:
    for number, article in articles.items():
        tags = {name: article.tags(name, group) for name, group in groups.items()}
        record = {
            "article": number,
            "pictures": article.pictures,
            "first_seen": _seen(article),
            "tags": {name: list(found) for name, found in tags.items() if found is not None},
            "corrected": _corrected(article, groups),
        }
        out.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _write_parquet(
    articles: Mapping[str, Article], groups: Mapping[str, Group], out: BinaryIO
) -> None:
    columns: dict[str, pa.Array] = {
        "article": pa.array(articles, pa.string()),
        "pictures": pa.array([a.pictures for a in articles.values()], pa.int32()),
        "first_seen": pa.array(
            [a.first_seen for a in articles.values()], pa.timestamp("us", tz="UTC")
        ),
    }
    for name, group in groups.items():
        tags = [article.tags(name, group) for article in articles.values()]
        columns[f"{name}_tags"] = pa.array(tags, pa.list_(pa.string()))
        corrected = [article.is_corrected(name) for article in articles.values()]
        columns[f"{name}_corrected"] = pa.array(corrected, pa.bool_())
    pq.write_table(pa.table(columns), out, compression="zstd")


def _corrected(article: Article, groups: Iterable[str]) -> Sequence[str]:
    return [name for name in groups if article.is_corrected(name)]


def _seen(article: Article) -> str:
    return timestamp(article.first_seen) if article.first_seen else ""
