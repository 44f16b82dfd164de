"""A night over pictures in a bucket, from listing to tables, and what people do afterwards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers import object_stores
from helpers.installation import (
    TAGS,
    begin,
    find_arrivals,
    forget,
    install,
    make_live,
    predictions,
    publish,
    put_pictures,
)
from helpers.object_stores import ObjectStore
from PIL import Image
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.config.places import Bucket
from shoetagger.config.settings import Settings
from shoetagger.images.decode import image_id
from shoetagger.ingest.inbox import InboxError
from shoetagger.orchestration.nightly import night
from shoetagger.publishing import thumbnails
from shoetagger.storage import client
from shoetagger.storage.places import published_at
from shoetagger.store.store import Store
from shoetagger.tagging.explain import explain


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[ObjectStore]:
    with object_stores.seaweedfs() as server:
        yield server


@pytest.fixture
def settings(seaweedfs: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """An installation whose pictures are in a bucket, six of them in a folder at first."""
    local = install(tmp_path)
    bucket = seaweedfs.bucket()
    put_pictures(local, 6)
    for path in local.inbox.iterdir():
        seaweedfs.put(bucket, f"new shoes/{path.name}", path.read_bytes())
    seaweedfs.put(bucket, "new shoes/page.jpg", b"<html>")
    seaweedfs.put(bucket, "other/shoe.jpg", b"of somebody else")
    found = replace(local, inbox=Bucket("s3", bucket, "new shoes"))
    for name, value in (seaweedfs.environment | found.as_environment()).items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment() == found
    return found


def shoetagger(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
def test_a_night_goes_on_in_a_bucket_where_a_folder_ended_and_people_go_on_from_there(
    settings: Settings, seaweedfs: ObjectStore
) -> None:
    assert isinstance(settings.inbox, Bucket)
    name, local = settings.inbox.name, settings.home.parent / "inbox"
    originals = {path.name: path.read_bytes() for path in local.iterdir()}

    # The same bytes under keys are the same pictures: all files are read, and no model runs.
    night(replace(settings, inbox=local), "night")
    before = predictions(settings)
    assert set(before) == {image_id(data) for data in originals.values()}
    summary = night(settings, "night")
    assert (summary.state, summary.alerts) == ("done", ())
    counts = {k: summary.counts[k] for k in ("seen", "new", "tagged", "rejected", "deferred")}
    assert counts == {"seen": 7, "new": 7, "tagged": 6, "rejected": 1, "deferred": 0}
    assert predictions(settings) == before
    with Store(settings.store_url) as store:
        files = store.current.counts(list(TAGS))
    assert (files.images, files.tagged, files.gone) == (6, 6, 6)
    tables = list(settings.published.rglob("*.parquet"))
    rows = [row for table in tables for row in pq.ParquetFile(table).read().to_pylist()]
    assert {(row["file"], row["locator"]) for row in rows} == {
        (file, settings.inbox.locator(f"new shoes/{file}")) for file in originals
    }

    some = next(iter(originals))
    identity = image_id(originals[some])
    assert "6 of 6 pictures tagged" in shoetagger("status")
    assert identity in shoetagger("history", "--picture", some)
    assert identity in shoetagger("history", "--picture", f"s3://{name}/new shoes/{some}")
    shown = explain(settings, identity, {"color": live(settings, "color")})
    assert shown["color"]["fault"] is None
    assert set(shown["color"]["tags"]) == set(TAGS["color"].tags)

    # A rejected file is tried again; what is new is tagged, and a new model reads what was before.
    Image.new("RGB", (60, 40), "red").save(data := io.BytesIO(), "PNG")
    seaweedfs.put(name, "new shoes/page.jpg", data.getvalue())
    shoetagger("retry", "page.jpg")
    make_live(settings, "color", head_seed=3)
    summary = night(settings, "retag")
    assert (summary.counts["tagged"], summary.counts["retagged"]) == (1, 6)
    added = image_id(data.getvalue())
    assert set(predictions(settings)) == {*before, added}
    for place in (thumbnails.thumbnail_name(added), thumbnails.preview_name(added)):
        assert (settings.published / place).stat().st_size
    # Thumbnails that are missing are made from the objects.
    thumbnails.remove(published_at(settings.published), identity)
    publish(settings, every_day=True)
    assert (settings.published / thumbnails.thumbnail_name(identity)).stat().st_size

    seaweedfs.delete(name, f"new shoes/{some}")
    forget(settings, identity)
    find_arrivals(settings, begin(settings, "night"))
    with Store(settings.store_url) as store:
        found = store.files.find(settings.inbox.locator(f"new shoes/{some}"))
    assert (found and found.state) == "gone"
    assert identity not in predictions(settings)


@pytest.mark.slow
def test_an_outage_marks_nothing_as_gone_and_says_what_is_away(
    settings: Settings, seaweedfs: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(client._CLIENT, "timeout", "500ms")
    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    run = begin(settings, "night")
    find_arrivals(settings, run)
    with seaweedfs.stopped(), pytest.raises(InboxError, match=r"does not answer .*as gone"):
        find_arrivals(settings, run)
    monkeypatch.setenv("SHOETAGGER_INBOX", "s3://no-such-bucket")
    elsewhere = Settings.from_environment()
    with pytest.raises(InboxError, match="no bucket no-such-bucket"):
        find_arrivals(elsewhere, run)
    with Store(settings.store_url) as store:
        counts = store.current.counts(list(TAGS))
    assert (counts.waiting, counts.gone) == (6 + 1, 0)
    assert find_arrivals(settings, run) == {"seen": 7, "new": 0, "rejected": 0}


def live(settings: Settings, group: str) -> str:
    with Store(settings.store_url) as store:
        return store.ledger.live()[group]
