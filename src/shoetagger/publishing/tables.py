"""The current tags as tables: how rows look as Parquet, CSV and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from ..config.recipe import Group
from ..storage.storage import Storage
from .csv_lines import csv_line
from .rows import Cell, Row, Tally, is_none

# What reading a damaged table raises.
UNREADABLE = (OSError, pa.ArrowException, ValueError)

# Rows that are held in memory at a time; also the size of a Parquet row group.
CHUNK = 5000


class Table(Protocol):
    """A table being written: rows come in chunks, `close` writes what is left."""

    def write(self, chunk: Sequence[Row]) -> None: ...

    def close(self, tally: Tally) -> None: ...


class ParquetTable:
    """Parquet, for analysis: a list of tags per group, and one score column per tag.

    Columns: image_id, file, locator, copies (names of further files with the same bytes),
    first_seen (UTC), verdict ("not a shoe", where a person said so, else null), article (null where
    no name tells); per group `<group>_tags` (null = not tagged yet), `<group>_version`,
    `<group>_stale`, `<group>_corrected`, `<group>_unsure`; then `score_<tag>` (float32; null where
    the version that tagged the picture does not know the tag). The footer carries the tally.
    """

    def __init__(self, out: BinaryIO, groups: Mapping[str, Group]) -> None:
        self._groups = groups
        self._schema = parquet_schema(groups)
        self._writer = pq.ParquetWriter(out, self._schema, compression="zstd")

    def write(self, chunk: Sequence[Row]) -> None:
        columns: list[list[Any]] = [
            [row.image_id for row in chunk],
            [row.file for row in chunk],
            [row.locator for row in chunk],
            [list(row.copies) for row in chunk],
            [row.first_seen for row in chunk],
            [row.verdict for row in chunk],
            [row.article for row in chunk],
        ]
        cells = {name: [row.groups.get(name) for row in chunk] for name in self._groups}
        for column in cells.values():
            columns.append([None if c is None else list(c.tags) for c in column])
            columns.append([None if c is None else c.version for c in column])
            columns.append([None if c is None else c.stale for c in column])
            columns.append([None if c is None else c.corrected for c in column])
            columns.append([None if c is None else c.unsure for c in column])
        for name, group in self._groups.items():
            for tag in group.tags:
                columns.append([None if c is None else c.scores.get(tag) for c in cells[name]])
        arrays = [
            pa.array(column, kind.type) for column, kind in zip(columns, self._schema, strict=True)
        ]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self, tally: Tally) -> None:
        self._writer.add_key_value_metadata({"shoetagger": tally.to_json()})
        self._writer.close()


def parquet_schema(groups: Mapping[str, Group]) -> Any:
    """Return the pyarrow schema of the current tags of `groups`."""
    columns = [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("file", pa.string(), nullable=False),
        pa.field("locator", pa.string(), nullable=False),
        pa.field("copies", pa.list_(pa.string()), nullable=False),
        pa.field("first_seen", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("verdict", pa.string()),
        pa.field("article", pa.string()),
    ]
    for name in groups:
        columns += [
            pa.field(f"{name}_tags", pa.list_(pa.string())),
            pa.field(f"{name}_version", pa.string()),
            pa.field(f"{name}_stale", pa.bool_()),
            pa.field(f"{name}_corrected", pa.bool_()),
            pa.field(f"{name}_unsure", pa.bool_()),
        ]
    columns += [pa.field(name, pa.float32()) for name in score_columns(groups)]
    return pa.schema(columns)


def score_columns(groups: Mapping[str, Group]) -> list[str]:
    """Return the names of the columns with scores, in the order of the groups' tags."""
    return [f"score_{tag}" for group in groups.values() for tag in group.tags]


def read_parquet(path: Path, groups: Mapping[str, Group], chunk: int) -> Iterator[list[Row]]:
    """Yield the rows that ParquetTable wrote, `chunk` at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=chunk):
            yield [_row(record, groups) for record in batch.to_pylist()]


def image_ids(storage: Storage, name: str) -> set[str]:
    """Return the image ids in a table that ParquetTable wrote; none where it cannot be read."""
    try:
        with storage.opened(name) as file:
            return set(pq.read_table(file, columns=["image_id"])["image_id"].to_pylist())
    except UNREADABLE:
        return set()


def _row(record: Mapping[str, Any], groups: Mapping[str, Group]) -> Row:
    cells = {}
    for name, group in groups.items():
        if record[f"{name}_tags"] is None:
            continue
        scores = {tag: record[f"score_{tag}"] for tag in group.tags}
        cells[name] = Cell(
            tags=tuple(record[f"{name}_tags"]),
            scores={tag: score for tag, score in scores.items() if score is not None},
            version=record[f"{name}_version"],
            stale=record[f"{name}_stale"],
            corrected=record[f"{name}_corrected"],
            unsure=record[f"{name}_unsure"],
        )
    return Row(
        image_id=record["image_id"],
        file=record["file"],
        locator=record["locator"],
        first_seen=record["first_seen"],
        groups=cells,
        copies=tuple(record["copies"]),
        verdict=record["verdict"],
        article=record["article"],
    )


def read_tally(storage: Storage, name: str) -> Tally | None:
    """Return the tally in the footer of a file that ParquetTable wrote; its rows are not read.

    None where there is no such file, or none that can be read: it was cut short, or damaged.
    """
    try:
        with storage.opened(name) as file:
            return Tally.from_json(pq.read_metadata(file).metadata[b"shoetagger"])
    except (*UNREADABLE, LookupError, TypeError):
        return None


class CsvTable:
    """CSV, for spreadsheets: one row per picture, one column per group with comma-separated tags.

    Columns: image_id, file, first_seen, the groups, then `stale` and `corrected`, which name the
    groups whose tags are of an earlier version or by hand, `copies`, the names of further files
    with the same bytes, `verdict`, "not a shoe" where a person said so, `none`, which names the
    groups none of whose tags fits (the others without tags are not tagged yet), `article`, and
    `unsure`, the groups in which the picture is far from all labelled ones; with `scores`, then
    `score_<tag>`, empty where the version that tagged the picture does not know the tag. Cells
    cannot act as formulas.
    """

    def __init__(self, out: BinaryIO, groups: Mapping[str, Group], *, scores: bool = False) -> None:
        self._groups = groups
        self._out = out
        self._scored = groups if scores else {}
        header = ["image_id", "file", "first_seen", *groups]
        header += ["stale", "corrected", "copies", "verdict", "none", "article", "unsure"]
        self._put([*header, *score_columns(self._scored)])

    def write(self, chunk: Sequence[Row]) -> None:
        for row in chunk:
            cells = [row.groups.get(name) for name in self._groups]
            named = list(zip(self._groups, cells, strict=True))
            self._put(
                [
                    row.image_id,
                    row.file,
                    timestamp(row.first_seen),
                    *("" if cell is None else ", ".join(cell.tags) for cell in cells),
                    ", ".join(name for name, cell in named if cell and cell.stale),
                    ", ".join(name for name, cell in named if cell and cell.corrected),
                    ", ".join(row.copies),
                    row.verdict or "",
                    ", ".join(name for name in self._groups if is_none(row, name)),
                    row.article or "",
                    ", ".join(name for name, cell in named if cell and cell.unsure),
                    *self._scores(row),
                ]
            )

    def _scores(self, row: Row) -> Iterator[str]:
        for name, group in self._scored.items():
            cell = row.groups.get(name)
            for tag in group.tags:
                score = cell.scores.get(tag) if cell else None
                yield "" if score is None else f"{score:.6f}"

    def close(self, tally: Tally) -> None:
        """Nothing follows the rows."""

    def _put(self, cells: Sequence[str]) -> None:
        self._out.write(csv_line(cells))


class JsonlTable:
    """One JSON object per line, with the keys of `shoetagger tag --format jsonl` and a few more."""

    def __init__(self, out: BinaryIO, groups: Mapping[str, Group]) -> None:
        self._groups = groups
        self._out = out

    def write(self, chunk: Sequence[Row]) -> None:
        for row in chunk:
            cells = {name: row.groups[name] for name in self._groups if name in row.groups}
            record = {
                "image_id": row.image_id,
                "file": row.file,
                "locator": row.locator,
                "copies": list(row.copies),
                "first_seen": timestamp(row.first_seen),
                "tags": {name: list(cell.tags) for name, cell in cells.items()},
                "scores": {
                    tag: round(score, 6)
                    for cell in cells.values()
                    for tag, score in cell.scores.items()
                },
                "versions": {name: cell.version for name, cell in cells.items()},
                "stale": [name for name, cell in cells.items() if cell.stale],
                "corrected": [name for name, cell in cells.items() if cell.corrected],
                "verdict": row.verdict,
                "article": row.article,
                "unsure": [name for name, cell in cells.items() if cell.unsure],
            }
            self._out.write(json.dumps(record, ensure_ascii=False).encode("utf-8") + b"\n")

    def close(self, tally: Tally) -> None:
        """Nothing follows the rows."""


FORMATS: Mapping[str, type[ParquetTable] | type[CsvTable] | type[JsonlTable]] = {
    "parquet": ParquetTable,
    "csv": CsvTable,
    "jsonl": JsonlTable,
}


def fill(tables: Sequence[Table], source: Iterable[Row], groups: Mapping[str, Group]) -> Tally:
    """Stream `source` into every table and close them; return what it adds up to."""
    tally = Tally()
    source = iter(source)
    while chunk := list(islice(source, CHUNK)):
        tally.add(chunk, groups)
        for table in tables:
            table.write(chunk)
    for table in tables:
        table.close(tally)
    return tally


def timestamp(moment: datetime) -> str:
    """Return a moment as ISO 8601 text in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
