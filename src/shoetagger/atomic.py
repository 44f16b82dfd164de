"""Files that others read: written beside their place and renamed, never seen half-written.

They are on the disk before they are renamed, and so is the folder afterwards: where the power goes,
each name has its old file or its new one, and not an empty one.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# What file systems answer that have no such thing, as some of networks do for folders.
_CANNOT_FLUSH = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


@contextmanager
def atomic_write(
    path: Path, folder: Path | None = None, *, flushed: bool = True
) -> Iterator[BinaryIO]:
    """Open a new file that takes the place of `path` when the block ends without an error.

    Until then, and after an error, `path` is what it was and nothing is left beside it. Only a
    killed process leaves its file, which ends in `.tmp`, in `folder` (default: beside `path`).
    Without `flushed` it is for the system to choose when the file is on the disk: for what there
    is much of, and what can be made again.
    """
    beside = (folder or path.parent) / f".{uuid.uuid4().hex}.tmp"
    try:
        with beside.open("xb") as file:
            yield file
        if flushed:
            put_in_place([(beside, path)])
        else:
            beside.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say for what
        raise
    finally:
        beside.unlink(missing_ok=True)


def put_in_place(files: Sequence[tuple[Path, Path]]) -> None:
    """Rename files, given with their places, in this order; folders are made where they lack."""
    for staged, _ in files:
        _flush(staged)
    for staged, place in files:
        place.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(place)
    for folder in sorted({place.parent for _, place in files}):
        _flush(folder)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(descriptor)
