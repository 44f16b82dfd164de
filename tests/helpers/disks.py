"""Disks that are full."""

from __future__ import annotations

import os
from pathlib import Path


def fill(disk: Path, leave: int = 0) -> Path:
    """Leave at most so many bytes free; removing the file returned makes room again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            os.ftruncate(file.fileno(), max(file.tell() - leave, 0))
    return filler
