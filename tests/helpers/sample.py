"""The first pictures of the project's own sample, without drawing them: that takes longer."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
REMOTE = ROOT / "remote" / "files" / "md5"  # the DVC remote of the sample


def copy_sample(data: Path, count: int) -> None:
    """Write `count` labelled pictures of the sample: data/images/ and data/labels.csv."""
    listing = yaml.safe_load((ROOT / "data.dvc").read_text())["outs"][0]["md5"]
    files = {file["relpath"]: file["md5"] for file in json.loads(_stored(listing).read_text())}
    with _stored(files["labels.csv"]).open(newline="", encoding="utf-8-sig") as sheet:
        header, *rows = csv.reader(sheet)
    (data / "images").mkdir(parents=True)
    for row in rows[:count]:
        image = f"images/{row[header.index('image_name')]}"
        shutil.copy(_stored(files[image]), data / image)
    with (data / "labels.csv").open("w", newline="", encoding="utf-8") as sheet:
        csv.writer(sheet).writerows([header, *rows[:count]])


def _stored(md5: str) -> Path:
    return REMOTE / md5[:2] / md5[2:]
