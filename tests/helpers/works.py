"""A store with invented tags of real pictures, to publish."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from helpers import stores
from helpers.stores import make_live
from PIL import Image

from shoetagger.config import params as parameters
from shoetagger.config.params import Params
from shoetagger.config.recipe import Group
from shoetagger.config.settings import Settings
from shoetagger.images import decode
from shoetagger.ingest.folder import scan
from shoetagger.publishing.publication import publish_changes
from shoetagger.publishing.thumbnails import jpeg, thumbnail_name
from shoetagger.storage.places import published_at
from shoetagger.storage.storage import Storage
from shoetagger.store.rows import Prediction, RejectedFile, Tagged
from shoetagger.store.store import Store

GROUPS = {"color": Group(("black", "red")), "style": Group(("boot", "flat"))}
NOW = datetime(2026, 1, 2, 2, 0, tzinfo=UTC)
DAY = "2026-01-02"


@dataclass
class Works:
    """A store, an inbox and a place to publish; tags are invented, pictures are real."""

    settings: Settings
    params: Params
    store: Store

    @property
    def storage(self) -> Storage:
        return published_at(self.settings.published)

    def arrive(self, *names: str | bytes, shade: int = 0) -> None:
        """Put pictures into the inbox, each of its own bytes; a name ending in .txt is text."""
        for i, name in enumerate(names):
            path = os.path.join(os.fsencode(self.settings.inbox), os.fsencode(name))  # noqa: PTH118
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            with open(path, "wb") as file:  # noqa: PTH123
                if path.endswith(b".txt"):
                    file.write(b"no picture")
                else:
                    Image.new("RGB", (40 + i, 60), (shade, i % 256, 99)).save(file, "PNG")

    def tag(self, *, now: datetime = NOW, thumbnails: bool = True) -> None:
        """Settle all that is new, with the bundle that is live for each group.

        With `thumbnails` they are there already, so that no decoding worker need start.
        """
        chosen = {"color": ("black", "red"), "style": ("boot",)}
        small = np.full((8, 8, 3), 200, np.uint8)
        self.store.files.note(list(scan(self.settings.inbox)), now)
        live = self.store.ledger.live()
        tagged, rejected, predictions = [], [], []
        for file in self.store.files.waiting("", None, 10_000):
            data = Path(os.fsdecode(unquote(file.locator[7:], errors="surrogateescape")))
            if data.suffix == ".txt":
                rejected.append(RejectedFile(file.file_id, file.token, "not a picture"))
                continue
            picture = decode.image_id(data.read_bytes())
            tagged.append(Tagged(file.file_id, file.token, picture, 40, 60))
            if thumbnails:
                self.storage.write(thumbnail_name(picture), jpeg(small, (8, 8)))
            for group, digest in live.items():
                scores = tuple(0.75 if t in chosen[group] else 0.25 for t in GROUPS[group].tags)
                predictions.append(Prediction(picture, digest, scores, chosen[group]))
        self.store.predictions.record(
            tagged=tagged, rejected=rejected, predictions=predictions, run_id="r", now=now
        )

    def promote(self, group: str, version: str) -> None:
        digest = f"{group}{version}".ljust(64, "0")
        self.store.ledger.add_version(
            digest=digest,
            group=group,
            tags=GROUPS[group].tags,
            registry_name=f"shoetagger-{group}",
            version=version,
            now=NOW,
        )
        make_live(self.store, group, digest, now=NOW)

    def publish(self, **changes: int) -> dict[str, int]:
        return self.publish_with(
            replace(self.params, publish=replace(self.params.publish, **changes))
        )

    def publish_with(self, params: Params) -> dict[str, int]:
        settings = self.settings
        return publish_changes(
            self.store, params, published=settings.published, inbox=settings.inbox
        )

    def files(self) -> dict[str, tuple[int, int]]:
        """Everything published, with what tells a rewritten file from an old one."""
        found = [p for p in self.settings.published.rglob("*") if p.is_file()]
        return {
            str(p.relative_to(self.settings.published)): (p.stat().st_ino, p.stat().st_mtime_ns)
            for p in found
            if not p.name.startswith(".")
        }


def works_with(settings: Settings) -> Works:
    """Return what the settings name, with a live version of both groups; its store is open."""
    settings.inbox.mkdir(parents=True)
    plain = parameters.load(settings.params_file)
    store = Store(stores.migrated(settings.store_url))
    tag = replace(plain.tag, decode_workers=1)
    ours = Works(settings, replace(plain, groups=GROUPS, tag=tag), store)
    ours.promote("color", "1")
    ours.promote("style", "1")
    return ours
