"""Files that others read: written beside their place and renamed, never seen half-written."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: Path, folder: Path | None = None) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    Until then, and after an error, `path` is what it was and nothing is left beside it. Only a
    killed process leaves its file, which ends in `.tmp`, in `folder` (default: beside `path`).
    """
    beside = (folder or path.parent) / f".{uuid.uuid4().hex}.tmp"
    try:
        with beside.open("xb") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say for what
        raise
    finally:
        beside.unlink(missing_ok=True)
