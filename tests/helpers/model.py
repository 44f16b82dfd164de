"""A plain model of the store, the nights and the moves: what the documents promise, in dicts.

It knows names and contents where the store knows locators and digests, keeps everything in memory
and reads everything at every question. What the documents leave open (which files a night that was
killed had reached) is taken over from the store by `test_model`, after a check that it was allowed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

TAGS = {
    "color": ("black", "white"),
    "style": ("boot", "flat"),
    "detail": ("lace", "zip"),
}


def image_id(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def digest_of(group: str, number: int) -> str:
    return hashlib.sha256(f"{group} {number}".encode()).hexdigest()


def scores_of(identity: str, digest: str) -> tuple[float, float]:
    """Return what a bundle says of an image: arbitrary, and always the same."""
    drawn = hashlib.sha256(f"{identity} {digest}".encode()).digest()
    return drawn[0] / 256, drawn[1] / 256


def tags_of(identity: str, digest: str, group: str) -> tuple[str, ...]:
    scores = scores_of(identity, digest)
    return tuple(t for t, score in zip(TAGS[group], scores, strict=True) if score >= 0.5)


@dataclass(frozen=True)
class Thing:
    """A file in the inbox: `content` is what its bytes are, `refused` a link out of it."""

    content: str
    token: str
    refused: bool = False

    @property
    def readable(self) -> bool:
        return self.content.startswith("picture")


@dataclass(frozen=True)
class File:
    """A file as the store is to know it; `content` is that of the image it holds."""

    state: str  # new, tagged, rejected, gone
    token: str
    content: str | None
    first_seen: datetime
    changed_at: datetime


@dataclass
class Picture:
    """An image that was tagged; `since` is when it last became one that can be read."""

    first_seen: datetime
    since: datetime


@dataclass(frozen=True)
class Tags:
    tags: tuple[str, ...]
    digest: str | None
    stale: bool
    corrected: bool


@dataclass(frozen=True)
class Row:
    day: str
    names: tuple[str, ...]
    groups: Mapping[str, Tags]


@dataclass(frozen=True)
class Move:
    kind: str
    to: str | None
    at: datetime


@dataclass(frozen=True)
class Correction:
    content: str
    group: str
    tags: tuple[str, ...] | None


@dataclass
class Model:
    """The whole of it; `moves` are those that are done, per group, in their order."""

    files: dict[str, File] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    predictions: set[tuple[str, str]] = field(default_factory=set)  # content, digest
    corrections: list[Correction] = field(default_factory=list)
    moves: dict[str, list[Move]] = field(default_factory=dict)
    pending: dict[str, Move] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)

    # What arrives
    def noted(self, name: str, thing: Thing, now: datetime) -> File:
        """Return what a file becomes when a listing shows it."""
        file = self.files.get(name)
        first_seen = file.first_seen if file else now
        if thing.refused:
            if file and file.state == "rejected" and file.token == thing.token:
                return file
            return File("rejected", thing.token, None, first_seen, now)
        if file is None or (file.state == "rejected" and file.token != thing.token):
            return File("new", thing.token, None, first_seen, now)
        if file.state == "gone":
            back = file.token == thing.token and file.content is not None
            state = "tagged" if back else "new"
            return File(state, thing.token, file.content, first_seen, now)
        if file.token == thing.token:
            return file
        return File("new", thing.token, file.content, first_seen, now)

    def missed(self, name: str) -> File:
        """Return what a file becomes when it is not there any more."""
        file = self.files[name]
        if file.state == "tagged":
            return replace(file, state="gone")
        if file.state == "new":
            return replace(file, state="gone", token="")  # its last bytes are unknown
        if file.state == "rejected":
            return replace(file, state="gone", token="", content=None)
        return file

    def settled(self, name: str, thing: Thing | None) -> File:
        """Return what a file that waits becomes when a shard reads `thing` under its name."""
        return self.read(name, self.files[name], thing)

    def read(self, name: str, file: File, thing: Thing | None) -> File:
        if thing is None:
            return self.missed(name)
        if thing.refused:
            return replace(file, state="rejected", content=None)
        if thing.token != file.token:
            return file  # the next listing's business
        if not thing.readable or thing.content in self.forgotten:
            return replace(file, state="rejected", content=thing.content)
        return replace(file, state="tagged", content=thing.content)

    def reopened(self, name: str, thing: Thing | None, now: datetime) -> File | None:
        """Return what a tagged file waits as when its bytes prove to be other ones; else None."""
        file = self.files[name]
        if thing is None or thing.refused or thing.token != file.token:
            return None
        if file.state != "tagged" or thing.content == file.content:
            return None
        return replace(file, state="new", changed_at=now)

    def become(self, name: str, file: File, now: datetime, first_seen: datetime | None) -> None:
        """Let a file become what one of the functions above returned."""
        before = self.files.get(name)
        self.files[name] = file
        if file.state != "tagged" or file == before or file.content is None:
            return
        if file.content not in self.pictures:
            assert first_seen is not None
            self.pictures[file.content] = Picture(first_seen, now)
        self.pictures[file.content].since = now

    # What people do
    def forget(self, content: str) -> None:
        self.forgotten.add(content)
        self.pictures.pop(content, None)
        self.predictions = {pair for pair in self.predictions if pair[0] != content}
        self.corrections = [c for c in self.corrections if c.content != content]
        for name, file in list(self.files.items()):
            if file.content != content:
                continue
            if file.state == "gone":
                del self.files[name]
            elif file.state == "new":
                self.files[name] = replace(file, content=None)
            else:
                self.files[name] = replace(file, state="rejected")

    def retry(self, names: Collection[str] | None) -> int:
        retried = 0
        chosen = [n for n in (self.files if names is None else names) if n in self.files]
        wanted = [n for n in chosen if self.files[n].state == "rejected"]
        if names is None:
            wanted = [n for n in wanted if self.files[n].content not in self.forgotten]
        for name in wanted:
            self.forgotten.discard(self.files[name].content or "")
        for name in wanted:
            self.files[name] = replace(self.files[name], state="new", content=None)
            retried += 1
        return retried

    def correct(self, content: str, group: str, tags: tuple[str, ...] | None) -> None:
        self.corrections.append(Correction(content, group, tags))

    # Which bundles count
    def live(self, group: str) -> str | None:
        return next(iter(self.chain(group)), None)

    def chain(self, group: str) -> list[str]:
        """Return the live bundle, then the earlier live ones not rolled back, latest first."""
        counting: list[str] = []
        for move in self.moves.get(group, []):
            back = move.kind in ("rollback", "manual") and move.to in counting
            if move.to is None:
                continue
            if back:
                counting = counting[counting.index(move.to) :]
                continue
            if move.kind == "rollback":  # to one that had itself been rolled back
                counting = counting[1:]
            counting = [move.to, *(digest for digest in counting if digest != move.to)]
        return [] if self.is_removed(group) else counting

    def was_live(self, group: str) -> set[str]:
        return {move.to for move in self.moves.get(group, []) if move.to}

    def is_removed(self, group: str) -> bool:
        moves = self.moves.get(group)
        return bool(moves) and moves[-1].to is None

    def done(self, group: str, kind: str, to: str | None, now: datetime) -> None:
        self.moves.setdefault(group, []).append(Move(kind, to, now))
        self.pending.pop(group, None)

    # What users read
    def holders(self, content: str, *states: str) -> list[str]:
        return sorted(
            n for n, f in self.files.items() if f.content == content and f.state in states
        )

    def shown(self) -> list[str]:
        """Return the pictures that some file holds, or held when it was last there."""
        return [c for c in self.pictures if self.holders(c, "new", "tagged", "gone")]

    def names(self, content: str) -> list[str]:
        """Return the names of a picture: those under which it is there, or else was last."""
        return self.holders(content, "new", "tagged") or self.holders(content, "gone")

    def tags(self, content: str, group: str) -> Tags | None:
        if self.is_removed(group):
            return None
        found: Tags | None = None
        for place, digest in enumerate(self.chain(group)):
            if (content, digest) in self.predictions:
                predicted = tags_of(image_id(content), digest, group)
                found = Tags(predicted, digest, stale=place > 0, corrected=False)
                break
        corrections = [c for c in self.corrections if (c.content, c.group) == (content, group)]
        if corrections and corrections[-1].tags is not None:
            digest = found.digest if found else None
            return Tags(corrections[-1].tags, digest, stale=False, corrected=True)
        return found

    def rows(self, groups: Iterable[str]) -> dict[str, Row]:
        groups = list(groups)
        rows = {}
        for content in self.shown():
            tags = {g: t for g in groups if (t := self.tags(content, g)) is not None}
            day = self.pictures[content].first_seen.date().isoformat()
            rows[content] = Row(day, tuple(self.names(content)), tags)
        return rows

    def counts(self, groups: Sequence[str]) -> dict[str, object]:
        states = [file.state for file in self.files.values()]
        shown = self.shown()
        by_group = {}
        for group in groups:
            tags = [self.tags(content, group) for content in shown]
            stale = sum(t is not None and t.stale for t in tags)
            untagged = sum(t is None for t in tags)
            by_group[group] = (len(shown) - stale - untagged, stale, untagged)
        return {
            "files": len(states),
            "tagged": states.count("tagged"),
            "rejected": states.count("rejected"),
            "waiting": states.count("new"),
            "gone": states.count("gone"),
            "images": len(shown),
            "groups": by_group,
        }

    # What is left to do
    def backlog(self, pins: Mapping[str, str]) -> dict[str, list[str]]:
        """Return for each group the pictures that are there and lack its pinned bundle."""
        there = [content for content in self.pictures if self.holders(content, "tagged")]
        return {
            group: [content for content in there if (content, digest) not in self.predictions]
            for group, digest in pins.items()
        }
