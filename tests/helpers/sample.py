"""The first pictures of the project's own sample, without drawing them: that takes longer."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
REMOTE = ROOT / "remote" / "files" / "md5"  # the DVC remote of the sample


def copy_sample(data: Path, count: int) -> None:
    """Write the first `count` labelled pictures of the sample: data/images/ and data/labels.csv."""
    header, *rows = _sheet()
    copy_images(data / "images", range(count))
    with (data / "labels.csv").open("w", newline="", encoding="utf-8") as sheet:
        csv.writer(sheet).writerows([header, *rows[:count]])


def keep_columns(sheet: Path, tags: Sequence[str]) -> None:
    """Leave only the columns of these tags in a label sheet."""
    with sheet.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    write_sheet(sheet, rows, tags)


def write_sheet(sheet: Path, rows: Iterable[Mapping[str, str]], tags: Sequence[str]) -> None:
    """Write the columns of these tags as a label sheet."""
    sheet.unlink(missing_ok=True)  # it may be a link into DVC's cache
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["image_name", *tags], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def copy_images(folder: Path, places: range) -> None:
    """Copy the pictures of these rows of the sample's label sheet, the first of which is row 0."""
    header, *rows = _sheet()
    files = _files()
    folder.mkdir(parents=True, exist_ok=True)
    for place in places:
        name = rows[place][header.index("image_name")]
        shutil.copy(_stored(files[f"images/{name}"]), folder / name)


def _sheet() -> list[list[str]]:
    with _stored(_files()["labels.csv"]).open(newline="", encoding="utf-8-sig") as sheet:
        return list(csv.reader(sheet))


def _files() -> dict[str, str]:
    """Return the md5 of each file of data/, as data.dvc names it."""
    listing = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]["md5"]
    return {file["relpath"]: file["md5"] for file in json.loads(_stored(listing).read_text())}


def _stored(md5: str) -> Path:
    return REMOTE / md5[:2] / md5[2:]
