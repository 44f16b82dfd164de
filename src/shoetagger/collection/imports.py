"""Brings labels from a file of another tool into the label sheet of the workspace."""

from __future__ import annotations

import csv
import posixpath
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from more_itertools import longest_common_prefix

from ..atomic import atomic_write
from ..config.params import Params
from ..exchange import formats
from ..exchange.labelled import ExchangeError, LabelFile, Labelled, Vocabulary
from ..images.decode import Limits, unreadable
from ..learning.dataset.image_files import ImageFiles
from ..learning.dataset.labels import LABELLED_AT, LABELLED_BY, NAME_COLUMN, Labels, read_labels
from ..learning.dataset.sheet import LabelsError, find_sheet, folded, nearest
from ..learning.dataset.sheet_rows import Row, spelled_names, write_rows

_SHOWN = 20  # faults, and names in one of them

# What Label Studio puts before the name of a picture that is uploaded to it.
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")


@dataclass(frozen=True)
class Imported:
    """What an import did to the sheet, in pictures; `without` have no answer in the file."""

    sheet: Path
    new: int
    changed: int
    same: int
    without: int


def vocabulary(params: Params) -> Vocabulary:
    """Return the names that a file may use for what params.yaml has."""
    return Vocabulary({n: g.tags for n, g in params.groups.items()}, params.titles)


def import_labels(
    file: Path,
    data: Path,
    params: Params,
    *,
    renamed: Mapping[str, str],
    ignored: Sequence[str],
) -> Imported:
    """Write the labels of a file into the sheet in `data`, all of them or none.

    A label is a tag, or its title; `renamed` says which tag another label is, and `ignored` are
    left out. Cells that the file says nothing of stay as they are. Raises ExchangeError with all
    faults: a label that is no tag, a picture that is not there, two answers for one picture, a new
    picture of which not all was asked, a cell that a workbook cannot take.
    """
    found = formats.read(file, vocabulary(params))
    names = _Names(params, renamed, ignored)
    images = data / "images"
    if not images.is_dir():
        raise ExchangeError(
            [f"{images} is missing: run `dvc pull data`, or put the pictures there"]
        )
    faults: list[str] = []
    answers = _answers(found, ImageFiles(images), names, file.name, faults)
    choices = names.choices(found)
    with tempfile.TemporaryDirectory() as beside:
        sheet, is_new = _copy(data, Path(beside), params)
        before = _checked(sheet, images, params, only=None) if not is_new else None
        faults += _unasked(answers, before, choices, params, file.name)
        if faults:
            raise ExchangeError(_first(faults))
        _write(sheet, answers, choices, ImageFiles(images))
        known = set(before.names) if before else set()
        after = _checked(sheet, images, params, only=set(answers) - known)
        imported = _counted(data / sheet.name, answers, before, after, found.without)
        if imported.new or imported.changed:
            with atomic_write(data / sheet.name) as out:
                out.write(sheet.read_bytes())
    return imported


class _Names:
    """Which tag a label of a file is."""

    def __init__(self, params: Params, renamed: Mapping[str, str], ignored: Sequence[str]) -> None:
        self._params, self._renamed, self._ignored = params, renamed, frozenset(ignored)
        self._by_folded = {folded(params.title(tag)): tag for tag in params.tags}
        self._by_folded |= {folded(tag): tag for tag in params.tags}
        if wrong := [tag for tag in renamed.values() if tag not in params.tags]:
            raise ExchangeError(
                [f"--rename: {tag!r} is no tag of params.yaml{self._near(tag)}" for tag in wrong]
            )

    def tags(self, labels: frozenset[str]) -> frozenset[str]:
        """Return the tags among labels, without those that are none or to be left out."""
        counting = labels - self._ignored
        return frozenset(tag for label in counting if (tag := self._tag(label)))

    def unknown(self, labels: frozenset[str]) -> Iterator[str]:
        """Yield a sentence for each label that is no tag and is not to be left out."""
        for label in sorted(labels):
            if label not in self._ignored and self._tag(label) is None:
                yield (
                    f"{label!r} is no tag of params.yaml{self._near(label)}; --rename "
                    f"'{label}=TAG' says which it is, --ignore '{label}' leaves it out"
                )

    def choices(self, found: LabelFile) -> frozenset[str]:
        """Return the tags that people could choose, as far as the file tells."""
        tags = set(self.tags(found.choices))
        if found.questions:
            used = self.tags(frozenset(label for a in found.answers for label in a.labels))
            for name, group in self._params.groups.items():
                if name in found.questions or used.intersection(group.tags):
                    tags.update(group.tags)
        return frozenset(tags) - {self._tag(label) for label in self._ignored}

    def _tag(self, label: str) -> str | None:
        return self._renamed.get(label) or self._by_folded.get(folded(label.strip()))

    def _near(self, label: str) -> str:
        near = nearest(label, self._by_folded)
        return f"; did you mean {self._by_folded[near]!r}?" if near else ""


def _answers(
    found: LabelFile, files: ImageFiles, names: _Names, file: str, faults: list[str]
) -> dict[str, tuple[Labelled, frozenset[str]]]:
    """Return one answer and its tags for each picture, by its name on disk."""
    common = _common_folder([_path(answer.file) for answer in found.answers])
    answers: dict[str, tuple[Labelled, frozenset[str]]] = {}
    for answer in found.answers:
        where = f"{file}, {answer.where}"
        faults += [f"{where}: {fault}" for fault in names.unknown(answer.labels)]
        name = _resolve(files, _path(answer.file), common, where, faults)
        if name is None:
            continue
        tags = names.tags(answer.labels)
        first, others = answers.setdefault(name, (answer, tags))
        if tags != others:
            differing = ", ".join(sorted(tags ^ others))
            faults.append(
                f"{where}: another answer for {name!r} than {first.where}, which differs in "
                f"{differing}: keep one of the two there, and export again"
            )
    return answers


def _path(file: str) -> str:
    """Return the path in what a tool calls a picture: a path, or an address that ends in one."""
    if "://" not in file and not file.startswith("/data/"):
        return posixpath.normpath(file.replace("\\", "/")).strip("/")
    parts = urlsplit(file)
    local = parse_qs(parts.query).get("d")  # of Label Studio's local files
    return (local[0] if local else unquote(parts.path)).strip("/")


def _common_folder(paths: Sequence[str]) -> list[str]:
    """Return the parts of the folder in which all of the paths lie."""
    folders = [path.split("/")[:-1] for path in paths]
    return list(longest_common_prefix(folders))


def _resolve(
    files: ImageFiles, path: str, common: Sequence[str], where: str, faults: list[str]
) -> str | None:
    """Return the file that a path names, below a part of the folder that all paths have in common.

    So `2024/a.jpg` never passes for `a.jpg` where there is a `2025/a.jpg`, too.
    """
    parts = path.split("/")
    for begin in range(len(common) + 1):
        leaf = "/".join(parts[begin:])
        if name := files.resolve(leaf, where, []) if leaf not in ("", ".") else None:
            return name
    if _UPLOADED.match(parts[-1]):
        uploaded = "/".join([*parts[len(common) : -1], parts[-1][9:]])
        if name := files.resolve(uploaded, where, []):
            return name
    # For its words: which file is like it, and what to do.
    return files.resolve("/".join(parts[len(common) :]), where, faults)


def _copy(data: Path, beside: Path, params: Params) -> tuple[Path, bool]:
    """Return a copy of the sheet to work on, and whether it is new, as there was none."""
    if not any((data / name).is_file() for name in ("labels.csv", "labels.xlsx")):
        sheet = beside / "labels.csv"
        with sheet.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow([NAME_COLUMN, *params.tags])
        return sheet, True
    try:
        source = find_sheet(data)
    except LabelsError as error:
        raise ExchangeError(error.faults) from None
    return Path(shutil.copyfile(source, beside / source.name)), False


def _checked(sheet: Path, images: Path, params: Params, *, only: set[str] | None) -> Labels:
    """Read a sheet as training will; the pictures that `only` names are looked into as well."""
    limits = Limits.of(params.images)
    new = {images / name for name in only or ()}
    try:
        return read_labels(
            sheet,
            images,
            params.tags,
            unreadable=lambda path: unreadable(path, limits) if path in new else None,
        )
    except LabelsError as error:
        why = "has faults already: mend them first" if only is None else "would have faults"
        raise ExchangeError(
            [f"nothing was imported, for the label sheet {why}", *_first(error.faults)]
        ) from None


def _unasked(
    answers: Mapping[str, object],
    before: Labels | None,
    choices: frozenset[str],
    params: Params,
    file: str,
) -> Iterator[str]:
    """Yield a fault where pictures without a row would get a "no" that nobody said."""
    known = set(before.names) if before else set()
    new = [name for name in answers if name not in known]
    lacking = [tag for tag in params.tags if tag not in choices]
    if new and lacking:
        names = ", ".join(map(repr, new[:3])) + (", …" if len(new) > 3 else "")
        yield (
            f"{file} asks for none of {', '.join(lacking)}, and {len(new)} of its pictures have no "
            f"row yet ({names}): a new row needs all tags, so ask for these, too, and export again"
        )


def _write(
    sheet: Path,
    answers: Mapping[str, tuple[Labelled, frozenset[str]]],
    choices: frozenset[str],
    files: ImageFiles,
) -> None:
    spelled = spelled_names(sheet, files)
    new: list[Row] = []
    for name, (answer, tags) in answers.items():
        row = {NAME_COLUMN: spelled.get(name, name)}
        row |= {tag: "1" if tag in tags else "0" for tag in sorted(choices)}
        row |= {LABELLED_BY: answer.by} if answer.by else {}
        new.append(row | ({LABELLED_AT: answer.at} if answer.at else {}))
    columns = [NAME_COLUMN, *sorted(choices), LABELLED_BY, LABELLED_AT]
    used = {column for row in new for column in row}
    if not new:
        return
    try:
        write_rows(sheet, new, [column for column in columns if column in used])
    except LabelsError as error:
        raise ExchangeError(
            ["nothing was imported, for the label sheet cannot take it", *error.faults]
        ) from None


def _counted(
    sheet: Path, answers: Mapping[str, object], before: Labels | None, after: Labels, without: int
) -> Imported:
    def rows(labels: Labels | None) -> dict[str, list[int]]:
        return dict(zip(labels.names, labels.matrix.tolist(), strict=True)) if labels else {}

    old, now = rows(before), rows(after)
    new = sum(name not in old for name in answers)
    changed = sum(name in old and old[name] != now[name] for name in answers)
    return Imported(sheet, new, changed, len(answers) - new - changed, without)


def _first(faults: Sequence[str]) -> list[str]:
    more = len(faults) - _SHOWN
    return [*faults[:_SHOWN], *([f"… and {more} more"] if more > 0 else [])]
