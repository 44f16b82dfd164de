"""Files in a folder of this machine, or of one that machines share."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

from ..atomic import atomic_write, put_in_place
from .storage import Stamp

# Writing a file takes milliseconds: an unfinished one older than this is abandoned.
_LEFT_AFTER_SECONDS = 3600.0


class FolderStorage:
    """Files below `root`, which is made when something is first written."""

    at_once = 1

    def __init__(self, root: Path) -> None:
        self._root = root

    def __str__(self) -> str:
        return str(self._root)

    def listed(self, folder: str) -> dict[str, Stamp]:
        found = {}
        waiting = [folder]
        while waiting:  # not by Path: the desk lists a thousand days at each page
            below = waiting.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(self._root / below) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = f"{below}/{entry.name}" if below else entry.name
                    if entry.is_dir():
                        waiting.append(name)
                        continue
                    with contextlib.suppress(FileNotFoundError):  # it vanished meanwhile
                        found[name] = _stamp(entry.stat())
        return found

    def stamps(self, names: Iterable[str]) -> dict[str, Stamp]:
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                stamp = _stamp((self._root / name).stat())
                if stamp.size:  # an empty file is what a power cut may leave
                    found[name] = stamp
        return found

    def read(self, name: str) -> bytes | None:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            return None

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        return (self._root / name).open("rb")

    def put(self, files: Sequence[tuple[Path, str]]) -> None:
        put_in_place([(staged, self._root / name) for staged, name in files])

    def write(self, name: str, data: bytes) -> None:
        path, unfinished = self._root / name, self._unfinished
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.mkdir(exist_ok=True)
        with atomic_write(path, unfinished, flushed=False) as file:
            file.write(data)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        shutil.rmtree(self._root / folder, ignore_errors=True)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a folder on the same file system, and clear away those of killed writers.

        It is the writer's own: one that has lost its turn ends while the next is at work.
        """
        common = self._root / ".staging"
        shutil.rmtree(common, ignore_errors=True)
        staging = common / uuid.uuid4().hex
        staging.mkdir(parents=True)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            with contextlib.suppress(OSError):  # the next one's is in it, or has cleared it away
                common.rmdir()

    def tidy(self) -> None:
        for path in self._unfinished.glob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):  # it has just been renamed to its place
                if time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS:
                    path.unlink()

    @property
    def _unfinished(self) -> Path:
        return self._root / ".unfinished"


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime)
