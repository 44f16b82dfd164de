"""The formats that labels come and go in, and how a file's format is recognised."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from . import coco, cvat, label_studio, table
from .labelled import ExchangeError, LabelFile, LabelledImage, Vocabulary

WRITERS: Mapping[str, Callable[[Sequence[LabelledImage], Vocabulary], bytes]] = {
    "csv": table.write,
    "label-studio": label_studio.write,
    "coco": coco.write,
    "cvat": cvat.write,
}


def read(path: Path, vocabulary: Vocabulary) -> LabelFile:
    """Read a file of one of the formats, by its content; raises ExchangeError with all faults."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ExchangeError([f"{path} cannot be read: {error.strerror or error}"]) from None
    if data.startswith(b"PK\x03\x04"):
        raise ExchangeError(
            [f"{path.name} is an archive: unpack it, and name the file of labels in it"]
        )
    start = data.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"<":
        return cvat.read(data, path.name)
    if start in (b"[", b"{"):
        try:
            document = json.loads(data)
        except ValueError as error:
            raise ExchangeError([f"{path.name} is no JSON that can be read: {error}"]) from None
        reader = label_studio.read if isinstance(document, list) else coco.read
        return reader(document, path.name)
    return table.read(data, path.name, vocabulary)
