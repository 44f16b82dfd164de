"""What an inbox is: it lists its files and reads them, and changes nothing there.

A locator is where a file was seen, as a URL of percent-encoded bytes, so that any name survives.
Only the modules of the two kinds of inbox, `folder` and `bucket`, open locators.
"""

# The errors' names say what became of the file; "GoneError" would say no more:
# ruff: noqa: N818

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from ..errors import ShoetaggerError, TransientError

ELSEWHERE = "it lies in another inbox than SHOETAGGER_INBOX names"


class InboxError(TransientError):
    """The inbox as a whole cannot be listed or read, or a locator is not one."""


class ReadError(ShoetaggerError):
    """One file could not be read; `reason` is a short phrase for people, `locator` names it."""

    def __init__(self, locator: str, reason: str) -> None:
        super().__init__(locator, reason)  # both, so that it can be pickled between processes
        self.locator = locator
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.locator}: {self.reason}"


class Gone(ReadError):
    """There is no file of this name any more."""


class Changed(ReadError):
    """The file was written to while it was read; the next run reads it."""


class Unreachable(ReadError):
    """As things are, the file cannot be read, by no fault of its own; the next run tries again."""


class TooLarge(ReadError):
    """The file has more bytes than the limit; nothing of it was read."""


class Unreadable(ReadError):
    """Not a regular file of this inbox; final until it changes."""


@dataclass(frozen=True)
class Arrival:
    """One entry of the inbox; `refused` is the reason why it must not even be opened."""

    locator: str
    token: str
    refused: str | None = None
    is_folder: bool = False  # one that cannot be listed: nobody knows what is in it
    is_unknown: bool = False  # it is there, and its place does not say how it is


@dataclass(frozen=True)
class Content:
    """A file's bytes, all of one moment, and the token that its listing had then."""

    data: bytes
    token: str
    modified_at: datetime | None = None  # where the file may still have been arriving


class Inbox(Protocol):
    """Where pictures arrive, whatever holds them."""

    @property
    def fetched_ahead(self) -> int:
        """How many files to read ahead here, for decoding processes; 0: they read by themselves."""

    def scan(self, *, state: Path | None = None) -> Iterator[Arrival]:
        """Yield everything in the inbox, one at a time, in any order.

        What is hidden, by a name that begins with a dot, is left out with all that is in it, and
        so is the folder `state`, where shoetagger keeps what it makes. Raises InboxError where the
        listing is not whole: nothing can then be said of what it did not show.
        """

    def read(self, locator: str, max_bytes: int) -> Content:
        """Return a file's bytes, at most `max_bytes` of them.

        Raises Gone, Changed, Unreachable, TooLarge or Unreadable, or InboxError once nothing of the
        inbox can be read any more. Any number of threads may read.
        """
