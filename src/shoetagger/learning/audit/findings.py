"""Cells, rows and pictures of the label sheet that deserve a second look.

Reads what the stages `split`, `crossval` and `evaluate` wrote, and changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from ...config.params import Params
from ...images.decode import Limits, open_image
from ...images.views import Transform, tagging_view
from ..dataset.tables import mean_scores, read_predictions, read_scores, read_split
from .exclusive import check_exclusive
from .finding import AuditError, Finding
from .near_duplicates import near_duplicates, small_view


def findings(
    params: Params, split: Path, crossval: Path, predictions: Path, images: Path
) -> list[Finding]:
    """Return all findings: cells by tag and rank, then contradictions, then near-duplicates.

    Each picture was scored by models that have not seen it: those of the training side out of fold,
    once per repeat, those of the validation side by the final model. `split`, `crossval` and
    `predictions` are the folders of the tables that the stages split, crossval and evaluate wrote.
    Raises AuditError, naming the command to run, where params.yaml, the sheet or the pictures
    changed since.
    """
    result: list[Finding] = []
    check_exclusive(params)
    tables = {
        group: _read(split / f"{group}.csv", spec.tags) for group, spec in params.groups.items()
    }
    for group, spec in params.groups.items():
        table, name = tables[group], f"{group}.csv"
        scores = pd.concat(
            [
                _read_scores(crossval / name, spec.tags, table),
                _read_validation(predictions / name, spec.tags, table),
            ],
            ignore_index=True,
        )
        result += _doubtful_cells(group, spec.tags, table, scores, params.audit.per_tag)
    result += _contradictions(params, tables)
    result += _near_duplicates(params, tables, images)
    ids: dict[str, str] = {}
    for table in tables.values():
        ids |= dict(zip(table["image_name"], table["image_id"], strict=True))
    return [replace(finding, image_id=ids[finding.image_name]) for finding in result]


def _read(
    path: Path, tags: Sequence[str], read: Callable[[Path], pd.DataFrame] = read_split
) -> pd.DataFrame:
    if not path.is_file():
        raise AuditError(f"{path} is missing: run `dvc repro` first")
    table = read(path)
    if lacking := [tag for tag in tags if tag not in table.columns]:
        raise AuditError(
            f"{path} was made before params.yaml named {', '.join(map(repr, lacking))}: run "
            "`dvc repro` first"
        )
    return table


def _read_scores(path: Path, tags: Sequence[str], table: pd.DataFrame) -> pd.DataFrame:
    """Read the out-of-fold scores of the training side of a group's `table`, means over repeats."""
    scores = _read(path, tags, read_scores)
    if scores.empty:
        raise AuditError(
            f"{path} has no scores: set split.folds in params.yaml to 2 or more, and run "
            "`dvc repro`"
        )
    # In another fold, or on the other side, a picture was learned from by the model that scored it.
    training = table.loc[table["side"] == "train", ["image_name", "fold"]]
    first = scores[scores["repeat"] == 0]  # the split table has the folds of this one
    scored, expected = ({*zip(t["image_name"], t["fold"], strict=True)} for t in (first, training))
    if changed := scored ^ expected:
        raise AuditError(
            f"{path} has the scores of another split ({min(changed)[0]!r} is not in the same fold "
            "there): run `dvc repro` first"
        )
    return mean_scores(scores, tags)


def _read_validation(path: Path, tags: Sequence[str], table: pd.DataFrame) -> pd.DataFrame:
    """Read the scores of the validation side of a group's `table`, as `_read_scores` gives them."""
    if not path.is_file():
        raise AuditError(f"{path} is missing: run `dvc repro` first")
    predictions = read_predictions(path)
    scored = predictions[predictions["part"] == "validation"]
    validation = table.loc[table["side"] == "validation", "image_name"]
    columns = {f"score {tag}": tag for tag in tags}
    known = set(columns) <= set(scored.columns)
    if not known or set(scored["image_name"]) != set(validation):
        raise AuditError(f"{path} has the scores of another split: run `dvc repro` first")
    return scored[["image_name", *columns]].rename(columns=columns)


def _doubtful_cells(
    group: str, tags: Sequence[str], table: pd.DataFrame, scores: pd.DataFrame, most: int
) -> list[Finding]:
    """Return the cells that scores contradict, the strongest contradiction first.

    A cell is doubtful when the score of its opposite is at least the mean score of that opposite
    over the pictures that have it in the sheet: confident learning (Northcutt, Jiang and Chuang,
    2021).
    """
    truth = table.set_index("image_name").loc[scores["image_name"]]
    cells = []
    for tag in tags:
        score, ticked = scores[tag].to_numpy(dtype=float), truth[tag].to_numpy() == 1
        if ticked.all() or not ticked.any():
            continue
        excess = np.where(
            ticked, (1 - score) - (1 - score[~ticked]).mean(), score - score[ticked].mean()
        )
        ranked = np.argsort(-excess, kind="stable")[:most]
        for row in ranked[excess[ranked] >= 0]:
            message = f"looks like {'no ' if ticked[row] else ''}{tag}"
            name = str(scores["image_name"].iloc[row])
            sheet = "1" if ticked[row] else "0"
            cells.append(Finding("score", group, tag, name, sheet, round(score[row], 4), message))
    return cells


def _contradictions(params: Params, tables: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    for group, spec in params.groups.items():
        if len(spec.tags) == 1:  # a single tag may be no; of several, one is expected to be yes
            continue
        table = tables[group]
        for name in table.loc[table[list(spec.tags)].sum(axis=1) == 0, "image_name"]:
            yield Finding(
                "untagged", group, "", str(name), "", None, f"no tag of {group} is ticked"
            )
    for tags in params.audit.exclusive:
        owners = {tag: next(g for g, s in params.groups.items() if tag in s.tags) for tag in tags}
        ticked = pd.DataFrame(
            {tag: tables[group].set_index("image_name")[tag] for tag, group in owners.items()}
        )
        for name, row in ticked[ticked.sum(axis=1) > 1].iterrows():
            both = [tag for tag in tags if row[tag] == 1]
            yield Finding(
                "exclusive",
                owners[both[0]],
                ", ".join(both),
                str(name),
                "1",
                None,
                f"{' and '.join(both)} cannot both be true",
            )


def _near_duplicates(
    params: Params, tables: Mapping[str, pd.DataFrame], images: Path
) -> list[Finding]:
    """Return pairs of nearly equal pictures, pairs across the split first.

    A near-duplicate of a training picture on the validation side makes the metrics too good. The
    groups' splits differ in a few pictures: one group with the pair across the split is enough.
    """
    sides = pd.concat([table.set_index("image_name")["side"] for table in tables.values()], axis=1)
    names = [str(name) for name in sides.index]
    limits = Limits.of(params.images)
    views = np.stack([small_view(_bytes_of(images / name), limits) for name in names])
    pairs = []
    for i, j, correlation in near_duplicates(views, params.audit.near_duplicate_correlation):
        across = bool((sides.iloc[i] != sides.iloc[j]).any())
        message = "nearly the same picture" + (" on both sides of the split" if across else "")
        pairs.append((not across, -correlation, names[i], names[j], message))
    return [
        Finding("near_duplicate", "", "", name, "", round(-negative, 4), message, other)
        for _, negative, name, other, message in sorted(pairs)
    ]


def thumbnails(shown: Sequence[Finding], images: Path, params: Params) -> dict[str, bytes]:
    """Return a small JPEG of each picture that a finding names, by image name."""
    limits, transform = Limits.of(params.images), Transform(size=params.publish.thumbnail)
    jpegs = {}
    for name in sorted({n for f in shown for n in (f.image_name, f.other) if n}):
        image = open_image((images / name).read_bytes(), limits, longest=transform.size)
        jpeg = io.BytesIO()
        Image.fromarray(tagging_view(image, transform)).save(jpeg, "JPEG", quality=82)
        jpegs[name] = jpeg.getvalue()
    return jpegs


def _bytes_of(image: Path) -> bytes:
    if not image.is_file():
        raise AuditError(f"{image} is gone since the split was made: run `dvc repro` first")
    return image.read_bytes()
