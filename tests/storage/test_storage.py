"""Files by name: a folder and a bucket hold and answer the same."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import pytest
from helpers import object_stores
from helpers.object_stores import ObjectStore

from shoetagger.config.places import Bucket, PlaceError
from shoetagger.storage import client
from shoetagger.storage.bucket import BucketStorage
from shoetagger.storage.folder import FolderStorage
from shoetagger.storage.storage import Storage, StorageError, of_day

VARIABLE = "SHOETAGGER_PUBLISHED"


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[ObjectStore]:
    with object_stores.seaweedfs() as found:
        yield found


@pytest.fixture
def bucket(seaweedfs: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    return Bucket("s3", seaweedfs.bucket(), "shop/published")


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "published")
    return BucketStorage(request.getfixturevalue("bucket"))


def put(storage: Storage, files: dict[str, bytes]) -> None:
    with storage.staging() as staging:
        for name, data in files.items():
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(data)
        storage.put([(staging / name, name) for name in files])


def test_what_is_put_is_listed_read_and_removed_by_name(storage: Storage) -> None:
    assert storage.listed("parquet") == {}
    assert storage.read("index.html") is None
    files = {f"parquet/day=2026-01-0{n}/tags.parquet": b"rows " * n for n in (1, 2)}
    files |= {"pages/ä b.html": b"<p>", ".format": b"1", "empty": b""}
    put(storage, files)
    for name, data in files.items():
        assert storage.read(name) == data
    listed = storage.listed("parquet")
    assert {name: stamp.size for name, stamp in listed.items()} == {
        name: len(data) for name, data in files.items() if name.startswith("parquet/")
    }
    assert of_day(listed) == {
        "2026-01-01": "parquet/day=2026-01-01/tags.parquet",
        "2026-01-02": "parquet/day=2026-01-02/tags.parquet",
    }
    assert sorted(storage.listed("")) == sorted(files.keys() - {".format"})
    assert storage.stamps([*listed, "empty", "nothing"]) == listed
    storage.remove(["empty", "nothing"])
    storage.remove_folder("parquet/day=2026-01-01")
    storage.remove_folder("parquet/day=2026-01-03")
    assert sorted(storage.listed("")) == ["pages/ä b.html", "parquet/day=2026-01-02/tags.parquet"]


def test_a_file_is_opened_to_read_parts_of_it(storage: Storage) -> None:
    data = os.urandom(300_000)
    storage.write("table", data)
    with storage.opened("table") as file:
        file.seek(-5, io.SEEK_END)
        assert file.read() == data[-5:]
        file.seek(100_000)
        assert file.read(150_000) == data[100_000:250_000]
        assert file.tell() == 250_000
    with pytest.raises(FileNotFoundError), storage.opened("nothing"):
        pass


def test_a_replaced_file_has_another_stamp(storage: Storage) -> None:
    stamps = []
    for data in (b"one", b"two", b"three"):
        put(storage, {"a": data})
        stamps.append(storage.listed("")["a"])
    assert len(set(stamps)) == 3


@pytest.mark.slow
def test_what_a_bucket_has_already_is_not_written_again(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = BucketStorage(bucket)
    written = object_stores.written_to(monkeypatch)
    files = {"a.csv": b"a", "large.parquet": os.urandom(12_000_000)}  # more than a part
    put(storage, files)
    assert sorted(written) == sorted(files)
    put(storage, files | {"a.csv": b"b"})
    assert sorted(written) == sorted([*files, "a.csv"])
    assert storage.read("a.csv") == b"b"


@pytest.mark.slow
def test_browsers_are_told_what_an_object_is(seaweedfs: ObjectStore, bucket: Bucket) -> None:
    storage = BucketStorage(bucket)
    for name, kind in {"a.html": "text/html", "a.jpg": "image/jpeg", "a.css": "text/css"}.items():
        storage.write(name, b"x")
        found = seaweedfs.client.head_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{name}")
        assert found["ContentType"] == kind


class _Google(BaseHTTPRequestHandler):
    """A bucket of Google's that has the objects in `kept`, as far as deleting them goes."""

    kept: ClassVar[set[str]]

    def do_DELETE(self) -> None:
        key = unquote(self.path)
        found = key in self.kept
        self.kept.discard(key)
        self.send_response(204 if found else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def test_where_some_objects_are_gone_already_the_others_are_removed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Asked for many at once, the client of Google's buckets ends at the first that is gone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Google)
    nobody = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    here = {"gcs_base_url": f"http://127.0.0.1:{server.server_port}", "disable_oauth": True}
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(nobody | here))
    monkeypatch.setitem(client._CLIENT, "allow_http", True)
    names = [f"{number}.jpg" for number in range(20)]
    _Google.kept = {f"/bucket/shop/{name}" for name in names[1:]}
    with server, ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever, 0.01)
        try:
            BucketStorage(Bucket("gs", "bucket", "shop")).remove(names)
        finally:
            server.shutdown()
    assert _Google.kept == set()


def test_what_a_prefix_is_called_is_not_taken_for_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    for prefix in ("Missing pictures", "Missing SecretAccessKey"):
        with pytest.raises(StorageError, match="does not answer"):
            BucketStorage(Bucket("s3", "bucket", prefix)).listed("parquet")


@pytest.mark.slow
def test_a_bucket_that_cannot_be_used_is_one_line_with_the_next_step(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(place: Bucket) -> str:
        with pytest.raises(StorageError) as caught:
            BucketStorage(place).listed("parquet")
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(f"{VARIABLE} cannot be used: ")
        return str(caught.value)

    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    missing = said(Bucket("s3", "no-such-bucket"))
    assert "there is no bucket no-such-bucket" in missing
    assert f"set {VARIABLE} to the one that others read" in missing
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret")
    refused = said(bucket)
    assert "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in refused
    assert "a-wrong-secret" not in refused
    assert "write" in refused
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "does not answer" in said(bucket)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:9")
    with pytest.raises(PlaceError, match="no address of a web service"):
        BucketStorage(bucket)
