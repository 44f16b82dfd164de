"""The store and MLflow's data to one file, while they are in use."""

from __future__ import annotations

import os
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from ..atomic import atomic_write
from ..config.settings import Settings
from ..store import dump
from . import restore
from .backup_file import ARTIFACTS, MLFLOW, STORE, BackupError, BackupWriter, Manifest


def backup(settings: Settings, out: Path) -> Manifest:
    """Write the store and MLflow's runs, versions and artifacts to `out`, readable by its owner.

    Each database is copied as of one moment, the store first: so what it calls live is in the
    registry, which is copied later. An MLflow server of its own is left out. Returns the manifest.
    Raises BackupError or StoreError; `out` is then what it was.
    """
    restore.settle(settings)
    with_mlflow = settings.tracking_uri == settings.mlflow_database
    manifest = Manifest(
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        store=dump.backend(settings.store_url),
        artifacts=str(settings.artifacts) if with_mlflow else None,
    )
    try:
        with (
            tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".backup.") as folder,
            atomic_write(out) as file,
        ):
            os.fchmod(file.fileno(), 0o600)
            with tarfile.open(fileobj=file, mode="w") as tar:
                writer = BackupWriter(tar)
                for name, url in _databases(settings, with_mlflow):
                    dump.dump(url, Path(folder) / name)
                    writer.add(name, Path(folder) / name)
                if with_mlflow:
                    _add_artifacts(writer, settings.artifacts)
                return writer.finish(manifest)
    except OSError as error:
        raise BackupError(f"cannot write {out}: {error.strerror or error}") from error


def _databases(settings: Settings, with_mlflow: bool) -> list[tuple[str, str]]:
    store = (STORE, settings.store_url)
    return [store, (MLFLOW, settings.mlflow_database)] if with_mlflow else [store]


def _add_artifacts(writer: BackupWriter, artifacts: Path) -> None:
    for path in sorted(artifacts.rglob("*")):
        if path.is_file() and not path.is_symlink():
            writer.add(f"{ARTIFACTS}/{path.relative_to(artifacts).as_posix()}", path)
