"""Migrations, and databases that are missing, damaged or full."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from helpers.stores import (
    BLUE,
    LATER,
    NIGHT,
    RED,
    add_bundles,
    arrival,
    current,
    file_id,
    image,
    rows_of,
    tag,
)

from shoetagger.ingest.folder import locator_of
from shoetagger.store import database, migrations, tables
from shoetagger.store.rows import (
    StoreError,
)
from shoetagger.store.store import Store


def make_older(
    url: str, revision: str, rows: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the tables of a revision, with these rows, by name of the table."""
    with monkeypatch.context() as patch, Store(url) as old:
        patch.setattr(database, "REVISION", revision)
        old.migrate()
    engine, older = sa.create_engine(url), sa.MetaData()
    with engine.begin() as connection:
        older.reflect(connection)
        for name, some in rows.items():
            connection.execute(sa.delete(older.tables[name]))  # last_seq begins with a row
            connection.execute(sa.insert(older.tables[name]), some)
    engine.dispose()


def test_an_older_store_with_rows_in_it_is_brought_up_to_date(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {
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
    make_older(empty_url, "0001", rows, monkeypatch)
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


def test_what_was_stored_under_hashes_is_found_under_keys(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, gone = image("a"), image("b")
    vector = bytes(range(1, 65))
    rows = {
        "last_seq": [{"seq": 7}],
        "versions": [
            {"digest": digest, "group_name": "color", "tags": ["red", "blue"],
             "registered_at": when}
            for digest, when in ((RED, LATER), (BLUE, NIGHT))
        ],
        "images": [
            {"image_id": i, "width": 4, "height": 3, "first_seen": NIGHT,
             "day": "2026-11-01", "seq": seq, "replaced": False}
            for i, seq in ((there, 7), (gone, -2))
        ],
        "predictions": [
            {"bundle_digest": digest, "image_id": i, "scores": [0.75, 0.25], "tags": [tag],
             "run_id": "r", "created_at": NIGHT, "unsure": unsure}
            for digest, i, tag, unsure in (
                (BLUE, there, "blue", False),
                (RED, there, "red", True),
                (BLUE, gone, "blue", False),
            )
        ],
        "vectors": [{"image_id": there, "space": "00" * 8, "vector": vector}],
        "files": [
            {"file_id": file_id(name), "locator": locator_of(f"/inbox/{name}"), "token": "1-1",
             "image_id": image(name), "state": state, "first_seen": NIGHT, "changed_at": NIGHT}
            for name, state in (("a", "tagged"), ("b", "gone"))
        ],
        "corrections": [
            {"image_id": gone, "group_name": "color", "tags": ["red"], "by": "me",
             "why": "seen", "created_at": NIGHT}
        ],
        "ledger": [
            {"group_name": "color", "to_digest": RED, "kind": "promote", "state": "done",
             "by": "me", "why": "so", "created_at": NIGHT, "done_at": NIGHT}
        ],
    }  # fmt: skip
    make_older(empty_url, "0017", rows, monkeypatch)
    with Store(empty_url) as store:
        store.migrate()
        found = current(store, "color")
        assert found[there].groups["color"].tags == ("red",)
        assert found[there].groups["color"].unsure
        assert found[gone].groups["color"].tags == ("red",), "as corrected"
        assert list(store.vectors.of([there, gone])) == [there]
        known = store.predictions.tags_known([RED, BLUE], [there, gone])
        assert known == {(RED, there): ("red",), (BLUE, there): ("blue",), (BLUE, gone): ("blue",)}
        add_bundles(store)  # known ones keep their keys
        tag(store, "new", now=LATER)
        keys = {name: [row[:2] for row in rows_of(empty_url)[name]] for name in
                ("images", "predictions")}  # fmt: skip
        assert keys["images"] == [(2, gone), (7, there), (8, image("new"))]
        assert keys["predictions"] == [(1, 2), (1, 7), (2, 7), (2, 8)]


def test_a_store_whose_rows_lack_others_is_not_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    make_older(url, "0017", {}, monkeypatch)
    with closing(sqlite3.connect(tmp_path / "store.db")) as connection, connection:
        connection.execute(
            "INSERT INTO ledger (group_name, to_digest, kind, state, by, why, created_at) "
            f"VALUES ('color', '{RED}', 'promote', 'pending', 'me', 'so', '2026-11-01')"
        )
    with Store(url) as store, pytest.raises(StoreError, match="a row of ledger belongs to one of "):
        store.migrate()
    with Store(url) as store, pytest.raises(StoreError, match=r"older version \(0017"):
        store.ledger.live()


def test_a_store_without_tables_says_what_to_run(empty_url: str, tmp_path: Path) -> None:
    with Store(empty_url) as store:
        for use in (store.ledger.live, lambda: store.files.note([arrival("a")], NIGHT)):
            with pytest.raises(StoreError, match="has not been migrated: run `shoetagger migrate`"):
                use()
        assert list(tmp_path.iterdir()) == []  # looking creates no file
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

    latest = database.REVISION
    monkeypatch.setattr(database, "REVISION", "9998")
    with (
        Store(url) as store,
        pytest.raises(StoreError, match=rf"older version \({latest}, .*9998\)"),
    ):
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
