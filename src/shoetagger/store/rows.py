"""Values that go into the store and come out of it: plain and frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from ..errors import ShoetaggerError, TransientError

MoveKind = Literal["promote", "rollback", "manual", "remove"]
CorrectionKind = Literal["correct", "confirm", "verdict", "withdraw"]

# The group of edits that speak of an image as a whole; none of params.yaml can be called so.
WHOLE_IMAGE = ""

# The one verdict that people can give on a whole image.
NOT_A_SHOE = "not a shoe"


class StoreError(ShoetaggerError):
    """The store cannot carry out a call; the message says what to do."""


class StoreUnavailable(StoreError, TransientError):  # noqa: N818 - a state that passes
    """The database does not respond, or not in time: another attempt may succeed."""


class MoveConflict(StoreError):  # noqa: N818 - named for what happened, in the ledger's words
    """The live pointer is not where the caller expects it, or another move of it is pending."""


class CorrectionConflict(StoreError):  # noqa: N818 - named for what happened
    """What is to be edited was edited since the caller saw it; `correction` is that edit."""

    def __init__(self, correction: Correction) -> None:
        self.correction = correction
        when = correction.created_at.strftime("%Y-%m-%d %H:%M UTC")
        picture = f"picture {correction.image_id[:12]}"
        if correction.kind == "verdict":
            did = f"{correction.by} judged {picture} as {NOT_A_SHOE} at {when}"
            super().__init__(f"{did}: take that back before you tag it")
            return
        what = correction.group or "the verdict"
        super().__init__(f"{correction.by} edited {what} of {picture} at {when}: look at it again")


def file_id_of(locator: str) -> str:
    """Return the key of a file: the sha256 of its locator, in hex."""
    return hashlib.sha256(locator.encode()).hexdigest()


def short_id(file_id: str) -> int:
    """Return a file's key as 60 bits: a set of a million takes a third of the memory."""
    return int(file_id[:15], 16)


class FileRow(NamedTuple):
    """A file as last noted; `changed_at` is when its present bytes (its token) were first seen."""

    file_id: str
    locator: str
    token: str
    state: str
    reason: str | None
    image_id: str | None
    first_seen: datetime
    changed_at: datetime


@dataclass(frozen=True)
class Backlog:
    """An image that lacks the predictions of `groups`, and the files that hold its bytes."""

    image_id: str
    first_seen: datetime
    locators: tuple[str, ...]
    groups: tuple[str, ...]


class BacklogRange(NamedTuple):
    """A part of the backlog, [start, below) of `seq`, and how many images in it lack something."""

    start: int
    below: int
    lacking: int


@dataclass(frozen=True)
class TaggedImage:
    """An image, a file that holds its bytes, and the tags that a bundle or people gave it."""

    image_id: str
    locator: str
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """The work that waits: the number of files to tag, and of images to tag again per group."""

    new_files: int
    backlog: Mapping[str, int]


class Tagged(NamedTuple):
    """A file that could be read, as of `token`: its image, and the image's size in pixels.

    `tags` are those that the run's bundles give to the image, for the rates of the run.
    """

    file_id: str
    token: str
    image_id: str
    width: int
    height: int
    tags: tuple[str, ...] = ()


class RejectedFile(NamedTuple):
    """A file that cannot be tagged, as of `token`, with the reason in words for its owner."""

    file_id: str
    token: str
    reason: str
    image_id: str | None = None


class Prediction(NamedTuple):
    """One bundle's prediction for one image: scores in 0..1 in the order of the bundle's tags.

    `vector`, where there is one, is kept for the image, as Vectors describes.
    """

    image_id: str
    digest: str
    scores: tuple[float, ...]
    tags: tuple[str, ...]
    vector: bytes | None = None
    unsure: bool = False


@dataclass(frozen=True)
class BundleVersion:
    """A bundle that the store knows, and its place in the registry."""

    digest: str
    group: str
    tags: tuple[str, ...]
    registry_name: str | None
    version: str | None
    registered_at: datetime


@dataclass(frozen=True)
class Move:
    """A row of the ledger: a move of a live pointer that is done, pending or cancelled."""

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
    """The current tags of an image in one group, and where they come from.

    `scores` (tag -> 0..1), `digest` and `version` belong to the prediction, even where a correction
    overrules it; they are empty or None where there is no prediction. `stale` means that the
    prediction is not the live bundle's and no correction overrules it, `unsure` that the image is
    far from all that the bundle has learned from, and that no person has said what it shows.
    """

    tags: tuple[str, ...]
    scores: Mapping[str, float]
    digest: str | None
    version: str | None
    stale: bool
    corrected: bool
    unsure: bool = False


@dataclass(frozen=True)
class CurrentRow:
    """An image and its current tags; a group without a prediction or correction is left out.

    `verdict` is what a person said of the whole image: one that is "not a shoe" has no tags in any
    group, whatever models and corrections say, and all its groups count as corrected.
    """

    image_id: str
    day: str
    first_seen: datetime
    width: int
    height: int
    locators: tuple[str, ...]
    groups: Mapping[str, GroupTags]
    verdict: str | None = None


@dataclass(frozen=True)
class Edit:
    """What a person wants for one image and group; `tags` None leaves it to the models again.

    `seen` is the id of the correction that was in force when the person looked, `seen_digest` the
    bundle whose tags were shown. `kind` is `confirm` where the tags are those that were shown, and
    `verdict`, without tags and in the group WHOLE_IMAGE, where the image is not a shoe: `seen` is
    then the latest correction in force of all the image's groups. `origin` says where the person
    met the image, if not where the other edits of a batch are from.
    """

    image_id: str
    group: str
    tags: tuple[str, ...] | None
    seen: int | None = None
    seen_digest: str | None = None
    kind: CorrectionKind = "correct"
    origin: str | None = None


@dataclass(frozen=True)
class Correction:
    """A row of the corrections' journal; in force where `withdrawn_at` is None.

    `group` is WHOLE_IMAGE for a verdict, and for what takes one back.
    `replaces` is the correction that it withdrew, `restores` the one of which it is a copy, put in
    force again by undoing a later one. `collected_in` is the commit whose label sheet says so too.
    """

    id: int
    image_id: str
    group: str
    tags: tuple[str, ...]
    by: str
    why: str
    kind: CorrectionKind
    origin: str
    replaces: int | None
    restores: int | None
    seen_digest: str | None
    collected_in: str | None
    created_at: datetime
    withdrawn_at: datetime | None


@dataclass(frozen=True)
class RandomReview:
    """What a person said about one group of an image that was drawn at random.

    `at` is when they met it first, `tags` are those in force now, also where somebody has edited
    them since; `first_seen` is when the image arrived.
    """

    image_id: str
    group: str
    tags: tuple[str, ...]
    at: datetime
    first_seen: datetime


@dataclass(frozen=True)
class TagChange:
    """How the tags of an image differ between a champion and its challenger."""

    image_id: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class RejectedRow:
    """A file that could not be tagged, with the reason; `changed_at` is as in FileRow."""

    file_id: str
    locator: str
    reason: str
    first_seen: datetime
    changed_at: datetime


@dataclass(frozen=True)
class GroupCounts:
    """Numbers of images by the origin of their tags in one group.

    `tagged`: the live bundle or a correction; `stale`: an earlier bundle; `untagged`: none.
    """

    tagged: int
    stale: int
    untagged: int


@dataclass(frozen=True)
class Counts:
    """Numbers of files by state (`files` is all of them), of images, and of images per group."""

    files: int
    tagged: int
    rejected: int
    waiting: int
    gone: int
    images: int
    groups: Mapping[str, GroupCounts]


@dataclass(frozen=True)
class TaggingRun:
    """One tagging run: `pins` is group -> digest, `counts` is how much of what it has done so far.

    `rates` is tag -> (new images that got it, new images), None where no image was new; `alerts`
    are the reasons why a person should look at the run.
    """

    run_id: str
    kind: str
    started_at: datetime
    ended_at: datetime | None
    state: str
    pins: Mapping[str, str]
    counts: Mapping[str, int]
    rates: Mapping[str, tuple[int, int]] | None = None
    alerts: tuple[str, ...] = ()


class Recorded(NamedTuple):
    """What a batch added to a run's counts.

    `tagged` and `rejected` are the arrivals that it settled, `retagged` the images that got a
    prediction otherwise, `deferred` the files that wait although the run has read them: less than
    0 where an earlier attempt had left what this one settled.
    """

    tagged: int
    rejected: int
    retagged: int
    deferred: int


class Noted(NamedTuple):
    """How many arrivals of a batch were unknown, changed or back, and how many of them refused."""

    new: int
    refused: int
