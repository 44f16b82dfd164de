"""Several processes at once, and one that is killed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers.stores import (
    BLUE,
    RED,
    TEAL,
    add_bundles,
    make_live,
    rows_of,
    tag,
)

from shoetagger.store import database
from shoetagger.store.rows import GroupCounts, StoreUnavailable
from shoetagger.store.store import Store

ROOT = Path(__file__).parents[2]


WRITER = """
import sys, datetime
sys.path[:0] = sys.argv[3].split(':')
from helpers import stores as t
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
        "import sys; sys.path[:0] = sys.argv[2].split(':'); from helpers import stores as t\n"
        "from shoetagger.store.store import Store\n"
        "print(Store(sys.argv[1]).files.note([t.arrival('a')], t.NIGHT).new)"
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
def test_a_writer_that_waits_too_long_says_who_is_writing(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("sqlite"):
        pytest.skip("SQLite gives up by itself, and knows no other process")
    monkeypatch.setattr(database, "BUSY_SECONDS", 1.0)
    holder = sa.create_engine(url)
    with holder.begin() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar_one()
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({database._WRITER_LOCK})"))
        with pytest.raises(StoreUnavailable, match=rf"through process {pid} of PostgreSQL"):
            store.files.retry()
    holder.dispose()
    assert store.files.retry() == 0


@pytest.mark.slow
def test_a_write_that_is_killed_leaves_nothing_half_written(store: Store, url: str) -> None:
    add_bundles(store)
    before = rows_of(url)
    code = (
        "import sys, os; sys.path[:0] = sys.argv[2].split(':')\n"
        "from helpers import stores as t\n"
        "from shoetagger.store.store import Store\n"
        "from shoetagger.store import predictions\n"
        "predictions.write_predictions = lambda *_: os._exit(9)\n"
        "store = Store(sys.argv[1])\n"
        "store.files.note([t.arrival('a')], t.NIGHT)\n"
        "store.predictions.record(tagged=[t.tagged('a')], run_id='x', now=t.NIGHT)"
    )
    here = ":".join(map(str, (ROOT, ROOT / "tests")))
    assert subprocess.run([sys.executable, "-c", code, url, here]).returncode == 9
    after = rows_of(url)
    assert [row[4] for row in after.pop("files")] == ["new"]
    assert after.pop("file_counts") == [("new", 1)]
    assert after == {name: rows for name, rows in before.items() if name in after}
    tag(store, "a")  # and nobody waits for the dead
    assert store.current.counts([]).tagged == 1
