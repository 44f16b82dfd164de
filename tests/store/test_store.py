"""Every test runs on SQLite, and on PostgreSQL where the machine has its binaries."""

from __future__ import annotations

import hashlib
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from helpers import postgres

from shoetagger.ingest.inbox import Arrival, locator_of
from shoetagger.store import database, migrations, tables
from shoetagger.store.rows import (
    CurrentRow,
    FileRow,
    GroupCounts,
    MoveConflict,
    Prediction,
    RejectedFile,
    StoreError,
    Tagged,
    Work,
    file_id_of,
)
from shoetagger.store.store import Store

ROOT = Path(__file__).parents[2]
NIGHT = datetime(2026, 11, 1, 2, tzinfo=UTC)
LATER = NIGHT + timedelta(days=1)
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
RED, BLUE, TEAL, BOOT = "1" * 64, "2" * 64, "3" * 64, "4" * 64


@pytest.fixture(params=DATABASES)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'folder' / 'store.db'}"
    else:
        server, _ = request.getfixturevalue("postgres_server")
        with postgres.database(server) as url:
            yield url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    file = tmp_path_factory.mktemp("migrated") / "store.db"
    with Store(f"sqlite:///{file}") as store:
        store.migrate()
    return file


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "store.db")
        yield f"sqlite:///{tmp_path / 'store.db'}"
    else:
        server, template = request.getfixturevalue("postgres_server")
        with postgres.database(server, template) as place:
            yield place


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url) as opened:
        yield opened


def arrival(name: str, token: str = "1-1-1", refused: str | None = None) -> Arrival:
    return Arrival(locator_of(f"/inbox/{name}"), token, refused)


def image(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def file_id(name: str) -> str:
    return file_id_of(locator_of(f"/inbox/{name}"))


def tagged(name: str, content: str | None = None, token: str = "1-1-1") -> Tagged:
    return Tagged(file_id(name), token, image(content or name), 640, 480)


def red(content: str, tag: str = "red", digest: str = RED) -> Prediction:
    return Prediction(image(content), digest, (0.75, 0.25), (tag,))


def add_bundles(store: Store) -> None:
    for number, digest in enumerate((RED, BLUE), 1):
        store.ledger.add_version(
            digest=digest,
            group="color",
            tags=["red", "blue"],
            registry_name="shoetagger-color",
            version=str(number),
            now=NIGHT,
        )
    kinds = {"registry_name": None, "version": None, "now": NIGHT}
    store.ledger.add_version(digest=TEAL, group="color", tags=["red", "blue", "teal"], **kinds)
    store.ledger.add_version(digest=BOOT, group="style", tags=["boot", "flat"], **kinds)


def make_live(store: Store, group: str, digest: str | None, kind: str = "promote") -> None:
    move = store.ledger.begin(group, digest, kind=kind, by="test", why="test", now=NIGHT)
    store.ledger.finish(move, NIGHT)


def tag(store: Store, *names: str, digest: str | None = RED, now: datetime = NIGHT) -> None:
    """Let files of these names arrive and be tagged."""
    store.files.note([arrival(name) for name in names], now)
    store.predictions.record(
        tagged=[tagged(name) for name in names],
        predictions=[red(name, digest=digest) for name in names] if digest else [],
        run_id="run",
        now=now,
    )


def rows_of(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Everything in the store."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {
            name: sorted(map(tuple, connection.execute(sa.select(table))), key=repr)
            for name, table in tables.metadata.tables.items()
        }
    engine.dispose()
    return found


def current(store: Store, *groups: str, **narrowed: object) -> dict[str, CurrentRow]:
    rows = list(store.current.rows(groups or ("color", "style"), **narrowed))
    assert len({row.image_id for row in rows}) == len(rows)
    return {row.image_id: row for row in rows}


# --- migrations


def test_an_older_store_with_rows_in_it_is_brought_up_to_date(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, Store(empty_url) as old:
        patch.setattr(database, "REVISION", "0001")
        old.migrate()
    engine = sa.create_engine(empty_url)
    first = sa.MetaData()
    with engine.begin() as connection:
        first.reflect(connection)
        values = {
            "versions": {"digest": RED, "group_name": "color", "tags": ["red", "blue"],
                         "registered_at": NIGHT},
            "images": {"image_id": image("a"), "width": 4, "height": 3, "first_seen": NIGHT,
                       "day": "2026-11-01", "seq": 1, "replaced": False},
            "predictions": {"bundle_digest": RED, "image_id": image("a"), "scores": [0.75, 0.25],
                            "tags": ["red"], "run_id": "r", "created_at": NIGHT},
            "files": {"file_id": file_id("a"), "locator": locator_of("/inbox/a"), "token": "1-1-1",
                      "image_id": image("a"), "state": "tagged", "first_seen": NIGHT,
                      "last_seen": NIGHT},
            "ledger": {"group_name": "color", "to_digest": RED, "kind": "promote",
                       "state": "done", "by": "me", "why": "so", "created_at": NIGHT,
                       "done_at": NIGHT},
            "runs": {"run_id": "r", "kind": "night", "started_at": NIGHT, "state": "done",
                     "pins": {"color": RED}, "counts": {"tagged": 1}},
        }  # fmt: skip
        for name, row in values.items():
            connection.execute(sa.insert(first.tables[name]), row)
    engine.dispose()
    with Store(empty_url) as store:
        with pytest.raises(StoreError, match=r"older version \(0001.*shoetagger migrate"):
            store.ledger.live()
        store.migrate()
        assert store.ledger.live() == {"color": RED}
        assert current(store, "color")[image("a")].groups["color"].tags == ("red",)
        (run,) = store.runs.latest(9)
        assert (run.counts, run.rates, run.alerts) == ({"tagged": 1}, None, ())
        store.files.forget(image("a"), LATER)
        assert current(store) == {}


def test_a_store_without_tables_says_what_to_run(empty_url: str, tmp_path: Path) -> None:
    with Store(empty_url) as store:
        for use in (store.ledger.live, lambda: store.files.note([arrival("a")], NIGHT)):
            with pytest.raises(StoreError, match="has not been migrated: run `shoetagger migrate`"):
                use()
        assert list(tmp_path.iterdir()) == []  # asking makes no file
        store.migrate()
        store.migrate()
        assert store.ledger.live() == {}


def test_an_older_store_says_what_to_run_and_a_newer_one_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sa.create_engine(url)

    def pretend(revision: str) -> None:
        with engine.begin() as connection:
            connection.execute(sa.text(f"UPDATE alembic_version SET version_num = '{revision}'"))

    monkeypatch.setattr(database, "REVISION", "9998")
    with Store(url) as store, pytest.raises(StoreError, match=r"older version \(0003, .*9998\)"):
        store.ledger.live()
    monkeypatch.undo()
    pretend("9999")
    with Store(url) as store:
        for use in (store.ledger.live, store.migrate):
            with pytest.raises(StoreError, match=r"newer version \(9999\).*update the code"):
                use()
    engine.dispose()


def test_migrations_make_the_tables_that_the_code_knows(url: str) -> None:
    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    assert script.get_current_head() == database.REVISION
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), tables.metadata)
        assert differences == []
        if engine.dialect.name == "sqlite":
            made = connection.execute(sa.text("SELECT name, sql FROM sqlite_master")).all()
            fresh = sa.create_engine("sqlite://")
            tables.metadata.create_all(fresh)
            with fresh.connect() as other:
                wanted = other.execute(sa.text("SELECT name, sql FROM sqlite_master")).all()
            fresh.dispose()
            flat = [{(n, re.sub(r"[\s\"]", "", q or "")) for n, q in x} for x in (made, wanted)]
            left_over = {name for name, _ in flat[0] - flat[1] if "autoindex" not in name}
            assert left_over == {"alembic_version"}
    engine.dispose()


@pytest.mark.slow
def test_several_processes_may_migrate_at_once(empty_url: str) -> None:
    code = "import sys; from shoetagger.store.store import Store; Store(sys.argv[1]).migrate()"
    migrating = [
        subprocess.Popen([sys.executable, "-c", code, empty_url], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    assert [(p.communicate()[1], p.returncode) for p in migrating] == [(b"", 0)] * 3
    with Store(empty_url) as store:
        assert store.ledger.live() == {}


@pytest.mark.parametrize("bad", ["store.db", "mysql://a/b", "sqlite://", "sqlite:///:memory:", ""])
def test_a_url_that_is_no_store_is_refused(bad: str) -> None:
    with pytest.raises(StoreError, match="SHOETAGGER_STORE_URL"):
        Store(bad)


def test_a_database_that_does_not_answer_is_named_without_its_password() -> None:
    store = Store("postgresql+psycopg://me:secret@127.0.0.1:9/none")
    with pytest.raises(StoreError, match="start the database") as error:
        store.ledger.live()
    assert "127.0.0.1:9/none" in str(error.value)
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database" * 100)
    with Store(f"sqlite:///{tmp_path / 'store.db'}") as store:
        with pytest.raises(StoreError, match=r"store\.db: file is not a database"):
            store.ledger.live()
        with pytest.raises(StoreError, match=r"store\.db: file is not a database"):
            store.migrate()


# --- arrivals


def test_only_what_is_unknown_or_changed_is_new(store: Store, url: str) -> None:
    batch = [arrival(f"{n}.jpg") for n in range(2500)]
    assert store.files.note(batch, NIGHT).new == 2500
    before = rows_of(url)
    assert store.files.note(batch, LATER).new == 0
    assert rows_of(url) == before
    assert store.files.note([*batch[:10], arrival("10.jpg", "2-2-2")], LATER).new == 1
    assert store.files.note([], LATER).new == 0
    row = store.files.find(locator_of("/inbox/10.jpg"))
    assert row == FileRow(
        file_id("10.jpg"), locator_of("/inbox/10.jpg"), "2-2-2", "new", None, None, NIGHT, LATER
    )
    assert store.files.find("file:///elsewhere") is None


def test_new_files_come_in_pages_and_shards(store: Store) -> None:
    names = [f"{n}.jpg" for n in range(100)]
    store.files.note([arrival(name) for name in names], NIGHT)
    found = []
    for lo, hi in (("", "4"), ("4", "8"), ("8", "c"), ("c", None)):
        after = None
        while page := store.files.waiting(lo, hi, 7, after):
            assert all(row.file_id >= lo and (hi is None or row.file_id < hi) for row in page)
            found += [row.file_id for row in page]
            after = page[-1].file_id
    assert found == sorted(map(file_id, names))


def test_a_refused_arrival_is_rejected_at_once(store: Store) -> None:
    link = arrival("link.jpg", refused="a symbolic link out of the inbox")
    assert store.files.note([link], NIGHT).new == 1
    assert store.files.note([link], LATER).new == 0
    assert store.files.waiting("", None, 10) == []
    assert [row.reason for row in store.files.rejected()] == [link.refused]
    assert store.days.changed() == [("2026-11-01", 1)]
    # Becomes a file: no longer rejected, and the page that listed it is to be written again.
    assert store.files.note([arrival("link.jpg", "2-2-2")], LATER).new == 1
    assert [row.locator for row in store.files.waiting("", None, 10)] == [link.locator]
    assert list(store.files.rejected()) == []
    assert store.days.changed() == [("2026-11-01", 2)]


def test_a_tagged_file_that_becomes_a_link_gives_its_picture_up(store: Store) -> None:
    add_bundles(store)
    tag(store, "a.jpg")
    store.files.note([arrival("a.jpg", "2-2-2", "a symbolic link out of the inbox")], LATER)
    assert current(store) == {}
    assert store.current.counts(["color"]).images == 0


# --- recording


def test_recording_twice_changes_nothing(store: Store, url: str) -> None:
    add_bundles(store)
    store.files.note([arrival("a.jpg"), arrival("b.jpg"), arrival("c.jpg")], NIGHT)
    batch = {
        "tagged": [tagged("a.jpg"), tagged("b.jpg")],
        "rejected": [RejectedFile(file_id("c.jpg"), "1-1-1", "not a picture")],
        "predictions": [red("a.jpg"), red("b.jpg")],
    }
    store.predictions.record(**batch, run_id="first", now=NIGHT)
    before = rows_of(url)
    assert store.days.changed() == [("2026-11-01", 1)]
    store.predictions.record(**batch, run_id="second", now=LATER)
    assert rows_of(url) == before


def test_a_prediction_once_written_is_never_changed(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg")
    store.predictions.record(predictions=[red("a.jpg", "blue")], run_id="again", now=LATER)
    assert current(store)[image("a.jpg")].groups["color"].tags == ("red",)


def test_a_file_that_changed_meanwhile_stays_new(store: Store) -> None:
    add_bundles(store)
    store.files.note([arrival("a.jpg"), arrival("b.jpg")], NIGHT)
    store.files.note([arrival("a.jpg", "2-2-2"), arrival("b.jpg", "2-2-2")], LATER)
    store.predictions.record(
        tagged=[tagged("a.jpg")],
        rejected=[RejectedFile(file_id("b.jpg"), "1-1-1", "truncated")],
        predictions=[red("a.jpg")],
        run_id="run",
        now=LATER,
    )
    assert {row.file_id for row in store.files.waiting("", None, 9)} == {
        file_id("a.jpg"),
        file_id("b.jpg"),
    }
    counts = store.current.counts(["color"])
    assert (counts.waiting, counts.images, counts.rejected) == (2, 0, 0)


def test_of_two_who_settle_a_file_the_first_is_believed(store: Store) -> None:
    add_bundles(store)
    tag(store, "a.jpg")
    late = RejectedFile(file_id("a.jpg"), "1-1-1", "took too long")
    store.predictions.record(rejected=[late], run_id="other", now=LATER)
    assert list(store.files.rejected()) == []
    assert store.current.counts([]).tagged == 1


def test_the_same_bytes_under_two_names_are_one_picture(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    store.files.note([arrival("a.jpg"), arrival("copy of a.jpg")], NIGHT)
    copies = [tagged("a.jpg", "same"), tagged("copy of a.jpg", "same")]
    store.predictions.record(tagged=copies, predictions=[red("same")], run_id="run", now=NIGHT)
    (row,) = current(store).values()
    assert row.locators == (locator_of("/inbox/a.jpg"), locator_of("/inbox/copy of a.jpg"))
    counts = store.current.counts(["color"])
    assert (counts.tagged, counts.images) == (2, 1)
    assert counts.groups["color"] == GroupCounts(1, 0, 0)


def test_a_file_replaced_under_its_name_is_a_new_picture(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    store.files.note([arrival("a.jpg", "2-2-2")], LATER)
    assert set(current(store)) == {image("a.jpg"), image("b.jpg")}  # until it is read
    store.predictions.record(
        tagged=[tagged("a.jpg", "other", "2-2-2")],
        predictions=[red("other", "blue")],
        run_id="run",
        now=LATER,
    )
    rows = current(store)
    assert set(rows) == {image("other"), image("b.jpg")}
    assert (rows[image("other")].day, rows[image("b.jpg")].day) == ("2026-11-02", "2026-11-01")
    assert dict(store.days.changed()).keys() == {"2026-11-01", "2026-11-02"}
    counts = store.current.counts(["color"])
    assert (counts.images, counts.groups["color"]) == (2, GroupCounts(2, 0, 0))

    # The old bytes come back under another name: known, with the day they first came.
    store.files.note([arrival("old.jpg")], LATER)
    store.predictions.record(tagged=[tagged("old.jpg", "a.jpg")], run_id="run", now=LATER)
    assert current(store)[image("a.jpg")].day == "2026-11-01"
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(3, 0, 0)


def test_a_prediction_of_a_picture_nobody_holds_is_not_kept(store: Store, url: str) -> None:
    add_bundles(store)
    store.predictions.record(predictions=[red("never seen")], run_id="run", now=NIGHT)
    assert rows_of(url)["predictions"] == []


def test_what_cannot_come_from_the_bundle_is_refused_whole(store: Store, url: str) -> None:
    add_bundles(store)
    store.files.note([arrival("a.jpg")], NIGHT)
    before = rows_of(url)
    picture = image("a.jpg")
    for bad, message in (
        (Prediction(picture, "9" * 64, (0.5, 0.5), ("red",)), "add_version comes first"),
        (Prediction(picture, RED, (0.5,), ("red",)), "are not 2 finite scores"),
        (Prediction(picture, RED, (0.5, float("nan")), ("red",)), "are not 2 finite scores"),
    ):
        with pytest.raises(StoreError, match=message):
            store.predictions.record(
                tagged=[tagged("a.jpg")], predictions=[bad], run_id="run", now=NIGHT
            )
    assert rows_of(url) == before


def test_reasons_of_any_letters_are_kept(store: Store) -> None:
    store.files.note([arrival("a.jpg")], NIGHT)
    bad = RejectedFile(file_id("a.jpg"), "1-1-1", "caf\u00e9 \udcff \0 <b>")
    store.predictions.record(rejected=[bad], run_id="run", now=NIGHT)
    assert [row.reason for row in store.files.rejected()] == ["caf\u00e9 \\udcff \\0 <b>"]


def test_names_of_any_bytes_are_kept(store: Store) -> None:
    names = [
        b"/in/\xff\xfe.jpg",
        b"/in/line\nbreak",
        b"/in/" + b"x" * 255,
        "/in/ö'\"%_.jpg".encode(),
    ]
    store.files.note([Arrival(locator_of(name), "1-1-1") for name in names], NIGHT)
    assert {row.locator for row in store.files.waiting("", None, 9)} == set(map(locator_of, names))


def test_rejected_files_are_listed_by_day_latest_first_and_can_be_retried(store: Store) -> None:
    for moment, name in ((NIGHT, "a.jpg"), (LATER, "b.jpg"), (LATER, "c.jpg")):
        store.files.note([arrival(name)], moment)
        bad = RejectedFile(file_id(name), "1-1-1", "not a picture", image(name))
        store.predictions.record(rejected=[bad], run_id="run", now=LATER)
    assert [row.first_seen for row in store.files.rejected()] == [LATER, LATER, NIGHT]
    assert len(list(store.files.rejected(limit=2))) == 2
    assert [row.locator for row in store.files.rejected(day="2026-11-01")] == [
        locator_of("/inbox/a.jpg")
    ]
    assert store.days.changed() == [("2026-11-01", 1), ("2026-11-02", 2)]
    with pytest.raises(StoreError, match="write it as YYYY-MM-DD"):
        list(store.files.rejected(day="yesterday"))
    assert store.files.retry([locator_of("/inbox/a.jpg"), "file:///unknown"]) == 1
    assert store.days.changed() == [("2026-11-01", 2), ("2026-11-02", 2)]
    assert store.files.retry() == 2
    assert store.current.counts([]).waiting == 3


def test_a_long_list_of_rejected_files_comes_whole(store: Store) -> None:
    refused = [arrival(f"{n}", refused="a FIFO, not a file") for n in range(2300)]
    store.files.note(refused, NIGHT)
    assert {row.locator for row in store.files.rejected()} == {a.locator for a in refused}
    assert len(list(store.files.rejected(limit=1500))) == 1500


def test_a_file_that_is_gone_is_no_work_until_it_is_back(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", digest=None)
    store.files.note([arrival("new.jpg")], NIGHT)
    pins = {"color": RED}
    assert store.predictions.count_work(pins) == Work(1, {"color": 1})
    store.predictions.record(gone=[file_id("a.jpg"), file_id("new.jpg")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins) == Work(0, {"color": 0})
    assert store.predictions.backlog(pins, "", None, 9) == []
    assert set(current(store)) == {image("a.jpg")}  # its tags are still known
    assert store.files.note([arrival("a.jpg"), arrival("new.jpg")], LATER).new == 2
    assert store.predictions.count_work(pins) == Work(
        1, {"color": 1}
    )  # the known one need not be read anew
    assert [row.locators for row in store.predictions.backlog(pins, "", None, 9)] == [
        (locator_of("/inbox/a.jpg"),)
    ]
    assert store.current.counts([]).gone == 0


# --- backlog


def test_the_backlog_is_what_lacks_a_pinned_bundle_latest_first(store: Store) -> None:
    add_bundles(store)
    for number in range(30):
        tag(store, f"{number}.jpg", now=NIGHT + timedelta(hours=number))
    pins = {"color": RED, "style": BOOT}
    assert store.predictions.count_work({"color": RED}) == Work(0, {"color": 0})
    assert store.predictions.count_work(pins) == Work(0, {"color": 0, "style": 30})
    found, after = [], None
    while page := store.predictions.backlog(pins, "", None, 7, after):
        found += page
        after = (page[-1].first_seen, page[-1].image_id)
    assert [row.image_id for row in found] == [image(f"{n}.jpg") for n in range(29, -1, -1)]
    assert {row.groups for row in found} == {("style",)}
    assert found[0].locators == (locator_of("/inbox/29.jpg"),)
    shards = [store.predictions.backlog(pins, lo, hi, 99) for lo, hi in (("", "8"), ("8", None))]
    assert {row.image_id for shard in shards for row in shard} == {row.image_id for row in found}
    assert all(row.image_id < "8" for row in shards[0])
    store.predictions.record(
        predictions=[Prediction(r.image_id, BOOT, (0.5, 0.5), ("boot",)) for r in found[:29]],
        run_id="run",
        now=LATER,
    )
    assert store.predictions.count_work(pins) == Work(0, {"color": 0, "style": 1})
    assert [row.image_id for row in store.predictions.backlog(pins, "", None, 99)] == [
        image("0.jpg")
    ]
    assert store.predictions.backlog({}, "", None, 99) == []


def test_what_was_counted_complete_is_found_again_when_it_no_longer_is(store: Store) -> None:
    add_bundles(store)
    pins = {"color": RED}
    tag(store, "a.jpg")
    tag(store, "b.jpg")
    assert store.predictions.count_work(pins).backlog == {"color": 0}

    # A file is touched, is away while the work is counted, and comes back with unknown bytes.
    store.files.note([arrival("a.jpg", "2-2-2")], LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 0}
    store.predictions.record(tagged=[tagged("a.jpg", "other", "2-2-2")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 1}
    assert [row.image_id for row in store.predictions.backlog(pins, "", None, 9)] == [
        image("other")
    ]
    store.predictions.record(predictions=[red("other")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 0}

    # The bytes that had been replaced were predicted already.
    store.files.note([arrival("c.jpg")], LATER)
    store.predictions.record(tagged=[tagged("c.jpg", "a.jpg")], run_id="run", now=LATER)
    assert store.predictions.count_work(pins).backlog == {"color": 0}
    assert store.predictions.count_work({"color": BLUE}).backlog == {"color": 3}


# --- versions and ledger


def test_a_digest_names_one_bundle_for_good(store: Store) -> None:
    add_bundles(store)
    add_bundles(store)
    assert [v.digest for v in store.ledger.versions("color")] == [RED, BLUE, TEAL]
    assert [v.digest for v in store.ledger.versions()] == [RED, BLUE, TEAL, BOOT]
    place = {"registry_name": "shoetagger-color", "version": "7", "now": LATER}
    store.ledger.add_version(digest=RED, group="color", tags=["red", "blue"], **place)
    known = store.ledger.version_of(RED)
    assert known is not None
    assert (known.version, known.registered_at, known.tags) == ("7", NIGHT, ("red", "blue"))
    assert store.ledger.version_of("9" * 64) is None
    for wrong in ({"group": "style", "tags": ["red", "blue"]}, {"group": "color", "tags": ["red"]}):
        with pytest.raises(StoreError, match="a digest names one bundle for good"):
            store.ledger.add_version(digest=RED, **wrong, **place)


def test_a_move_counts_when_it_is_done(store: Store) -> None:
    add_bundles(store)
    move = store.ledger.begin(
        "color",
        RED,
        kind="promote",
        by="me",
        why="first",
        data_revision="abc",
        mlflow_run="def",
        expect_from=None,
        now=NIGHT,
    )
    assert store.ledger.live() == {}
    assert [m.id for m in store.ledger.pending()] == [move]
    store.ledger.finish(move, LATER)
    store.ledger.finish(move)
    assert store.ledger.live() == {"color": RED}
    assert store.ledger.pending() == []
    (done,) = store.ledger.history("color")
    assert (done.from_digest, done.to_digest, done.state) == (None, RED, "done")
    assert (done.by, done.why, done.data_revision, done.mlflow_run) == ("me", "first", "abc", "def")
    assert (done.created_at, done.done_at) == (NIGHT, LATER)
    with pytest.raises(StoreError, match="is done: it cannot become cancelled"):
        store.ledger.cancel(move)
    with pytest.raises(StoreError, match="no move 99"):
        store.ledger.finish(99)


def test_moves_that_conflict_are_refused(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    who = {"kind": "promote", "by": "me", "why": "why"}
    with pytest.raises(MoveConflict, match="moved meanwhile"):
        store.ledger.begin("color", BLUE, expect_from=None, **who)
    with pytest.raises(MoveConflict, match="is live already"):
        store.ledger.begin("color", RED, **who)
    with pytest.raises(StoreError, match="is of group style"):
        store.ledger.begin("color", BOOT, **who)
    with pytest.raises(StoreError, match="add_version comes first"):
        store.ledger.begin("color", "9" * 64, **who)
    with pytest.raises(StoreError, match="only a removal goes nowhere"):
        store.ledger.begin("color", None, **who)
    first = store.ledger.begin("color", BLUE, expect_from=RED, **who)
    with pytest.raises(MoveConflict, match=f"move {first} .*is pending"):
        store.ledger.begin("color", TEAL, expect_from=RED, **who)
    store.ledger.begin("style", BOOT, **who)  # groups do not wait for one another
    store.ledger.cancel(first)
    assert store.ledger.live() == {"color": RED}
    store.ledger.finish(store.ledger.begin("color", TEAL, expect_from=RED, **who))
    assert store.ledger.live() == {"color": TEAL}
    assert [m.state for m in store.ledger.history("color")] == ["done", "cancelled", "done"]


def test_the_chain_leaves_out_what_was_rolled_back(store: Store) -> None:
    add_bundles(store)
    assert store.ledger.chain("color") == []
    make_live(store, "color", RED)
    make_live(store, "color", BLUE)
    make_live(store, "color", TEAL)
    assert store.ledger.chain("color") == [TEAL, BLUE, RED]
    make_live(store, "color", BLUE, "rollback")
    assert store.ledger.chain("color") == [BLUE, RED]
    make_live(store, "color", TEAL)  # promoted after all
    assert store.ledger.chain("color") == [TEAL, BLUE, RED]
    make_live(store, "color", RED, "manual")  # the alias moved back by hand
    assert store.ledger.chain("color") == [RED]
    make_live(store, "color", BLUE)
    make_live(store, "color", RED)  # an old bundle promoted again: BLUE was never rolled back
    assert store.ledger.chain("color") == [RED, BLUE]
    make_live(store, "color", TEAL, "rollback")  # to one that had itself been rolled back
    assert store.ledger.chain("color") == [TEAL, BLUE]
    make_live(store, "color", None, "remove")
    assert store.ledger.chain("color") == []
    assert store.ledger.live() == {}
    make_live(store, "color", RED)
    assert store.ledger.chain("color") == [RED, TEAL, BLUE]


# --- current tags


def test_a_move_makes_tags_current_at_once_and_older_ones_stale(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    (day,) = store.days.changed()
    store.days.mark_published(*day)
    assert store.days.changed() == []

    make_live(store, "color", TEAL)
    assert [name for name, _ in store.days.changed()] == ["2026-11-01"]
    store.predictions.record(
        predictions=[Prediction(image("a.jpg"), TEAL, (0.1, 0.2, 0.9), ("teal",))],
        run_id="run",
        now=LATER,
    )
    rows = current(store, "color")
    new, old = (rows[image(name)].groups["color"] for name in ("a.jpg", "b.jpg"))
    assert (new.tags, new.digest, new.version, new.stale) == (("teal",), TEAL, None, False)
    assert new.scores == {"red": 0.1, "blue": 0.2, "teal": 0.9}
    assert (old.tags, old.digest, old.version, old.stale) == (("red",), RED, "1", True)
    assert store.current.counts(["color", "style"]).groups == {
        "color": GroupCounts(1, 1, 0),
        "style": GroupCounts(0, 0, 2),
    }
    make_live(store, "color", RED, "rollback")
    rows = current(store, "color")
    assert [(row.groups["color"].tags, row.groups["color"].stale) for row in rows.values()] == [
        (("red",), False)
    ] * 2
    # What only the bundle that was rolled back has seen has no tags until the next night.
    tag(store, "c.jpg", digest=None)
    store.predictions.record(
        predictions=[Prediction(image("c.jpg"), TEAL, (0.1, 0.2, 0.9), ("teal",))],
        run_id="run",
        now=LATER,
    )
    assert current(store)[image("c.jpg")].groups == {}
    assert store.current.counts(["color"]).groups == {"color": GroupCounts(2, 0, 1)}


def test_corrections_overrule_until_they_are_withdrawn(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg")
    tag(store, "b.jpg", digest=None)
    who = {"by": "me", "why": "I saw it"}
    store.current.correct(image("a.jpg"), "color", ["blue"], now=NIGHT, **who)
    store.current.correct(image("b.jpg"), "color", [], now=NIGHT, **who)
    make_live(store, "color", TEAL)
    rows = current(store)
    a, b = (rows[image(name)].groups["color"] for name in ("a.jpg", "b.jpg"))
    assert (a.tags, a.corrected, a.stale, a.digest) == (("blue",), True, False, RED)
    assert (b.tags, b.corrected, b.digest, b.scores) == ((), True, None, {})
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(2, 0, 0)
    revision = dict(store.days.changed())["2026-11-01"]
    store.current.correct(image("a.jpg"), "color", ["red", "blue"], now=LATER, **who)
    assert dict(store.days.changed())["2026-11-01"] == revision + 1
    assert current(store)[image("a.jpg")].groups["color"].tags == ("red", "blue")
    store.current.correct(image("a.jpg"), "color", None, now=LATER, **who)
    a = current(store)[image("a.jpg")].groups["color"]
    assert (a.tags, a.corrected, a.stale) == (("red",), False, True)
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(1, 1, 0)
    with pytest.raises(StoreError, match="nothing to correct"):
        store.current.correct(image("unknown"), "color", [], now=NIGHT, **who)


def test_groups_that_were_removed_or_not_asked_for_do_not_show(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    make_live(store, "style", BOOT)
    tag(store, "a.jpg")
    boot = Prediction(image("a.jpg"), BOOT, (0.9, 0.1), ("boot",))
    store.predictions.record(predictions=[boot], run_id="run", now=NIGHT)
    assert current(store)[image("a.jpg")].groups.keys() == {"color", "style"}
    assert current(store, "style")[image("a.jpg")].groups.keys() == {"style"}
    store.current.correct(image("a.jpg"), "color", ["blue"], by="me", why="x", now=NIGHT)
    make_live(store, "color", None, "remove")
    assert current(store)[image("a.jpg")].groups.keys() == {"style"}
    assert store.current.counts(["color"]).groups["color"] == GroupCounts(0, 0, 1)
    assert [m.kind for m in store.ledger.history("color")] == ["promote", "remove"]


def test_current_rows_come_whole_in_order_of_arrival_and_can_be_narrowed(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    first = [f"{n}.jpg" for n in range(1200)]
    tag(store, *first, now=NIGHT)
    tag(store, "late.jpg", now=LATER)
    rows = list(store.current.rows(["color"]))
    assert [row.first_seen for row in rows] == [NIGHT] * 1200 + [LATER]
    assert {row.image_id for row in rows} == {image(n) for n in (*first, "late.jpg")}
    assert all(row.groups["color"].tags == ("red",) for row in rows)
    assert set(current(store, day="2026-11-02")) == {image("late.jpg")}
    assert set(current(store, image_ids=[image("7.jpg"), "x"])) == {image("7.jpg")}
    assert len(current(store, image_ids=[row.image_id for row in rows])) == 1201
    assert (rows[0].width, rows[0].height, rows[0].day) == (640, 480, "2026-11-01")


def test_reading_goes_on_while_others_write(store: Store, url: str) -> None:
    add_bundles(store)
    tag(store, *(f"{n}.jpg" for n in range(1500)))
    rows = store.current.rows(["color"])
    next(rows)
    with Store(url) as other:
        tag(other, "late.jpg", now=LATER)
    assert (
        len(list(rows)) == 1500
    )  # the first was taken before, and the late one is on a later page


def test_what_was_current_at_a_time_can_be_told(store: Store) -> None:
    add_bundles(store)

    def at(hours: float) -> datetime:
        return NIGHT + timedelta(hours=hours)

    def move(digest: str, kind: str, when: datetime) -> None:
        begun = store.ledger.begin("color", digest, kind=kind, by="me", why="x", now=when)
        store.ledger.finish(begun, when)

    picture = image("a.jpg")
    move(RED, "promote", at(0))
    tag(store, "a.jpg", now=at(1))
    move(BLUE, "promote", at(2))
    store.predictions.record(predictions=[red("a.jpg", "blue", BLUE)], run_id="run", now=at(3))
    store.current.correct(picture, "color", ["red", "blue"], by="me", why="x", now=at(4))
    store.current.correct(picture, "color", None, by="me", why="x", now=at(5))
    move(RED, "rollback", at(6))
    told = [store.current.tags_at(picture, at(hours + 0.5)).get("color") for hours in range(-1, 7)]
    assert [t and (t.digest, t.tags, t.stale, t.corrected) for t in told] == [
        None,
        None,
        (RED, ("red",), False, False),
        (RED, ("red",), True, False),
        (BLUE, ("blue",), False, False),
        (BLUE, ("red", "blue"), False, True),
        (BLUE, ("blue",), False, False),
        (RED, ("red",), False, False),
    ]


# --- days, runs, times


def test_a_day_is_changed_until_that_revision_is_published(store: Store) -> None:
    add_bundles(store)
    tag(store, "a.jpg")
    assert store.days.changed() == [("2026-11-01", 1)]
    tag(store, "b.jpg")
    store.days.mark_published("2026-11-01", 1)
    assert store.days.changed() == [("2026-11-01", 2)]
    store.days.mark_published("2026-11-01", 2)
    store.days.mark_published("2026-11-01", 1)
    assert store.days.changed() == []


def test_the_day_is_that_of_utc_and_times_come_back_as_they_went(store: Store) -> None:
    tokyo = datetime(2026, 11, 2, 3, 30, 0, 123456, timezone(timedelta(hours=9)))
    tag(store, "a.jpg", digest=None, now=tokyo)
    (row,) = store.current.rows([])
    assert (row.first_seen, row.day) == (tokyo, "2026-11-01")
    assert row.first_seen.tzinfo == UTC
    assert len(list(store.current.rows([], day="2026-11-01"))) == 1
    with pytest.raises(Exception, match="has no time zone"):
        store.files.note([arrival("b.jpg")], datetime(2026, 11, 1))  # noqa: DTZ001, RUF100


def test_runs_are_kept_latest_first(store: Store) -> None:
    first = store.runs.start("night", {"color": RED}, NIGHT)
    second = store.runs.start("manual", {}, LATER)
    store.runs.finish(first, "done", {"tagged": 3}, LATER)
    assert [run.run_id for run in store.runs.latest(9)] == [second, first]
    (night,) = store.runs.latest(1, "night")
    assert (night.state, night.pins, night.counts) == ("done", {"color": RED}, {"tagged": 3})
    assert (night.started_at, night.ended_at) == (NIGHT, LATER)
    assert store.runs.latest(1)[0].state == "running"
    with pytest.raises(StoreError, match="no run nobody"):
        store.runs.finish("nobody", "done", {}, LATER)


def test_what_past_runs_saw_of_each_tag_is_there_to_compare_with(store: Store) -> None:
    for day in range(4):
        run = store.runs.start("night", {"color": RED}, NIGHT + timedelta(days=day))
        rates = {"red": (day, 9)} if day != 1 else None  # a night without new pictures
        store.runs.finish(run, "done", {}, LATER, rates=rates, alerts=["odd"] if day == 3 else [])
    assert store.runs.past_rates(30, run) == [{"red": (2, 9)}, {"red": (0, 9)}]
    assert store.runs.past_rates(1, run) == [{"red": (2, 9)}]
    assert [run.alerts for run in store.runs.latest(2)] == [("odd",), ()]
    assert [run.rates for run in store.runs.latest(3)] == [{"red": (3, 9)}, {"red": (2, 9)}, None]


# --- forgetting


def test_forgetting_a_picture_erases_all_that_was_derived_from_it(store: Store, url: str) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "b.jpg")
    store.current.correct(image("a.jpg"), "color", ["blue"], by="me", why="so", now=NIGHT)
    published = dict(store.days.changed())
    for day, revision in published.items():
        store.days.mark_published(day, revision)
    store.files.forget(image("a.jpg"), LATER)
    left = rows_of(url)
    for name in ("images", "predictions", "corrections"):
        assert image("a.jpg") not in repr(left[name])
        assert name == "corrections" or image("b.jpg") in repr(left[name])
    assert set(current(store)) == {image("b.jpg")}
    assert [day for day, _ in store.days.changed()] == ["2026-11-01"]
    (row,) = store.files.rejected()
    assert (row.locator, row.reason[:9]) == (locator_of("/inbox/a.jpg"), "forgotten")
    store.files.forget(image("a.jpg"), LATER)  # again: nothing but the day is touched
    assert rows_of(url) | {"days": left["days"]} == left
    with pytest.raises(StoreError, match="no picture ffff"):
        store.files.forget("f" * 64, LATER)


def test_a_forgotten_picture_is_tagged_again_only_when_asked_by_name(store: Store) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    tag(store, "a.jpg", "gone.jpg")
    store.predictions.record(gone=[file_id("gone.jpg")], run_id="run", now=NIGHT)
    for name in ("a.jpg", "gone.jpg"):
        store.files.forget(image(name), NIGHT)
    assert store.files.retry() == 0
    assert store.files.find(locator_of("/inbox/gone.jpg")) is None
    # The same bytes under another name, or back under their own, are refused all the same.
    store.files.note([arrival("copy.jpg"), arrival("gone.jpg")], LATER)
    store.predictions.record(
        tagged=[tagged("copy.jpg", "a.jpg"), tagged("gone.jpg")],
        predictions=[red("a.jpg"), red("gone.jpg")],
        run_id="run",
        now=LATER,
    )
    assert current(store) == {}
    assert {row.reason[:9] for row in store.files.rejected()} == {"forgotten"}
    assert store.files.retry([locator_of("/inbox/copy.jpg")]) == 1
    store.predictions.record(
        tagged=[tagged("copy.jpg", "a.jpg")], predictions=[red("a.jpg")], run_id="run", now=LATER
    )
    assert set(current(store)) == {image("a.jpg")}


def test_counts_of_an_empty_store_are_zero(store: Store) -> None:
    counts = store.current.counts(["color"])
    assert (counts.files, counts.images, counts.waiting) == (0, 0, 0)
    assert counts.groups == {"color": GroupCounts(0, 0, 0)}
    assert store.predictions.count_work({"color": RED}) == Work(0, {"color": 0})


# --- many at once


WRITER = """
import sys, datetime
sys.path[:0] = sys.argv[3].split(':')
import tests.store.test_store as t
from shoetagger.store.rows import RejectedFile
from shoetagger.store.store import Store
store, me = Store(sys.argv[1]), sys.argv[2]
for round in range(6):
    names = [f"{round}-{n}.jpg" for n in range(20)]          # all writers write the same files
    own = [f"{me}-{round}-{n}.jpg" for n in range(5)]        # and some of their own
    store.files.note([t.arrival(n) for n in names + own], t.NIGHT)
    store.predictions.record(
        tagged=[t.tagged(n) for n in names + own[1:]],
        rejected=[RejectedFile(t.file_id(own[0]), "1-1-1", "bad")],
        predictions=[t.red(n) for n in names + own[1:]],
        run_id=me, now=t.NIGHT)
    store.predictions.count_work({"color": t.RED, "style": t.BOOT})
    store.predictions.backlog({"color": t.RED, "style": t.BOOT}, "", None, 50)
    run = store.runs.start("night", {}, t.NIGHT)
    store.runs.finish(run, "done", {}, t.NIGHT)
store.close()
"""


@pytest.mark.slow
def test_several_processes_write_at_once_and_nothing_is_lost_or_locked(
    store: Store, url: str
) -> None:
    add_bundles(store)
    make_live(store, "color", RED)
    here = ":".join(map(str, (ROOT, ROOT / "tests")))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(number), here], stderr=subprocess.PIPE
        )
        for number in range(4)
    ]
    assert [(w.communicate()[1].decode(), w.returncode) for w in writers] == [("", 0)] * 4
    counts = store.current.counts(["color"])
    assert (counts.tagged, counts.rejected, counts.waiting) == (6 * 20 + 4 * 6 * 4, 4 * 6, 0)
    assert counts.images == counts.tagged
    assert counts.groups == {"color": GroupCounts(counts.tagged, 0, 0)}
    assert len(store.runs.latest(99)) == 24
    assert len(list(store.current.rows(["color"]))) == counts.tagged


MOVER = """
import sys
from shoetagger.store.rows import MoveConflict
from shoetagger.store.store import Store
store = Store(sys.argv[1])
try:
    move = store.ledger.begin("color", sys.argv[2], kind="promote", by=sys.argv[2], why="x",
                            expect_from=None)
except MoveConflict:
    sys.exit(3)
store.ledger.finish(move)
"""


@pytest.mark.slow
def test_of_two_promotions_at_once_one_is_refused(store: Store, url: str) -> None:
    add_bundles(store)
    movers = [
        subprocess.Popen([sys.executable, "-c", MOVER, url, digest], stderr=subprocess.PIPE)
        for digest in (RED, BLUE, TEAL)
    ]
    codes = [(m.communicate()[1], m.returncode) for m in movers]
    assert sorted(codes) == [(b"", 0), (b"", 3), (b"", 3)]
    (move,) = store.ledger.history()
    assert store.ledger.live() == {"color": move.to_digest}


@pytest.mark.slow
def test_a_writer_waits_for_its_turn(url: str, store: Store) -> None:
    if not url.startswith("sqlite"):
        pytest.skip("on PostgreSQL the server does the waiting")
    holder = sqlite3.connect(sa.make_url(url).database or "", isolation_level=None)
    assert holder.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    holder.execute("BEGIN IMMEDIATE")
    code = (
        "import sys; sys.path[:0] = sys.argv[2].split(':'); import tests.store.test_store as t\n"
        "print(t.Store(sys.argv[1]).files.note([t.arrival('a')], t.NIGHT).new)"
    )
    here = ":".join(map(str, (ROOT, ROOT / "tests")))
    writer = subprocess.Popen([sys.executable, "-c", code, url, here], stdout=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        writer.wait(7)  # longer than SQLite's own patience of 5 s
    assert store.current.counts([]).files == 0  # readers do not wait
    holder.execute("COMMIT")
    holder.close()
    assert writer.communicate() == (b"1\n", None)


@pytest.mark.slow
def test_a_write_that_is_killed_leaves_nothing_half_written(store: Store, url: str) -> None:
    add_bundles(store)
    before = rows_of(url)
    code = (
        "import sys, os; sys.path[:0] = sys.argv[2].split(':')\n"
        "import tests.store.test_store as t\n"
        "from shoetagger.store import predictions\n"
        "predictions.write_predictions = lambda *_: os._exit(9)\n"
        "store = t.Store(sys.argv[1])\n"
        "store.files.note([t.arrival('a')], t.NIGHT)\n"
        "store.predictions.record(tagged=[t.tagged('a')], run_id='x', now=t.NIGHT)"
    )
    here = ":".join(map(str, (ROOT, ROOT / "tests")))
    assert subprocess.run([sys.executable, "-c", code, url, here]).returncode == 9
    after = rows_of(url)
    assert [row[4] for row in after.pop("files")] == ["new"]
    assert after == {name: rows for name, rows in before.items() if name != "files"}
    tag(store, "a")  # and nobody waits for the dead
    assert store.current.counts([]).tagged == 1


def test_a_full_disk_is_named_and_leaves_the_old_state(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    with Store(f"sqlite:///{file}") as store:
        store.migrate()
        tag(store, "a.jpg", digest=None)

        def limit(connection: sqlite3.Connection, _: object) -> None:
            connection.execute(f"PRAGMA max_page_count={file.stat().st_size // 4096}")

        store.close()
        sa.event.listen(store._database._engine, "connect", limit)
        with pytest.raises(StoreError, match=r"disk is full: free some space"):
            store.files.note([arrival(f"{n}.jpg") for n in range(5000)], NIGHT)
        assert store.current.counts([]).files == 1
