"""What others read, as files by name: one protocol for a folder and a bucket."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from ..errors import TransientError


class StorageError(TransientError):
    """A bucket cannot be reached, or refuses what is asked of it."""


@dataclass(frozen=True)
class Stamp:
    """A file as a listing shows it: a replaced one has another stamp."""

    size: int  # bytes
    modified: float  # seconds since the epoch
    tag: str = ""  # of a bucket, by the bytes


class Storage(Protocol):
    """Files by name, a relative path with slashes; each is seen whole, or as it was before.

    Names that begin with a dot are its writers' own. Methods raise OSError for a folder, and
    StorageError, which says what to do, for a bucket.
    """

    at_once: int  # calls that may go on side by side, with profit

    def listed(self, folder: str) -> dict[str, Stamp]:
        """Return all files below a folder, by name; those with a dot before a part left out."""
        ...

    def stamps(self, names: Iterable[str]) -> dict[str, Stamp]:
        """Return the stamps of those of the files that are there and not empty."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a whole file; None where there is none."""
        ...

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open a file to read parts of it; raises FileNotFoundError where there is none."""
        ...

    def put(self, files: Sequence[tuple[Path, str]]) -> None:
        """Put staged files under their names, to stay there after a power cut.

        A bucket gets several at a time, and those that it has already not again.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a file that can be made again."""
        ...

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; one that is not there is no error."""
        ...

    def remove_folder(self, folder: str) -> None:
        """Remove a folder and all below it, if it is there."""
        ...

    def staging(self) -> AbstractContextManager[Path]:
        """Give an empty local folder, from which files are put; one writer at a time has it."""
        ...

    def tidy(self) -> None:
        """Remove what writers that were killed have left half-written."""
        ...


def of_day(names: Mapping[str, Stamp]) -> dict[str, str]:
    """Return the names of the tables among `parquet/day=.../tags.parquet`, by day, in order."""
    found = {}
    for name in sorted(names):
        folder, _, file = name.removeprefix("parquet/").partition("/")
        if folder.startswith("day=") and file == "tags.parquet":
            found[folder.removeprefix("day=")] = name
    return found
