"""A restore happens as a whole or changes nothing: damaged, full, locked, or killed anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from helpers import postgres, stores
from helpers.disks import fill
from helpers.installation import make_project

from shoetagger.config.places import Bucket
from shoetagger.config.settings import PUBLISHED_FORMAT, Settings, sqlite_url
from shoetagger.ops import restore as restoring
from shoetagger.ops.backup import backup
from shoetagger.ops.backup_file import BackupError
from shoetagger.ops.installation import opened
from shoetagger.ops.replacement import Replacement
from shoetagger.ops.restore import restore, settle
from shoetagger.store import dump
from shoetagger.store.rows import StoreError


def installation(folder: Path, store_url: str | None = None) -> Settings:
    """Set up a store, and what stands for MLflow's database and models."""
    home = folder / "state"
    url = store_url or sqlite_url(home / "store.db")
    settings = Settings(
        repo=make_project(folder / "project"),
        home=home,
        inbox=folder / "inbox",
        store_url=url,
        tracking_uri=sqlite_url(home / "mlflow" / "mlflow.db"),
        device="cpu",
    )
    (settings.artifacts / "models").mkdir(parents=True)
    if store_url is None:
        stores.migrated(url)
    with closing(sqlite3.connect(home / "mlflow" / "mlflow.db")) as mlflow:
        mlflow.execute("CREATE TABLE mark (day TEXT)")
        mlflow.execute("INSERT INTO mark VALUES ('')")
        mlflow.commit()
    return settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return installation(tmp_path)


@pytest.fixture
def file(settings: Settings, tmp_path: Path) -> Path:
    """A backup of the first of January; afterwards the installation is of the second."""
    mark(settings, "2026-01-01")
    backup(settings, tmp_path / "file")
    mark(settings, "2026-01-02")
    return tmp_path / "file"


def mark(settings: Settings, day: str) -> None:
    """Write a day into the store, MLflow's database and a model."""
    engine = sa.create_engine(settings.store_url)
    with engine.begin() as store:
        store.execute(sa.text("DELETE FROM days"))
        store.execute(sa.text(f"INSERT INTO days VALUES ('{day}', 1, 0)"))
    engine.dispose()
    with closing(sqlite3.connect(settings.home / "mlflow" / "mlflow.db")) as mlflow:
        mlflow.execute(f"UPDATE mark SET day = '{day}'")
        mlflow.commit()
    shutil.rmtree(settings.artifacts)
    (settings.artifacts / "models" / day).mkdir(parents=True)
    (settings.artifacts / "models" / day / "weights").write_text(day)


def marks(settings: Settings) -> set[str]:
    """Return the days that store, MLflow's database and models are of; one, if they agree."""
    engine = sa.create_engine(settings.store_url)
    with engine.begin() as store:
        days = set(store.execute(sa.text("SELECT day FROM days")).scalars())
    engine.dispose()
    with closing(sqlite3.connect(settings.home / "mlflow" / "mlflow.db")) as mlflow:
        days |= {day for (day,) in mlflow.execute("SELECT day FROM mark")}
    return days | {path.read_text() for path in settings.artifacts.rglob("weights")}


def left_over(settings: Settings) -> list[Path]:
    hidden = [path for path in settings.home.rglob(".*") if path.name != PUBLISHED_FORMAT]
    return hidden + [path for path in settings.home.rglob("*-*") if "models" not in path.parts]


@contextmanager
def holding(file: Path, statement: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process that has executed a statement on a SQLite database and keeps it open."""
    program = (
        "import sqlite3, sys\n"
        f"database = sqlite3.connect({str(file)!r}, isolation_level=None)\n"
        f"database.execute({statement!r}).fetchall()\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "ready\n"
    try:
        yield holder
    finally:
        holder.communicate()


def damage(database: Path) -> None:
    with database.open("r+b") as out:
        out.write(b"no database any more" * 1000)


@pytest.mark.parametrize("name", ["store.db", "mlflow/mlflow.db"])
def test_a_damaged_database_is_replaced_with_all_the_rest(
    settings: Settings, file: Path, name: str
) -> None:
    damage(settings.home / name)
    (settings.home / f"{name}-wal").write_bytes(b"what belongs to the damaged one")
    restore(settings, file, replace=True)
    assert marks(settings) == {"2026-01-01"}
    assert left_over(settings) == []


def test_a_damaged_store_is_replaced_only_on_request(settings: Settings, file: Path) -> None:
    damage(settings.home / "store.db")
    shutil.rmtree(settings.artifacts)
    with pytest.raises(BackupError, match="--replace"):
        restore(settings, file)


def test_a_damaged_database_is_not_backed_up(settings: Settings, tmp_path: Path) -> None:
    damage(settings.home / "mlflow" / "mlflow.db")
    (tmp_path / "file").write_text("the last good one")
    with pytest.raises(StoreError, match=r"mlflow\.db.*not a database"):
        backup(settings, tmp_path / "file")
    assert (tmp_path / "file").read_text() == "the last good one"


@pytest.mark.parametrize("leave", [0, 100_000])
def test_a_restore_that_finds_the_disk_full_changes_nothing(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave: int
) -> None:
    settings = installation(disk)
    mark(settings, "2026-01-01")
    backup(settings, tmp_path / "file")
    mark(settings, "2026-01-02")
    filler = fill(disk, leave=leave)
    with pytest.raises(BackupError, match=r"MB free, and restoring takes .* make room"):
        restore(settings, tmp_path / "file", replace=True)
    # Another process may fill it after that was checked.
    monkeypatch.setattr(restoring, "_check_space", lambda *_: None)
    with pytest.raises(BackupError, match=r"nothing was changed: .*(No space|full)"):
        restore(settings, tmp_path / "file", replace=True)
    filler.unlink()
    assert marks(settings) == {"2026-01-02"}
    assert left_over(settings) == []
    restore(settings, tmp_path / "file", replace=True)
    assert marks(settings) == {"2026-01-01"}


@pytest.mark.parametrize(
    ("name", "statement"),
    [
        ("store.db", "SELECT day FROM days"),
        ("store.db", "BEGIN IMMEDIATE"),
        ("mlflow/mlflow.db", "SELECT day FROM mark"),
        ("mlflow/mlflow.db", "BEGIN EXCLUSIVE"),
    ],
)
def test_a_database_in_use_is_named_with_its_user_and_nothing_changes(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch, name: str, statement: str
) -> None:
    monkeypatch.setattr(restoring, "_BUSY_SECONDS", 0.1)
    with holding(settings.home / name, statement) as holder:
        with pytest.raises(BackupError, match=f"process {holder.pid} .*in use"):
            restore(settings, file, replace=True)
        # One of another user is not seen, but its lock is.
        monkeypatch.setattr(restoring, "processes_with_open", lambda _: [])
        if statement.startswith("BEGIN"):
            with pytest.raises(BackupError, match=f"{name} is in use"):
                restore(settings, file, replace=True)
    assert marks(settings) == {"2026-01-02"}
    assert left_over(settings) == []


@pytest.mark.slow
def test_a_backup_of_a_locked_database_ends_and_names_it(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "_BUSY_SECONDS", 0.1)
    database = settings.home / "mlflow" / "mlflow.db"
    with (
        holding(database, "BEGIN EXCLUSIVE"),
        pytest.raises(StoreError, match=rf"{database} has been locked"),
    ):
        backup(settings, tmp_path / "file")


@pytest.mark.slow
def test_a_place_that_cannot_be_moved_leaves_all_as_it_was(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if target == settings.home / "store.db" and path.name.endswith(".new"):
            raise PermissionError(1, "Operation not permitted")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(BackupError, match="nothing was changed: Operation not permitted"):
        restore(settings, file, replace=True)
    assert marks(settings) == {"2026-01-02"}
    assert left_over(settings) == []


@pytest.mark.slow
def test_a_bucket_that_does_not_answer_leaves_all_as_it_was(
    settings: Settings, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even the next command, which finds the bucket back, goes on with that restore."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "something")
    in_bucket = replace(settings, published_place=Bucket("s3", "bucket", "shop"))
    with pytest.raises(BackupError, match="nothing was changed: SHOETAGGER_PUBLISHED cannot be"):
        restore(in_bucket, file, replace=True)
    assert left_over(settings) == []
    settle(settings)
    assert marks(settings) == {"2026-01-02"}


# Imports once, then forks for every restore, which kills itself at its n-th change of a file.
RESTORES = """
import os, signal, sys
from pathlib import Path
import alembic.command, alembic.config, sqlalchemy.dialects.sqlite
from shoetagger.config.settings import Settings
from shoetagger.ops.restore import restore
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "sqlite3.connect"}
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        left = int(line)
        def count(event, arguments):
            global left
            writes = event == "open" and isinstance(arguments[1], str) and set("wxa+") & set(arguments[1])
            if event in CHANGES or writes:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        restore(Settings.from_environment(), Path(sys.argv[1]), replace=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""  # noqa: E501 - a program


@pytest.mark.slow
def test_a_restore_killed_at_any_moment_is_completed_or_undone_by_the_next_command(
    settings: Settings, file: Path, tmp_path: Path
) -> None:
    (settings.published / PUBLISHED_FORMAT).parent.mkdir()
    (settings.published / PUBLISHED_FORMAT).write_text("of the second")
    shutil.copytree(settings.home, tmp_path / "second")
    restores = subprocess.Popen(
        [sys.executable, "-c", RESTORES, str(file)], env=os.environ | settings.as_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert restores.stdin is not None
    assert restores.stdout is not None
    assert restores.stdout.readline() == "ready\n"
    ends = []
    killed = True
    while killed:
        shutil.rmtree(settings.home)
        shutil.copytree(tmp_path / "second", settings.home)
        restores.stdin.write(f"{2 * len(ends) + 1}\n")
        restores.stdin.flush()
        killed = int(restores.stdout.readline()) == -signal.SIGKILL
        interrupted = Replacement.interrupted(settings.home / ".restore")
        with opened(settings):
            pass
        (day,) = marks(settings)
        if day == "2026-01-01":  # all of it has to be published again
            assert not (settings.published / PUBLISHED_FORMAT).exists()
        assert left_over(settings) == [] or interrupted is None
        ends.append(day)
    restores.communicate()
    assert len(ends) > 15
    # Whole before a moment, whole after it.
    assert ends == sorted(ends, reverse=True)
    assert ends[-1] == "2026-01-01"


def test_while_a_restore_runs_other_commands_say_so(settings: Settings) -> None:
    Replacement(settings.home / ".restore", []).prepare()
    with (
        restoring._only_restore(settings),
        pytest.raises(BackupError, match="a restore is running"),
        opened(settings),
    ):
        pass


# --- PostgreSQL


@pytest.fixture
def on_postgres(postgres_server: tuple[str, str], tmp_path: Path) -> Iterator[Settings]:
    server, template = postgres_server
    with postgres.database(server, template) as url:
        yield installation(tmp_path, url)


@pytest.fixture
def postgres_file(on_postgres: Settings, tmp_path: Path) -> Path:
    mark(on_postgres, "2026-01-01")
    backup(on_postgres, tmp_path / "file")
    mark(on_postgres, "2026-01-02")
    return tmp_path / "file"


@pytest.mark.slow
def test_a_postgresql_in_use_is_named_with_its_user_and_nothing_changes(
    on_postgres: Settings, postgres_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dump, "_BUSY_SECONDS", 1.0)
    engine = sa.create_engine(on_postgres.store_url)
    with engine.begin() as reader:
        pid = reader.execute(sa.text("SELECT pg_backend_pid() FROM days")).scalar_one()
        with pytest.raises(BackupError, match=f"nothing was changed.*PostgreSQL: {pid} "):
            restore(on_postgres, postgres_file, replace=True)
    engine.dispose()
    assert marks(on_postgres) == {"2026-01-02"}
    assert left_over(on_postgres) == []


@pytest.mark.slow
@pytest.mark.parametrize("at", ["before", "after"])
def test_a_restore_of_a_postgresql_that_was_killed_is_completed(
    on_postgres: Settings, postgres_file: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    load = dump.load

    class Killed(BaseException):
        pass

    def killed(url: str, dumped: Path) -> None:
        if at == "after":
            load(url, dumped)
        raise Killed

    monkeypatch.setattr(dump, "load", killed)
    with pytest.raises(Killed):
        restore(on_postgres, postgres_file, replace=True)
    monkeypatch.setattr(dump, "load", load)
    settle(on_postgres)
    assert marks(on_postgres) == {"2026-01-01"}
    assert left_over(on_postgres) == []
