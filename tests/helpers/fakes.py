"""Stand-ins for the outside world: a clock, an inbox, decoders, models, MLflow, and kills."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import sqlalchemy as sa
from helpers.model import TAGS, Thing, digest_of, image_id, scores_of, tags_of

from shoetagger.images.views import Transform
from shoetagger.ingest import batches
from shoetagger.ingest.folder import locator_of
from shoetagger.ingest.inbox import Arrival
from shoetagger.ingest.pool import Decoded
from shoetagger.store.store import Store
from shoetagger.tracking.connection import MLflowUnavailable
from shoetagger.tracking.registry import RegistryError, Version

INBOX = Path("/inbox")


class Killed(BaseException):
    """The process is gone: no handler of its code sees this."""


@dataclass
class Clock:
    """The clock of the code under test; it moves only between steps."""

    now: datetime = datetime(2026, 11, 1, 2, tzinfo=UTC)

    def tick(self) -> None:
        self.now += timedelta(hours=7)

    @property
    def frozen(self) -> type[datetime]:
        clock = self

        class Frozen(datetime):
            @classmethod
            def now(cls, _: Any = None) -> datetime:
                return clock.now

        return Frozen


class Inbox:
    """Names and things; every write of a name gives it a new token, a rename keeps it."""

    def __init__(self) -> None:
        self.things: dict[str, Thing] = {}
        self._writes = 0

    def put(self, name: str, content: str, *, refused: bool = False) -> None:
        self._writes += 1
        self.things[name] = Thing(content, f"{self._writes}-1-1", refused)

    def swap(self, name: str, content: str) -> None:
        """Write other bytes, of which neither size nor time tells."""
        self.things[name] = replace(self.things[name], content=content)

    def locator(self, name: str) -> str:
        return locator_of(INBOX / name)

    def name(self, locator: str) -> str:
        return os.path.basename(locator)  # noqa: PTH119 - plain letters

    def scan(self, _: Path, **__: Path) -> Iterator[Arrival]:
        for name, thing in self.things.items():
            refused = "a symbolic link out of the inbox" if thing.refused else None
            yield Arrival(self.locator(name), thing.token, refused)


class Pool:
    """Decoders: what they read of the inbox, picture by picture; `read` counts."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self.read = 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, locators: Iterable[str], **_: object) -> Iterator[Decoded]:
        for locator in locators:
            self.read += 1
            yield self._decode(locator)

    def _decode(self, locator: str) -> Decoded:
        thing = self._inbox.things.get(self._inbox.name(locator))
        if thing is None:
            return Decoded(locator, retry=True, why=f"{batches.GONE}: gone")
        if thing.refused:
            return Decoded(locator, rejected="a symbolic link out of the inbox")
        identity = image_id(thing.content)
        if not thing.readable:
            return Decoded(locator, thing.token, identity, rejected="not a picture")
        view = np.frombuffer(bytes.fromhex(identity), dtype=np.uint8)
        return Decoded(locator, thing.token, identity, (40, 30), (view,))


class Engine:
    """Models whose answer is a digest of image and bundle; `calls` are the pairs that they saw."""

    transforms = ("the one transform",)

    def __init__(self, pins: dict[str, str], batch: int) -> None:
        self.bundles = [
            SimpleNamespace(group=group, digest=digest, tags=TAGS[group])
            for group, digest in pins.items()
        ]
        self._batch = batch
        self.calls: list[tuple[str, str]] = []

    def batch_size(self, _: int) -> int:
        return self._batch

    def predict_and_describe(
        self, views: dict[Any, np.ndarray], only: Iterable[str]
    ) -> tuple[dict[str, list[Any]], list[bytes]]:
        identities = [bytes(view).hex() for view in views[self.transforms[0]]]
        wanted = set(only)
        used = [bundle for bundle in self.bundles if bundle.digest in wanted]
        self.calls += [(i, bundle.digest) for bundle in used for i in identities]
        predictions = {
            bundle.digest: [
                SimpleNamespace(
                    scores=scores_of(i, bundle.digest),
                    tags=tags_of(i, bundle.digest, bundle.group),
                    unsure=False,
                )
                for i in identities
            ]
            for bundle in used
        }
        return predictions, []


@dataclass
class Registry:
    """MLflow's registry: versions and the alias of each group.

    `next_request` is what becomes of the next request to move an alias: it is `answered`; it is
    `unanswered`, though done; `late`, done when `deliver` is called; `lost`; or its sender is
    `killed` once it is sent. `meanwhile` is called while that request is on its way. An alias that
    names a group, in place of a number, names a version copied from that group's model.
    """

    address: str = "fake"
    away: bool = False
    next_request: str = "answered"
    meanwhile: Callable[[], None] | None = None
    known: dict[str, list[Version]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)  # group -> number
    author: dict[str, str] = field(default_factory=dict)  # group -> who moved its alias last
    late: list[tuple[str, str | None]] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)  # digests of the bundles whose files are gone

    def register(self, group: str) -> Version:
        versions = self.known.setdefault(group, [])
        number = str(len(versions) + 1)
        digest = digest_of(group, len(versions) + 1)
        version = Version(group, f"shoetagger-{group}", number, digest, (), None, {})
        versions.append(version)
        return version

    def version_with(self, group: str, digest: str) -> Version | None:
        self._answer()
        return next((v for v in self.known.get(group, []) if v.digest == digest), None)

    def by_alias(self, group: str, _: str) -> Version | None:
        self._answer()
        return self._named(group)

    def set_alias(self, group: str, _: str, number: str) -> None:
        self._request(group, number)

    def drop_alias(self, group: str, _: str) -> None:
        self._request(group, None)

    def fetch(self, version: Version, bundles: Path) -> Path:
        if version.digest in self.lost:
            raise RegistryError(f"the files of version {version.number} are damaged")
        return bundles / version.digest

    def is_intact(self, _: Path, digest: str) -> bool:
        """Stand in for `has_intact_bundle`: the cache has what is not lost."""
        return digest not in self.lost

    def deliver(self) -> None:
        """Let a request that was late arrive."""
        self.apply(*self.late.pop(0), author="late")

    def apply(self, group: str, number: str | None, *, author: str) -> None:
        self.author[group] = author
        if number is None:
            self.aliases.pop(group, None)
        else:
            self.aliases[group] = number

    def digest(self, group: str) -> str | None:
        """Return the digest that the alias names."""
        version = self._named(group)
        return version.digest if version else None

    def _named(self, group: str) -> Version | None:
        number = self.aliases.get(group)
        if number in TAGS:
            return Version(group, f"shoetagger-{group}", "7", digest_of(number, 1), (), None, {})
        return next((v for v in self.known.get(group, []) if v.number == number), None)

    def _answer(self) -> None:
        if self.away:
            raise MLflowUnavailable("MLflow does not answer")

    def _request(self, group: str, number: str | None) -> None:
        self._answer()
        fate, self.next_request = self.next_request, "answered"
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile:
            meanwhile()
        if fate in ("late", "killed late"):
            self.late.append((group, number))
        elif fate != "lost":
            self.apply(group, number, author="late" if meanwhile else "mover")
        if fate in ("killed", "killed late"):
            raise Killed
        if fate != "answered":
            raise MLflowUnavailable("MLflow did not answer in time")


class Killer:
    """Ends the process at a write: before the n-th statement, or after the n-th commit."""

    def __init__(self, store: Store) -> None:
        self._statements = self._commits = 0
        database: Any = store._database
        sa.event.listen(database._engine, "before_cursor_execute", self._on_statement)
        writing = database.writing

        @contextmanager
        def counted() -> Iterator[Any]:
            with writing() as connection:
                yield connection
            self._commits -= 1
            if self._commits == 0:
                self.disarm()
                raise Killed

        database.writing = counted

    def arm(self, where: str, number: int) -> None:
        self._statements = number if where == "statement" else 0
        self._commits = number if where == "commit" else 0

    def disarm(self) -> None:
        self._statements = self._commits = 0

    def _on_statement(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        if self._statements and statement.startswith(("INSERT", "UPDATE", "DELETE")):
            self._statements -= 1
            if self._statements == 0:
                self.disarm()
                raise Killed


def add_version(store: Store, version: Version, now: datetime) -> None:
    store.ledger.add_version(
        digest=version.digest, group=version.group, tags=TAGS[version.group],
        registry_name=version.name, version=version.number, now=now,
    )  # fmt: skip


def load_bundle(directory: Path) -> Any:
    """Stand in for the real one, which imports torch; a folder's name is the bundle's digest."""
    group = _GROUPS[directory.name]
    return SimpleNamespace(group=group, tags=TAGS[group], transform=Transform())


_GROUPS = {digest_of(group, number): group for group in TAGS for number in range(1, 1000)}
