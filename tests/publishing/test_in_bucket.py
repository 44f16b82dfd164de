"""What is published in a bucket is what a folder would hold, for readers, desk and cleaning."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from helpers import object_stores, postgres
from helpers.object_stores import ObjectStore
from helpers.works import DAY, GROUPS, NOW, Works, works_with

from shoetagger.config.operations import Articles
from shoetagger.config.settings import PREVIEWS, Settings
from shoetagger.desk.catalogue import Catalogue
from shoetagger.images.decode import image_id
from shoetagger.ops import cleaning
from shoetagger.ops.installation import Installation
from shoetagger.publishing import thumbnails
from shoetagger.publishing.announcing import take_unannounced
from shoetagger.publishing.publication import forget, publish_changes
from shoetagger.storage import client
from shoetagger.storage.bucket import BucketStorage
from shoetagger.storage.places import published_at
from shoetagger.storage.storage import Storage, StorageError
from shoetagger.store.rows import StoreUnavailable
from shoetagger.tracking.registry import Registry

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[ObjectStore]:
    with object_stores.seaweedfs() as found:
        yield found


@pytest.fixture
def settings(seaweedfs: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment(
        {
            "SHOETAGGER_HOME": str(tmp_path / "home"),
            "SHOETAGGER_PUBLISHED": f"s3://{seaweedfs.bucket()}/shop",
        }
    )
    return Settings.from_environment(settings.as_environment())


@pytest.fixture
def works(settings: Settings) -> Iterator[Works]:
    ours = works_with(settings)
    yield ours
    ours.store.close()


@pytest.fixture
def works_on_postgres(settings: Settings, postgres_server: tuple[str, str]) -> Iterator[Works]:
    """The same with its store on PostgreSQL, where a turn is a lock of a connection."""
    with postgres.database(*postgres_server) as url:
        ours = works_with(replace(settings, store_url=url))
        yield ours
        ours.store.close()


def contents(storage: Storage) -> dict[str, bytes | None]:
    """All that is published but the index, which says when."""
    names = storage.listed("").keys() - {"pages/index.html"}
    return {name: storage.read(name) for name in names}


def expected(works: Works, folder: Path) -> dict[str, bytes | None]:
    """What a folder gets that had nothing before, without having to decode a picture again."""
    storage = published_at(folder)
    for name in works.storage.listed("pages/thumbs"):
        storage.write(name, works.storage.read(name) or b"")
    settings = works.settings
    publish_changes(
        works.store, works.params, published=folder, inbox=settings.inbox, every_day=True
    )
    return contents(storage)


def identity(works: Works, name: str) -> str:
    return image_id((works.settings.inbox / name).read_bytes())


def test_a_bucket_holds_what_a_folder_would_whatever_happened(
    works: Works, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = object_stores.written_to(monkeypatch)
    works.params = replace(works.params, articles=Articles(r"(?P<article>\d+)_\d+\.png$"))
    works.arrive("1_1.png", "1_2.png", "page.txt")
    works.tag()
    works.arrive("2_1.png", shade=1)
    works.tag(now=NOW + timedelta(days=1))
    assert works.publish(page_size=1)["days"] == 2
    found = contents(works.storage)
    assert {f"pages/{DAY}/002.html", "articles.csv", "rejected.csv", "pages/style.css"} <= {*found}
    assert take_unannounced(works.store, works.settings.published) == ["2026-01-03", DAY]

    # Pages and tables that are there already are not written again, whoever publishes.
    written.clear()
    works.publish(page_size=1)
    assert set(written) <= {"pages/index.html"}  # which says when
    assert take_unannounced(works.store, works.settings.published) == []

    # A page less, a picture replaced, another erased, and the first day beyond those with pages.
    works.arrive("1_1.png", shade=9)
    works.tag(now=NOW + timedelta(days=2))
    works.publish()
    assert contents(works.storage) == expected(works, tmp_path / "first")
    erased = identity(works, "2_1.png")
    settings = works.settings
    works.params = replace(works.params, keep=replace(works.params.keep, page_days=1))
    forget(works.store, works.params, erased, published=settings.published, inbox=settings.inbox)
    assert contents(works.storage) == expected(works, tmp_path / "second")
    assert {name.split("/")[1] for name in works.storage.listed("pages")} >= {"2026-01-04"}
    assert not works.storage.listed(f"pages/{DAY}")
    assert f"parquet/day={DAY}/tags.parquet" in works.storage.listed("parquet")
    assert not [name for name in works.storage.listed("") if erased in name]

    # A table that somebody removed is written again.
    works.storage.remove([f"csv/{DAY}.csv"])
    assert works.publish()["days"] == 1
    assert contents(works.storage) == expected(works, tmp_path / "third")


def test_the_desk_reads_tables_and_pictures_there(works: Works) -> None:
    works.arrive("a.png", "b.png")
    works.tag()
    works.publish()
    catalogue = Catalogue(works.settings.published)
    assert catalogue.refresh(GROUPS) == {DAY}
    assert catalogue.refresh(GROUPS) == set()
    assert len(catalogue.index) == 2
    works.promote("color", "2")
    works.publish()
    assert catalogue.refresh(GROUPS) == {DAY}


def test_a_shard_sends_thumbnails_along_and_an_outage_costs_no_tags(
    works: Works, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    view = np.full((8, 8, 3), 200, np.uint8)
    kept = thumbnails.of_shard(works.settings.published, works.params.publish)
    ids = [f"{n:064}" for n in range(100)]
    for one in ids:
        kept.take(one, view, b"preview", (8, 8))
    kept.drop(ids[-1])  # which may be on its way
    assert works.storage.stamps([thumbnails.thumbnail_name(ids[-1])]) == {}
    for one in ids[:-1]:
        kept.drop(one)
    assert works.storage.listed("") == {}

    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    away = thumbnails.of_shard(works.settings.published, works.params.publish)
    for one in ids:
        away.take(one, view, b"preview", (8, 8))
    assert caplog.text.count("no more thumbnails from this shard: SHOETAGGER_PUBLISHED") == 1


def test_what_an_outage_kept_from_being_published_is_published_later(
    works: Works, seaweedfs: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    works.arrive("a.png")
    works.tag(thumbnails=False)
    with monkeypatch.context() as patch:
        patch.setitem(client._RETRIES, "max_retries", 0)
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        with pytest.raises(StorageError, match=r"SHOETAGGER_PUBLISHED cannot be used: .* answer"):
            works.publish()
        patch.setenv("AWS_ENDPOINT_URL", seaweedfs.endpoint)
        patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY, and that they may"):
            works.publish()
    assert [day for day, _ in works.store.days.changed()] == [DAY]
    counts = works.publish()
    assert (counts["days"], counts["thumbnails"]) == (1, 1)
    assert not works.store.days.changed()


def test_old_previews_are_cleaned_away_there(works: Works, monkeypatch: pytest.MonkeyPatch) -> None:
    works.storage.write(f"{PREVIEWS}/ab/ab1.jpg", b"large")
    registry = Registry(works.settings.tracking_uri, works.settings.artifacts)
    here = Installation(works.settings, works.params, works.store, registry)
    assert cleaning._previews(here, dry_run=False).number == 0
    later = time.time() + (works.params.keep.preview_days + 1) * 24 * 3600
    monkeypatch.setattr(time, "time", lambda: later)
    assert cleaning._previews(here, dry_run=True).size == 5
    assert works.storage.listed(PREVIEWS)
    assert cleaning._previews(here, dry_run=False).number == 1
    assert not works.storage.listed(PREVIEWS)


@pytest.mark.parametrize("lost", ["before its files are put", "while its files are put"])
def test_a_publisher_that_lost_its_turn_does_not_undo_what_a_newer_one_published(
    works_on_postgres: Works, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    works, settings = works_on_postgres, works_on_postgres.settings
    works.arrive("a.png")
    works.tag()
    table = f"parquet/day={DAY}/tags.parquet"
    really_put = BucketStorage.put
    newer: list[bytes | None] = []

    def overtaken(when: str) -> None:
        if when == lost and not newer:
            newer.append(None)
            postgres.cut_off(settings.store_url)
            works.promote("color", "2")
            works.publish()
            newer[0] = works.storage.read(table)

    def put(storage: BucketStorage, files: Sequence[tuple[Path, str]]) -> None:
        if table in (name for _, name in files):
            overtaken("while its files are put")
        really_put(storage, files)

    monkeypatch.setattr(BucketStorage, "put", put)
    with pytest.raises(StoreUnavailable, match="the turn of publishing was lost"):
        publish_changes(
            works.store,
            works.params,
            published=settings.published,
            inbox=settings.inbox,
            progress=lambda *_: overtaken("before its files are put"),
        )
    works.publish()
    assert newer == [works.storage.read(table)]
    assert contents(works.storage) == expected(works, tmp_path / "folder")
