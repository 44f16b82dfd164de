"""What goes into the store and what comes out: plain, frozen values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from ..errors import ShoetaggerError, TransientError

MoveKind = Literal["promote", "rollback", "manual", "remove"]


class StoreError(ShoetaggerError):
    """The store cannot do what was asked; the message says what to do."""


class StoreAwayError(StoreError, TransientError):
    """The database does not answer, or not in time: trying again may help."""


class MoveConflict(StoreError):  # noqa: N818 - what happened, in the words of the ledger
    """The live pointer is not where the caller thinks, or another move of it is under way."""


def file_id_of(locator: str) -> str:
    """Return the key of a file: the sha256 of its locator, in hex."""
    return hashlib.sha256(locator.encode()).hexdigest()


@dataclass(frozen=True)
class FileRow:
    """A file as last noted; `last_seen` is when its present bytes (its token) were first seen."""

    file_id: str
    locator: str
    token: str
    state: str
    reason: str | None
    image_id: str | None
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True)
class Backlog:
    """A picture that lacks predictions of `groups`, and where its bytes are to be had."""

    image_id: str
    first_seen: datetime
    locators: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True)
class TaggedPicture:
    """A picture, where its bytes are to be had, and what one bundle said of it."""

    image_id: str
    locator: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """What there is to do: files to tag, and pictures to tag again by group."""

    new_files: int
    backlog: Mapping[str, int]


@dataclass(frozen=True)
class Tagged:
    """A file that could be read, as of `token`: its picture and the size of it in pixels."""

    file_id: str
    token: str
    image_id: str
    width: int
    height: int


@dataclass(frozen=True)
class RejectedFile:
    """A file that cannot be tagged, as of `token`, and why, in words for its owner."""

    file_id: str
    token: str
    reason: str
    image_id: str | None = None


@dataclass(frozen=True)
class Prediction:
    """What one bundle says of one picture: a score in 0..1 for each of its tags, in their order."""

    image_id: str
    digest: str
    scores: tuple[float, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class BundleVersion:
    """A bundle the store knows, and where the registry keeps it."""

    digest: str
    group: str
    tags: tuple[str, ...]
    registry_name: str | None
    version: str | None
    registered_at: datetime


@dataclass(frozen=True)
class Move:
    """A row of the ledger: a live pointer that was moved, is being moved, or was not after all."""

    id: int
    group: str
    from_digest: str | None
    to_digest: str | None
    kind: str
    state: str
    by: str
    why: str
    data_revision: str | None
    mlflow_run: str | None
    created_at: datetime
    done_at: datetime | None


@dataclass(frozen=True)
class GroupTags:
    """The current tags of a picture in one group, and what they rest on.

    `scores`, `digest` and `version` are of the prediction, also where a correction overrules it;
    without any they are empty or None. `stale`: not of the live bundle, and not corrected.
    """

    tags: tuple[str, ...]
    scores: Mapping[str, float]
    digest: str | None
    version: str | None
    stale: bool
    corrected: bool


@dataclass(frozen=True)
class CurrentRow:
    """A picture and its current tags; a group that said nothing about it yet is left out."""

    image_id: str
    day: str
    first_seen: datetime
    width: int
    height: int
    locators: tuple[str, ...]
    groups: Mapping[str, GroupTags]


@dataclass(frozen=True)
class RejectedRow:
    """A file that could not be tagged, with the reason."""

    file_id: str
    locator: str
    reason: str
    first_seen: datetime
    last_seen: datetime


@dataclass(frozen=True)
class GroupCounts:
    """Pictures by what their tags in one group rest on: live bundle or correction, older, none."""

    tagged: int
    stale: int
    untagged: int


@dataclass(frozen=True)
class Counts:
    """Files by state (`files` is all of them), pictures, and the pictures by group."""

    files: int
    tagged: int
    rejected: int
    waiting: int
    gone: int
    images: int
    groups: Mapping[str, GroupCounts]


@dataclass(frozen=True)
class RunRow:
    """One run of the tagging job: `pins` is group -> digest, `counts` what it did.

    `rates` is tag -> (new pictures that got it, new pictures), None where there were none; `alarms`
    is why a person should look at it.
    """

    run_id: str
    kind: str
    started_at: datetime
    ended_at: datetime | None
    state: str
    pins: Mapping[str, str]
    counts: Mapping[str, object]
    rates: Mapping[str, tuple[int, int]] | None = None
    alarms: tuple[str, ...] = ()


class Noted(NamedTuple):
    """Of a batch of arrivals: how many were unknown, changed or back, and those refused of them."""

    new: int
    refused: int
