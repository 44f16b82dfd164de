"""Which cells of the label sheet deserve a second look: what models, tags and pictures contradict.

Reads what the stages `split` and `crossval` wrote; changes nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from PIL import Image

from ...config.params import Params
from ...errors import ShoetaggerError
from ...images.decode import Limits, open_picture
from ...images.views import Transform, tagging_view
from ..dataset.tables import read_split

Kind = Literal["score", "exclusive", "untagged", "copy"]
_THUMBNAIL = 24  # pixels a side that two pictures are compared by
_CHUNK = 512  # pictures compared with all at a time


class AuditError(ShoetaggerError):
    """The stages whose results are audited have not run, or ran on something else."""


@dataclass(frozen=True)
class Finding:
    """One thing to look at: a cell, a row, or a pair of pictures.

    `sheet` is what the sheet says there, `score` the out-of-fold score of the tag (the surest
    findings are near 0 where it is ticked, near 1 where not), or the correlation of two pictures;
    None where there is nothing to measure.
    """

    kind: Kind
    group: str
    tag: str
    image_name: str
    sheet: str
    score: float | None
    says: str
    other: str = ""  # the other picture of a pair


def findings(params: Params, split: Path, crossval: Path, images: Path) -> list[Finding]:
    """Return all findings: cells by tag and rank, then contradictions, then copies.

    `split` and `crossval` are the folders of the tables that the stages of these names wrote.
    Raises AuditError, naming the command, where they have not run since params.yaml, the sheet or
    the pictures changed.
    """
    found: list[Finding] = []
    _check_exclusive(params)
    tables = {
        group: _read(split / f"{group}.csv", spec.tags) for group, spec in params.groups.items()
    }
    for group, spec in params.groups.items():
        scores = _read_scores(crossval / f"{group}.csv", spec.tags, tables[group])
        found += _doubtful_cells(group, spec.tags, tables[group], scores, params.audit.per_tag)
    found += _contradictions(params, tables)
    found += _copies(params, tables, images)
    return found


def _read(path: Path, tags: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        raise AuditError(f"{path} is missing: run `dvc repro` first")
    table = read_split(path)
    if lacking := [tag for tag in tags if tag not in table.columns]:
        raise AuditError(
            f"{path} was made before params.yaml named {', '.join(map(repr, lacking))}: run "
            "`dvc repro` first"
        )
    return table


def _read_scores(path: Path, tags: Sequence[str], table: pd.DataFrame) -> pd.DataFrame:
    """Read out-of-fold scores of the training side of a group's `table`."""
    scores = _read(path, tags)
    if scores.empty:
        raise AuditError(
            f"{path} holds no scores: set split.folds in params.yaml to 2 or more, and run "
            "`dvc repro`"
        )
    # Other pictures, or other folds: either was learned from when it should have been judged.
    training = table.loc[table["side"] == "train", ["image_name", "fold"]]
    known, asked = ({*zip(t["image_name"], t["fold"], strict=True)} for t in (scores, training))
    if changed := known ^ asked:
        raise AuditError(
            f"{path} has the scores of another split ({min(changed)[0]!r} is not in the same fold "
            "there): run `dvc repro` first"
        )
    return scores


def _check_exclusive(params: Params) -> None:
    for i, tags in enumerate(params.audit.exclusive):
        if unknown := [tag for tag in tags if tag not in params.tags]:
            raise AuditError(
                f"params.yaml: audit.exclusive[{i}] names {', '.join(unknown)}, which no group "
                "learns: correct it, or take it out"
            )


def _doubtful_cells(
    group: str, tags: Sequence[str], table: pd.DataFrame, scores: pd.DataFrame, most: int
) -> list[Finding]:
    """Return the cells that out-of-fold scores contradict, the surest contradiction first.

    A cell is doubtful when its opposite is scored at least as high as is usual for pictures that
    the sheet gives that opposite: confident learning's rule (Northcutt, Jiang and Chuang, 2021).
    """
    truth = table.set_index("image_name").loc[scores["image_name"]]
    found = []
    for tag in tags:
        score, ticked = scores[tag].to_numpy(dtype=float), truth[tag].to_numpy() == 1
        if ticked.all() or not ticked.any():
            continue
        excess = np.where(
            ticked, (1 - score) - (1 - score[~ticked]).mean(), score - score[ticked].mean()
        )
        ranked = np.argsort(-excess, kind="stable")[:most]
        for row in ranked[excess[ranked] >= 0]:
            says = f"looks like {'no ' if ticked[row] else ''}{tag}"
            name = str(scores["image_name"].iloc[row])
            sheet = "1" if ticked[row] else "0"
            found.append(Finding("score", group, tag, name, sheet, round(score[row], 4), says))
    return found


def _contradictions(params: Params, tables: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    for group, spec in params.groups.items():
        if len(spec.tags) == 1:  # which may well be no: only several tags have one for each picture
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


def _copies(params: Params, tables: Mapping[str, pd.DataFrame], images: Path) -> list[Finding]:
    """Return pairs of nearly equal pictures, mirrored ones too; pairs across the split first.

    A copy on the validation side of a picture that was learned from makes figures too good. A side
    is a group's own: across the split is what is so in one of them.
    """
    sides = pd.concat([table.set_index("image_name")["side"] for table in tables.values()], axis=1)
    names = [str(name) for name in sides.index]
    limits = Limits.of(params.images)
    views = [_thumbnail(_bytes_of(images / name), limits) for name in names]
    flat = _standardised(np.stack(views))
    mirrored = _standardised(np.stack(views)[:, :, ::-1])
    found = []
    for start in range(0, len(names), _CHUNK):
        rows = flat[start : start + _CHUNK]
        alike = np.maximum(rows @ flat.T, rows @ mirrored.T)
        for i, j in zip(*np.nonzero(alike >= params.audit.copy_correlation), strict=True):
            if start + i < j:
                across = bool((sides.iloc[start + i] != sides.iloc[j]).any())
                says = "nearly the same picture" + (" on both sides of the split" if across else "")
                found.append((not across, -float(alike[i, j]), names[start + i], names[j], says))
    return [
        Finding("copy", "", "", name, "", round(-alike, 4), says, other)
        for _, alike, name, other, says in sorted(found)
    ]


def thumbnails(found: Sequence[Finding], images: Path, params: Params) -> dict[str, bytes]:
    """Return a small JPEG of each picture that a finding names, by image name."""
    limits, transform = Limits.of(params.images), Transform(size=params.publish.thumbnail)
    made = {}
    for name in sorted({n for f in found for n in (f.image_name, f.other) if n}):
        picture = open_picture((images / name).read_bytes(), limits, longest=transform.size)
        jpeg = io.BytesIO()
        Image.fromarray(tagging_view(picture, transform)).save(jpeg, "JPEG", quality=82)
        made[name] = jpeg.getvalue()
    return made


def _bytes_of(picture: Path) -> bytes:
    if not picture.is_file():
        raise AuditError(f"{picture} is gone since the split was made: run `dvc repro` first")
    return picture.read_bytes()


def _thumbnail(data: bytes, limits: Limits) -> np.ndarray:
    picture = open_picture(data, limits, longest=_THUMBNAIL)
    return tagging_view(picture, Transform(size=_THUMBNAIL))


def _standardised(views: np.ndarray) -> np.ndarray:
    """Return pictures as rows of mean 0 and length 1, so that products are correlations."""
    flat = views.reshape(len(views), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    rows: np.ndarray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return rows
