"""A desk over a small store that was tagged and published, without Airflow around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from helpers.stores import migrated

from shoetagger.config import params
from shoetagger.config.reading import read_yaml
from shoetagger.config.settings import Settings
from shoetagger.desk.app import create
from shoetagger.desk.dependencies import Person
from shoetagger.desk.gallery import Gallery
from shoetagger.ingest.folder import locator_of
from shoetagger.ingest.inbox import Arrival
from shoetagger.learning.audit.finding import PICTURES, TABLE, Finding, as_lines, picture_file
from shoetagger.publishing.publication import publish_changes
from shoetagger.publishing.tables import csv_line
from shoetagger.publishing.thumbnails import jpeg, thumbnail_name
from shoetagger.storage.places import published_at
from shoetagger.store.rows import Prediction, RejectedFile, TagChange, Tagged, file_id_of
from shoetagger.store.store import Store

REPO = Path(__file__).parents[2]
FIRST = datetime(2026, 1, 1, 2, tzinfo=UTC)
COLOR, STYLE = "1" * 64, "2" * 64


def image_id(name: str) -> str:
    return name.encode().hex().ljust(64, "0")[:64]


COMPARISON = {
    "title": "color: version 1 against version 0",
    "passes": True,
    "reasons": ["macro F1 is <higher>"],
    "approval_reason": "tags change",
    "validation": {
        "pictures": 40,
        "macro_f1": {"challenger": 0.7, "champion": 0.6, "difference": 0.1, "interval": [0, 0.2]},
        "tags": [{"tag": "red", "positives": 3, "f1": None}],
    },
    "arrivals": {"pictures": 9, "changed": 2, "tags": {"black": [2, 0], "red": [0, 1]}},
}


@dataclass
class Desk:
    """An installation and the desk over it; `client` asks as ann, who may write."""

    settings: Settings
    store: Store
    client: TestClient
    days: int = 0

    def arrive(self, files: dict[str, tuple[str, str]]) -> None:
        """Let files arrive on the next day, tagged with a colour and a style, and publish."""
        now = FIRST + timedelta(days=self.days)
        self.days += 1
        for name, (color, style) in files.items():
            locator = locator_of(self.settings.inbox / name)
            self.store.files.note([Arrival(locator, "1-1-1", None)], now)
            scores = {"color": _scores(COLORS, color), "style": _scores(STYLES, style)}
            self.store.predictions.record(
                tagged=[Tagged(file_id_of(locator), "1-1-1", image_id(name), 640, 480)],
                predictions=[
                    Prediction(image_id(name), COLOR, scores["color"], (color,)),
                    Prediction(image_id(name), STYLE, scores["style"], (style,)),
                ],
                run_id="run",
                now=now,
            )
            # As the shard leaves it: else each publication would start decoding processes.
            thumbnail = np.zeros((16, 16, 3), np.uint8)
            published_at(self.settings.published).write(
                thumbnail_name(image_id(name)), jpeg(thumbnail, (640, 480))
            )
        self.publish()

    def promote(self, digest: str, version: str, now: datetime, colors: dict[str, str]) -> None:
        """Make another version of the colours live, with predictions for some pictures."""
        go_live(self.store, digest, "color", COLORS, version, now)
        self.store.predictions.record(
            predictions=[
                Prediction(image_id(name), digest, _scores(COLORS, color), (color,))
                for name, color in colors.items()
            ],
            run_id="run",
            now=now,
        )

    def reject(self, name: str, reason: str) -> str:
        locator = locator_of(self.settings.inbox / name)
        self.store.files.note([Arrival(locator, "1-1-1", None)], FIRST)
        row = RejectedFile(file_id_of(locator), "1-1-1", reason)
        self.store.predictions.record(rejected=[row], run_id="run", now=FIRST)
        return locator

    def audit(self, findings: Sequence[Finding]) -> None:
        """Write the table of an audit, as `shoetagger audit` does, and a picture of x.jpg."""
        folder = self.settings.audit
        (folder / PICTURES).mkdir(parents=True, exist_ok=True)
        (folder / TABLE).write_bytes(b"".join(map(csv_line, as_lines(findings))))
        (folder / PICTURES / picture_file("x.jpg")).write_bytes(b"a picture of x")

    def compare(self) -> None:
        """Keep a comparison by which color version 1 would change the tags of a.jpg and b.jpg."""
        changes = [
            TagChange(image_id("a.jpg"), ("red",), ("black",)),
            TagChange(image_id("b.jpg"), ("red",), ("red", "black")),
        ]
        self.store.comparisons.record(COLOR, COMPARISON, changes, now=self.now)

    def publish(self) -> None:
        loaded = params.load(self.settings.params_file)
        publish_changes(
            self.store, loaded, published=self.settings.published, inbox=self.settings.inbox
        )

    def tags(self, name: str, group: str = "color") -> tuple[tuple[str, ...], bool]:
        """The current tags of a picture, and whether a person set them."""
        (row,) = self.store.current.rows([group], image_ids=[image_id(name)])
        return row.groups[group].tags, row.groups[group].corrected

    @property
    def now(self) -> datetime:
        """A moment after all arrivals."""
        return FIRST + timedelta(days=self.days)

    @property
    def anonymous(self) -> TestClient:
        """A browser in which nobody is logged in; the desk is open already."""
        return TestClient(self.client.app)

    def post(self, path: str, body: object, who: str = "ann", **headers: str) -> httpx.Response:
        sent = {"x-user": who, "sec-fetch-site": "same-origin"} | headers
        return self.client.post(path, json=body, headers=sent)


COLORS = ("black", "red")
STYLES = ("boot", "flat")


def _scores(tags: tuple[str, ...], chosen: str) -> tuple[float, ...]:
    return tuple(0.9 if tag == chosen else 0.1 for tag in tags)


def go_live(
    store: Store, digest: str, group: str, tags: tuple[str, ...], version: str, now: datetime
) -> None:
    store.ledger.add_version(
        digest=digest,
        group=group,
        tags=tags,
        registry_name=f"shoetagger-{group}",
        version=version,
        now=now,
    )
    live = store.ledger.live().get(group)
    move = store.ledger.begin(
        group, digest, expect_from=live, kind="promote", by="me", why="x", now=now
    )
    store.ledger.finish(move, now)


def access(request: Request) -> Person:
    """As Airflow does it: who is not logged in gets 401; kim may only look."""
    name = request.headers.get("x-user")
    if name is None:
        raise HTTPException(401, "Not authenticated")
    return Person(name, may_write=name != "kim")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    repo = tmp_path / "repo"
    repo.mkdir()
    document = read_yaml((REPO / "params.yaml").read_text())
    document["groups"] = {"color": {"tags": list(COLORS)}, "style": {"tags": list(STYLES)}}
    (repo / "params.yaml").write_text(yaml.safe_dump(document))
    (repo / "dvc.yaml").touch()
    settings = replace(
        Settings.from_environment({"SHOETAGGER_REPO": str(repo)}),
        inbox=tmp_path / "inbox",
        home=tmp_path / "home",
        store_url=migrated(f"sqlite:///{tmp_path / 'store.db'}"),
    )
    app = create(lambda: Gallery(settings), access)
    with Store(settings.store_url) as store, TestClient(app, headers={"x-user": "ann"}) as client:
        for digest, group, tags in ((COLOR, "color", COLORS), (STYLE, "style", STYLES)):
            go_live(store, digest, group, tags, "1", FIRST)
        yield Desk(settings, store, client)
