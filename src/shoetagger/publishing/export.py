"""The current tags of all images as one table, on demand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from ..atomic import atomic_write
from ..config.operations import NO_ARTICLES, Articles
from ..config.places import Place
from ..config.recipe import Group
from ..store.store import Store
from .articles import by_article, write_articles
from .publication import PublishError
from .rows import rows
from .tables import FORMATS, CsvTable, fill


def export(
    store: Store,
    groups: Mapping[str, Group],
    fmt: str,
    out: Path | BinaryIO,
    *,
    inbox: Place,
    scores: bool = False,
    articles: Articles = NO_ARTICLES,
    per_article: bool = False,
) -> int:
    """Write the current tags of all pictures as one table; return the number of rows.

    `fmt` is parquet, csv or jsonl (see `tables`); a CSV has scores only if asked for. With
    `per_article` a row is an article with the tags that its pictures give it together, as
    `articles.Article` says, and what belongs to none is left out. A path is written beside and
    renamed, unless it is a device or a pipe; a stream is written as it comes. Raises PublishError.
    """
    if fmt not in FORMATS:
        raise PublishError(f"no format {fmt!r}: the formats are {', '.join(FORMATS)}")

    def write(stream: BinaryIO) -> int:
        source = rows(store.current.rows(list(groups)), groups, inbox, articles)
        if per_article:
            return write_articles(by_article(source), groups, fmt, stream)
        table = (
            CsvTable(stream, groups, scores=scores)
            if fmt == "csv"
            else FORMATS[fmt](stream, groups)
        )
        return fill([table], source, groups).pictures

    try:
        if not isinstance(out, Path):
            return write(out)
        if out.exists() and not out.is_file():
            with out.open("wb") as device:
                return write(device)
        with atomic_write(out) as file:
            return write(file)
    except OSError as error:
        where = out if isinstance(out, Path) else "the output"
        raise PublishError(f"cannot write {where}: {error.strerror or error}") from error
