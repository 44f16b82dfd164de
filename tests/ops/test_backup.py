"""A backup of a used installation brings it back; a picture that is forgotten leaves nothing."""

from __future__ import annotations

import hashlib
import io
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from helpers import postgres, stores
from helpers.bundles import write_bundle
from helpers.installation import (
    TAGS,
    bundle_directory,
    forget,
    install,
    make_live,
    predictions,
    put_pictures,
)

from shoetagger.config.settings import Settings
from shoetagger.images.decode import Limits
from shoetagger.ops import backup_file
from shoetagger.ops.backup import backup
from shoetagger.ops.backup_file import BackupError, Manifest
from shoetagger.ops.restore import restore
from shoetagger.orchestration.nightly import night
from shoetagger.publishing.thumbnails import thumbnail_name
from shoetagger.store import postgres as tools
from shoetagger.store.rows import Edit, StoreError
from shoetagger.store.store import Store
from shoetagger.tracking.registry import CHAMPION, Registry


def used(settings: Settings) -> str:
    """Let an installation register, promote and tag; returns the digest of the live colour."""
    made = settings.home / "made"
    bundle = write_bundle(made, "color", TAGS["color"].tags, head_seed=9)
    version = Registry(settings.tracking_uri, settings.artifacts).register(
        made, limits=Limits(10**7, 10**7), tags={"git_commit": "abc"}, metrics={"macro_f1": 0.5}
    )
    Registry(settings.tracking_uri, settings.artifacts).set_alias("color", CHAMPION, version.number)
    with Store(settings.store_url) as store:
        store.ledger.add_version(
            digest=bundle.digest, group="color", tags=bundle.tags, registry_name=version.name,
            version=version.number, now=datetime.now(UTC),
        )  # fmt: skip
        stores.make_live(store, "color", bundle.digest, now=datetime.now(UTC))
    put_pictures(settings, 4)
    night(settings, "night")
    return bundle.digest


@pytest.fixture
def settings(tmp_path: Path, empty_mlflow: Path) -> Settings:
    """An installation with a registry of its own."""
    found = install(tmp_path)
    found = replace(found, tracking_uri=found.mlflow_database)
    (found.home / "mlflow").mkdir()
    shutil.copy(empty_mlflow, found.home / "mlflow" / "mlflow.db")
    return found


@pytest.mark.slow
def test_a_used_installation_comes_back_from_one_file(settings: Settings, tmp_path: Path) -> None:
    digest = used(settings)
    corrected = min(predictions(settings))
    with Store(settings.store_url) as store:
        edits = [Edit(corrected, "color", ("red", "tan"))]
        store.corrections.apply(edits, by="ann", why="", origin="browse", now=datetime.now(UTC))
        journal = store.corrections.history(corrected)
    before = predictions(settings)
    assert before[corrected]["color"] == ("red", "tan")
    file = tmp_path / "shoes.backup"
    backup(settings, file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    # The machine burns down: all state is gone but the pictures, and the backup.
    shutil.rmtree(settings.home)
    restore(settings, file)
    assert predictions(settings) == before
    # The model itself is back: it tags a picture that arrives now, from the registry.
    assert (bundle_directory(settings, digest) / "bundle.json").is_file()
    made = settings.home / "style"
    style = write_bundle(made, "style", TAGS["style"].tags, head_seed=2)
    made.rename(settings.bundles / style.digest)  # was never registered, only cached
    put_pictures(settings, 1, seed=5)
    assert night(settings, "night").counts["tagged"] == 1
    assert len(predictions(settings)) == 5
    with Store(settings.store_url) as store:
        assert store.corrections.history(corrected) == journal
        assert store.ledger.live()["color"] == digest
        assert [run.kind for run in store.runs.latest(9)] == ["night", "night"]


@pytest.mark.slow
def test_a_restore_replaces_a_used_installation_only_when_told(
    settings: Settings, tmp_path: Path
) -> None:
    used(settings)
    before, file = predictions(settings), tmp_path / "shoes.backup"
    backup(settings, file)
    put_pictures(settings, 2, seed=7)
    night(settings, "night")
    with pytest.raises(BackupError, match="--replace"):
        restore(settings, file)
    assert len(predictions(settings)) == 6
    restore(settings, file, replace=True)
    assert predictions(settings) == before
    assert night(settings, "night").counts["tagged"] == 2  # those that the backup did not know


@pytest.mark.slow
def test_a_damaged_or_foreign_file_is_refused_and_changes_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    put_pictures(settings, 1)
    night(settings, "night")
    (settings.artifacts / "models").mkdir(parents=True)
    (settings.artifacts / "models" / "weights").write_bytes(b"0123456789" * 100)
    before, file = predictions(settings), tmp_path / "whole"
    backup(settings, file)
    whole = file.read_bytes()
    at = whole.index(b"0123456789")
    for name, data, says in (
        ("short", whole[: len(whole) // 2], "no whole backup"),
        ("empty", b"", "no whole backup"),
        ("other", b"something else entirely" * 999, "no whole backup"),
        ("flipped", whole[:at] + b"9" + whole[at + 1 :], "artifacts/models/weights is not what"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BackupError, match=says):
            restore(settings, tmp_path / name, replace=True)
    elsewhere = replace(settings, home=tmp_path / "elsewhere")
    elsewhere = replace(elsewhere, tracking_uri=elsewhere.mlflow_database)
    with pytest.raises(BackupError, match=f"set SHOETAGGER_HOME to {settings.home}"):
        restore(elsewhere, file, replace=True)
    assert predictions(settings) == before


@pytest.mark.parametrize(
    "name", ["../../escaped", "artifacts/../../escaped", "artifacts/{outside}", "/{outside}"]
)
def test_a_backup_cannot_write_outside_its_folder(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    name = name.format(outside=tmp_path / "outside" / "escaped")  # artifacts//tmp/...
    file = tmp_path / "evil"
    with tarfile.open(file, "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = len("evil")
        tar.addfile(info, io.BytesIO(b"evil"))
        manifest = Manifest(
            store="sqlite",
            artifacts=str(settings.artifacts),
            sha256={name: hashlib.sha256(b"evil").hexdigest()},
        )
        (tmp_path / "m").write_text(manifest.model_dump_json())
        tar.add(tmp_path / "m", backup_file._MANIFEST)
    with pytest.raises(BackupError, match="not in it"):
        restore(settings, file, replace=True)
    assert list(tmp_path.rglob("escaped")) == []


def test_a_backup_beside_a_writer_holds_what_was_committed(
    settings: Settings, tmp_path: Path
) -> None:
    file = settings.store_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(file, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO days VALUES ('2026-01-01', 1, 0)")
        backup(settings, tmp_path / "file")
        writer.execute("COMMIT")
    restore(settings, tmp_path / "file", replace=True)
    with Store(settings.store_url) as store:
        assert store.days.changed() == []
        assert set(store.ledger.live()) == {"color", "style"}


def test_the_store_alone_is_backed_up_where_mlflow_is_a_server(
    tmp_path: Path, settings: Settings
) -> None:
    served = replace(settings, tracking_uri="http://127.0.0.1:9")
    manifest = backup(served, tmp_path / "file")
    assert (set(manifest.sha256), manifest.artifacts) == ({"store"}, None)


@pytest.fixture
def on_postgres(postgres_server: tuple[str, str], tmp_path: Path) -> Iterator[Settings]:
    server, template = postgres_server
    with postgres.database(server, template) as url:
        yield install(tmp_path, url)


@pytest.mark.slow
def test_a_store_on_postgresql_comes_back_too(on_postgres: Settings, tmp_path: Path) -> None:
    put_pictures(on_postgres, 3)
    night(on_postgres, "night")
    before, file = predictions(on_postgres), tmp_path / "file"
    assert backup(on_postgres, file).store == "postgresql"
    put_pictures(on_postgres, 2, seed=3)
    night(on_postgres, "night")
    with pytest.raises(BackupError, match="--replace"):
        restore(on_postgres, file)
    restore(on_postgres, file, replace=True)
    assert predictions(on_postgres) == before
    assert night(on_postgres, "night").counts["tagged"] == 2


def test_without_the_tools_of_postgresql_a_backup_is_refused(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "_find", lambda _: None)
    away = replace(settings, store_url="postgresql+psycopg://user@127.0.0.1:9/shoes")
    with pytest.raises(StoreError, match=r"no pg_dump on this machine: install"):
        backup(away, tmp_path / "file")
    assert not (tmp_path / "file").exists()


# --- forgetting


@pytest.mark.slow
def test_a_forgotten_picture_leaves_nothing_in_what_is_published(settings: Settings) -> None:
    paths = put_pictures(settings, 3)
    night(settings, "night")
    image_id = hashlib.sha256(paths[0].read_bytes()).hexdigest()
    thumbnail = settings.published / thumbnail_name(image_id)
    assert thumbnail.is_file()
    forget(settings, image_id)
    make_live(settings, "color", head_seed=7)
    summary = night(settings, "night")
    assert (summary.counts["tagged"], summary.counts["retagged"]) == (0, 2)
    assert image_id not in predictions(settings)
    assert not thumbnail.exists()
    written = [path for path in settings.published.rglob("*") if path.is_file()]
    assert [path for path in written if image_id.encode() in path.read_bytes()] == []
    assert paths[0].name.encode() in (settings.published / "rejected.csv").read_bytes()


def test_forgetting_an_unknown_picture_is_an_error(settings: Settings) -> None:
    with pytest.raises(StoreError, match="no picture"):
        forget(settings, "../../etc/passwd")
