"""CSV tables of labels: a column per label, or a column per question with the labels chosen."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence

from .labelled import ExchangeError, LabelFile, Labelled, LabelledImage, Vocabulary

# Columns that name a picture, as this program and others call them.
_NAMES = ("image_name", "image", "file_name", "filename", "file", "path")
_YES, _NO = frozenset({"1", "1.0", "true", "x", "yes"}), frozenset({"", "0", "0.0", "false", "no"})
_BETWEEN = re.compile(r"\s*[,;|]\s*")


def read(data: bytes, name: str, vocabulary: Vocabulary) -> LabelFile:
    """Read a table whose columns are tags (1, 0), or groups (the tags chosen, commas in between).

    The latter is how Label Studio writes CSV. Other columns are left alone.
    """
    rows, header = _rows(data, name)
    picture = next((title for title in _NAMES if title in header), None)
    if picture is None:
        raise ExchangeError(
            [f"{name} row 1: no column names the pictures: call it {_NAMES[0]}, as the label sheet"]
        )
    tags = {tag for of in vocabulary.groups.values() for tag in of}
    known = tags | {title for tag, title in vocabulary.titles.items() if tag in tags}
    ticked = [title for title in header if title in known]
    lists = [title for title in header if title in vocabulary.groups and title not in known]
    if not ticked and not lists:
        raise ExchangeError(
            [
                f"{name} row 1: no column is a tag or a group of params.yaml: there are "
                f"{', '.join(title for title in header if title != picture)}"
            ]
        )
    faults: list[str] = []
    answers: list[Labelled] = []
    for number, row in enumerate(rows, start=2):
        cells = dict(zip(header, row, strict=False))
        if not any(cells.values()):
            continue
        where = f"row {number}"
        labels = {title for title in ticked if _is_yes(cells.get(title, ""), title, where, faults)}
        labels |= {label for title in lists for label in _chosen(cells.get(title, ""))}
        by, at = cells.get("annotator", ""), cells.get("updated_at", "")[:10]
        answers.append(Labelled(cells.get(picture, ""), frozenset(labels), where, by, at))
    if faults:
        raise ExchangeError([f"{name} {fault}" for fault in faults])
    return LabelFile(tuple(answers), choices=frozenset(ticked), questions=frozenset(lists))


def _rows(data: bytes, name: str) -> tuple[list[list[str]], list[str]]:
    """Return the rows below the header, and the header; every cell without spaces around it."""
    try:
        text = data.decode("utf-8-sig")
        delimiter = max(",;\t", key=text.split("\n", 1)[0].count)
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = [[cell.strip() for cell in row] for row in table]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ExchangeError([f"{name} is no CSV in UTF-8 that can be read: {error}"]) from None
    if not rows or not any(rows[0]):
        raise ExchangeError([f"{name} row 1: no header, which names the columns"])
    return rows[1:], rows[0]


def _is_yes(cell: str, title: str, where: str, faults: list[str]) -> bool:
    if cell.lower() not in _YES | _NO:
        faults.append(f"{where}, column {title!r}: {cell!r} is neither 1 nor 0")
    return cell.lower() in _YES


def _chosen(cell: str) -> list[str]:
    """Return the labels of a cell: one, several, or Label Studio's JSON with `choices`."""
    if cell.startswith("{"):
        try:
            choices = json.loads(cell)["choices"]
        except (ValueError, KeyError, TypeError):
            return [cell]  # which is no tag, and refused as one
        return [str(choice) for choice in choices]
    return [label for label in _BETWEEN.split(cell) if label]


def write(images: Sequence[LabelledImage], vocabulary: Vocabulary) -> bytes:
    """Return the label sheet as CSV: image_name, a column per tag, then its further columns."""
    tags = [tag for of in vocabulary.groups.values() for tag in of]
    titles = list(dict.fromkeys(title for image in images for title in image.extra))
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow([_NAMES[0], *tags, *titles])
    for image in images:
        has = {tag for of in image.tags.values() for tag in of}
        cells: Mapping[str, str] = image.extra
        ticks = [int(tag in has) for tag in tags]
        rows.writerow([image.name, *ticks, *(cells.get(title, "") for title in titles)])
    return out.getvalue().encode()
