"""What every inbox does, a folder and buckets of several servers alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from helpers import object_stores
from helpers.object_stores import ObjectStore

from shoetagger.config.places import Bucket, Place, PlaceError, place, root
from shoetagger.ingest import bucket as bucket_module
from shoetagger.ingest.bucket import BucketInbox
from shoetagger.ingest.folder import locator_of
from shoetagger.ingest.inbox import (
    Arrival,
    Gone,
    Inbox,
    InboxError,
    TooLarge,
    Unreachable,
    Unreadable,
)
from shoetagger.ingest.places import inbox_at, locators_named, name_of
from shoetagger.publishing.rows import shown_name
from shoetagger.storage import client


class Arriving(Protocol):
    """A place where a test lets files arrive."""

    place: Place

    def put(self, name: str, data: bytes) -> None: ...
    def put_all(self, names: Iterable[str]) -> None: ...
    def remove(self, name: str) -> None: ...


class FolderOfFiles:
    def __init__(self, folder: Path) -> None:
        self.place: Place = folder
        self._folder = folder
        folder.mkdir()

    def put(self, name: str, data: bytes) -> None:
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_bytes(data)

    def put_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.put(name, b"a")

    def remove(self, name: str) -> None:
        (self._folder / name).unlink()


class BucketOfObjects:
    def __init__(self, server: ObjectStore) -> None:
        self.server, self.bucket = server, server.bucket()
        self.place: Place = Bucket("s3", self.bucket, "new pictures/today")

    def put(self, name: str, data: bytes) -> None:
        self.server.put(self.bucket, f"new pictures/today/{name}", data)

    def put_all(self, names: Iterable[str]) -> None:
        self.server.put_all(self.bucket, {f"new pictures/today/{name}": b"a" for name in names})

    def remove(self, name: str) -> None:
        self.server.delete(self.bucket, f"new pictures/today/{name}")


# Ceph takes seconds to start.
STORES = ["seaweedfs", pytest.param("ceph", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[ObjectStore]:
    with object_stores.seaweedfs() as server:
        yield server


@pytest.fixture(scope="module")
def ceph() -> Iterator[ObjectStore]:
    with object_stores.ceph() as server:
        yield server


@pytest.fixture(params=["folder", *STORES])
def arriving(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Arriving:
    if request.param == "folder":
        return FolderOfFiles(tmp_path / "inbox")
    server: ObjectStore = request.getfixturevalue(request.param)
    use(server.environment, monkeypatch)
    return BucketOfObjects(server)


@pytest.fixture(params=STORES)
def objects(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> BucketOfObjects:
    server: ObjectStore = request.getfixturevalue(request.param)
    use(server.environment, monkeypatch)
    return BucketOfObjects(server)


def use(environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


def listed(inbox: Inbox, at: Place) -> dict[str, Arrival]:
    """Return what there is by its name below the inbox, each once."""
    arrivals = list(inbox.scan())
    by_name = {name_below(arrival.locator, at): arrival for arrival in arrivals}
    assert len(by_name) == len(arrivals)
    return by_name


def name_below(locator: str, at: Place) -> str:
    assert locator.startswith(root(at))
    return shown_name(locator, at)


# --- what both kinds do ---


@pytest.mark.slow
def test_what_arrives_is_listed_and_read_whatever_it_is_called(arriving: Arriving) -> None:
    names = [
        "plain.jpg",
        "no extension",
        "schön, \"quoted\" 'x' 100%41.jpg",
        "a+b&c=d?e#f;g.jpg",
        "-rf",
        "deep/er/and <b>deeper</b>/a.jpg",
        "~tilde*[x]{y}|^`.jpg",
        "日本/靴.jpg",
        "cafe\u0301.jpg",
        "caf\u00e9.jpg",
        "x" * 200 + ".jpg",
    ]
    for number, name in enumerate(names):
        arriving.put(name, b"%d" % number)
    inbox = inbox_at(arriving.place)
    found = listed(inbox, arriving.place)
    assert set(found) == set(names)
    for number, name in enumerate(names):
        content = inbox.read(found[name].locator, 10)
        assert (content.data, content.token) == (b"%d" % number, found[name].token)
        assert found[name].locator in locators_named(arriving.place, name)
        assert name_of(found[name].locator) == name.rsplit("/", 1)[-1]
        assert found[name].locator.isascii()
        assert found[name].refused is None


def test_what_is_hidden_is_left_out(arriving: Arriving) -> None:
    for name in (".DS_Store", ".thumbs/a.jpg", "deep/._a.jpg", "a.jpg"):
        arriving.put(name, b"a")
    assert list(listed(inbox_at(arriving.place), arriving.place)) == ["a.jpg"]


@pytest.mark.slow
def test_more_than_a_page_of_names_is_listed_in_whatever_order_they_come(
    arriving: Arriving,
) -> None:
    # With folders among them: some servers list these first.
    names = {f"{number:04}{'/in' * (number % 400 == 7)}.jpg" for number in range(1100)}
    arriving.put_all(names)
    assert set(listed(inbox_at(arriving.place), arriving.place)) == names


def test_what_is_replaced_has_another_token_and_what_vanished_is_gone(arriving: Arriving) -> None:
    inbox = inbox_at(arriving.place)
    arriving.put("a.jpg", b"one")
    arriving.put("b.jpg", b"one")
    before = listed(inbox, arriving.place)
    arriving.put("a.jpg", b"two")
    arriving.remove("b.jpg")
    replaced, gone = before["a.jpg"], before["b.jpg"]
    assert inbox.read(replaced.locator, 10).token != replaced.token
    with pytest.raises(Gone):
        inbox.read(gone.locator, 10)
    after = listed(inbox, arriving.place)
    assert list(after) == ["a.jpg"]
    assert after["a.jpg"].token == inbox.read(replaced.locator, 10).token


def test_what_is_too_large_is_not_read(arriving: Arriving) -> None:
    arriving.put("a.jpg", b"12345")
    inbox = inbox_at(arriving.place)
    locator = listed(inbox, arriving.place)["a.jpg"].locator
    with pytest.raises(TooLarge, match=r"too large \(5 bytes, limit 4\)"):
        inbox.read(locator, 4)
    assert inbox.read(locator, 5).data == b"12345"


def test_what_lies_elsewhere_is_neither_read_nor_gone(arriving: Arriving) -> None:
    for locator in ("s3://other-bucket/a.jpg", "gs://bucket/a.jpg"):
        with pytest.raises(Unreachable, match="another inbox than SHOETAGGER_INBOX names"):
            inbox_at(arriving.place).read(locator, 10)
    if isinstance(arriving.place, Bucket):
        for locator in (locator_of("/inbox/a.jpg"), arriving.place.locator("new pictures/b.jpg")):
            with pytest.raises(Unreachable, match="another inbox"):
                inbox_at(arriving.place).read(locator, 10)


# --- buckets alone ---


def test_a_place_for_folders_is_no_file_and_an_empty_one_is_refused(
    objects: BucketOfObjects,
) -> None:
    objects.put("folder/", b"")
    objects.put("folder/a.jpg", b"a")
    objects.put("empty.jpg", b"")
    found = listed(inbox_at(objects.place), objects.place)
    assert {name: arrival.refused for name, arrival in found.items()} == {
        "folder/a.jpg": None,
        "empty.jpg": "an empty file",
    }


@pytest.mark.slow
def test_a_key_that_cannot_be_asked_for_is_refused_and_stops_nothing(
    objects: BucketOfObjects,
) -> None:
    objects.put("a.jpg", b"a")
    objects.put("tab\t.jpg", b"a")
    objects.put("line\nbreak.jpg", b"a")
    objects.put("z.jpg", b"a")
    inbox = inbox_at(objects.place)
    found = {arrival.locator: arrival for arrival in inbox.scan()}
    reasons = {name_below(at, objects.place): a.refused for at, a in found.items()}
    assert reasons == {
        "a.jpg": None,
        "tab\\t.jpg": "no object can be asked for by this key: rename it",
        "line\\nbreak.jpg": "no object can be asked for by this key: rename it",
        "z.jpg": None,
    }
    for locator, arrival in found.items():
        if arrival.refused:
            with pytest.raises(Unreadable):
                inbox.read(locator, 10)
        else:
            assert inbox.read(locator, 10).token == arrival.token


@pytest.mark.usefixtures("objects")
def test_a_bucket_that_is_not_there_is_named_and_makes_no_object_gone() -> None:
    nowhere = Bucket("s3", "no-such-bucket")
    with pytest.raises(
        InboxError, match=r"no bucket no-such-bucket in http://127.0.0.1.*create it"
    ):
        list(inbox_at(nowhere).scan())
    with pytest.raises(Unreachable, match="NoSuchBucket"):
        inbox_at(nowhere).read("s3://no-such-bucket/a.jpg", 10)


def test_a_wrong_key_is_refused_in_a_sentence_without_it(
    objects: BucketOfObjects, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects.put("a.jpg", b"a")
    locator = locators_named(objects.place, "a.jpg")[0]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-this-secret")
    inbox = inbox_at(objects.place)
    with pytest.raises(
        InboxError, match=r"refuses to show s3://.* check AWS_ACCESS_KEY_ID"
    ) as error:
        list(inbox.scan())
    assert "not-this-secret" not in str(error.value)
    with pytest.raises(Unreachable, match=r"403|SignatureDoesNotMatch"):
        inbox.read(locator, 10)


def test_after_many_failures_in_a_row_the_inbox_as_a_whole_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    monkeypatch.setattr(bucket_module, "_OUTAGE", 3)
    inbox = BucketInbox(Bucket("s3", "pictures"))
    with pytest.raises(InboxError, match=r"does not answer .*error sending request.*as gone"):
        list(inbox.scan())
    for _ in range(2):
        with pytest.raises(Unreachable, match="error sending request"):
            inbox.read("s3://pictures/a.jpg", 10)
    with pytest.raises(InboxError, match="does not answer"):
        inbox.read("s3://pictures/a.jpg", 10)


def test_without_credentials_a_sentence_says_which_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    # Where machines have roles they ask this address.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    with pytest.raises(InboxError, match="no credentials for s3://pictures: set AWS_ACCESS_KEY_ID"):
        list(BucketInbox(Bucket("s3", "pictures")).scan())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    with pytest.raises(InboxError, match=r"Missing SecretAccessKey.*set AWS_ACCESS_KEY_ID and"):
        list(BucketInbox(Bucket("s3", "pictures")).scan())
    with pytest.raises(InboxError, match=r"az://pictures.*set AZURE_STORAGE_ACCOUNT_NAME"):
        BucketInbox(Bucket("az", "pictures"))


def test_an_endpoint_that_is_none_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "127.0.0.1:8333")
    with pytest.raises(InboxError, match=r"AWS_ENDPOINT_URL='127.0.0.1:8333' is no address"):
        BucketInbox(Bucket("s3", "pictures"))


# --- addresses ---


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("s3://pictures", Bucket("s3", "pictures")),
        ("s3://pictures/", Bucket("s3", "pictures")),
        ("gs://pictures/new/2026", Bucket("gs", "pictures", "new/2026")),
        ("az://pictures/a b%20c/", Bucket("az", "pictures", "a b%20c")),
        ("/folder", Path("/folder")),
        ("folder", Path.cwd() / "folder"),
    ],
)
def test_a_place_is_a_folder_or_a_bucket(address: str, expected: Place) -> None:
    found = place(address, "SHOETAGGER_INBOX")
    assert found == expected
    assert place(str(found), "SHOETAGGER_INBOX") == found


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("http://pictures", "begins with http://.*set it to a path, or to s3://bucket/prefix"),
        ("file:///folder", "begins with file://"),
        ("s3://", "names no bucket that can be"),
        ("s3:/pictures/new", "written as s3://bucket/prefix, with two slashes"),
        ("s3:///prefix", "names no bucket that can be"),
        ("s3://pic tures", "names no bucket that can be"),
        ("s3://pictures/a//b", "empty part"),
        ("s3://pictures/../b", "empty part, a dot"),
        ("s3://pictures/a\tb", "control character"),
    ],
)
def test_an_address_of_no_place_is_refused_with_what_to_do(address: str, fault: str) -> None:
    with pytest.raises(PlaceError, match=f"SHOETAGGER_INBOX.*{fault}"):
        place(address, "SHOETAGGER_INBOX")


def test_a_login_in_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(PlaceError, match="holds a login") as error:
        place("s3://somebody:a-secret@pictures/new", "SHOETAGGER_INBOX")
    assert "a-secret" not in str(error.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(error.value)


@pytest.mark.slow
def test_a_file_is_named_by_its_address_or_locator_whatever_the_inbox_is(tmp_path: Path) -> None:
    for inbox in (tmp_path, Bucket("s3", "pictures", "new")):
        for name in ("s3://pictures/new/a b.jpg", "s3://pictures/new/a%20b.jpg"):
            assert "s3://pictures/new/a%20b.jpg" in locators_named(inbox, name)
        assert locator_of("/elsewhere/a.jpg") in locators_named(inbox, "/elsewhere/a.jpg")
    assert locators_named(Bucket("s3", "pictures"), "a.jpg")[0] == "s3://pictures/a.jpg"
