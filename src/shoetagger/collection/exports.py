"""Writes the label sheet of the workspace as a file for another tool."""

from __future__ import annotations

from pathlib import Path

from ..atomic import atomic_write
from ..config.params import Params
from ..exchange import formats, label_studio
from ..exchange.labelled import LabelledImage
from ..images.decode import Limits, open_with_size, unreadable
from ..learning.dataset.labels import Labels, read_labels
from ..learning.dataset.sheet import find_sheet
from .imports import vocabulary


def export_labels(
    out: Path, data: Path, params: Params, fmt: str, *, root: str = label_studio.LOCAL_FILES
) -> list[Path]:
    """Write the label sheet in `data` in one of `formats.WRITERS`; return the files written.

    With Label Studio's tasks comes their labelling interface; `root` is what the addresses of its
    pictures begin with. Raises LabelsError where the sheet has faults.
    """
    limits, images = Limits.of(params.images), data / "images"
    labels = read_labels(
        find_sheet(data), images, params.tags, unreadable=lambda path: unreadable(path, limits)
    )
    rows = _rows(labels, images, params, limits)
    words = vocabulary(params)
    if fmt == "label-studio":
        interface = out.with_suffix(".interface.xml")
        made = {out: label_studio.write(rows, words, root=root)}
        made[interface] = label_studio.interface(words)
    else:
        made = {out: formats.WRITERS[fmt](rows, words)}
    for path, content in made.items():
        with atomic_write(path) as file:
            file.write(content)
    return list(made)


def _rows(labels: Labels, images: Path, params: Params, limits: Limits) -> list[LabelledImage]:
    notes, rows = labels.notes(), []
    for name, ticks in zip(labels.names, labels.matrix.tolist(), strict=True):
        has = {tag for tag, tick in zip(labels.tags, ticks, strict=True) if tick}
        size = open_with_size((images / name).read_bytes(), limits, longest=1).size
        tags = {n: tuple(t for t in group.tags if t in has) for n, group in params.groups.items()}
        rows.append(LabelledImage(name, size, tags, notes[name]))
    return rows
