"""The store and the registry to one file and back; consistent while they are in use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import IO, Any, BinaryIO

from ..atomic import atomic_write
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..store import dump
from ..store.store import Store

_FORMAT = 1
_STORE, _MLFLOW, _ARTIFACTS, _MANIFEST = "store", "mlflow", "artifacts", "manifest.json"


class BackupError(ShoetaggerError):
    """A backup cannot be made, or a file is none that can be restored here."""


def backup(settings: Settings, out: Path) -> dict[str, Any]:
    """Write the store and MLflow's runs, versions and artifacts to `out`, readable by its owner.

    Each database as of one moment, the store's first: so whatever it calls live is in the registry
    that follows. An MLflow that is a server of its own is left out. Returns the file's manifest.
    Raises BackupError or StoreError; `out` is then what it was.
    """
    with_mlflow = settings.tracking_uri == settings.mlflow_database
    manifest: dict[str, Any] = {
        "format": _FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "store": dump.backend(settings.store_url),
        "artifacts": str(settings.artifacts) if with_mlflow else None,
        "sha256": {},
    }
    try:
        with (
            tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=".backup.") as folder,
            atomic_write(out) as file,
        ):
            os.fchmod(file.fileno(), 0o600)
            beside = Path(folder)
            dump.dump(settings.store_url, beside / _STORE)
            if with_mlflow:
                dump.dump(settings.mlflow_database, beside / _MLFLOW)
            with tarfile.open(fileobj=file, mode="w") as tar:
                for name, path in _members(settings, beside, with_mlflow):
                    manifest["sha256"][name] = _add(tar, name, path)
                # The last: a file that was cut short has none.
                data = json.dumps(manifest, indent=1).encode()
                info = tarfile.TarInfo(_MANIFEST)
                info.size = len(data)
                tar.addfile(info, BytesIO(data))
    except OSError as error:
        raise BackupError(f"cannot write {out}: {error.strerror or error}") from error
    return manifest


def restore(settings: Settings, file: Path, *, replace: bool = False) -> dict[str, Any]:
    """Put what a backup holds in the place of what is there; returns its manifest.

    Everything is unpacked and checked first. Killed on the way, it can be run again. Raises
    BackupError for a damaged file, one made for another place, or where something is there already
    and `replace` is not given.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=settings.home, prefix=".restore.") as folder:
            beside = Path(folder)
            with tarfile.open(file, mode="r:") as tar:
                manifest = _manifest(tar, file)
                _check_place(settings, manifest, file)
                if not replace:
                    _refuse_used(settings, manifest["artifacts"] is not None)
                _unpack(tar, manifest, beside, file)
            # What others refer to comes first.
            if manifest["artifacts"] is not None:
                _swap(beside / _ARTIFACTS, settings.artifacts, beside / "before")
                dump.load(settings.mlflow_database, beside / _MLFLOW)
            dump.load(settings.store_url, beside / _STORE)
    except tarfile.TarError as error:
        raise BackupError(f"{file} is no whole backup: {error}") from error
    except OSError as error:
        raise BackupError(f"cannot restore {file}: {error.strerror or error}") from error
    with Store(settings.store_url) as store:
        store.migrate()  # the backup may be older than this code
    return manifest


def _members(settings: Settings, beside: Path, with_mlflow: bool) -> Iterator[tuple[str, Path]]:
    yield _STORE, beside / _STORE
    if with_mlflow:
        yield _MLFLOW, beside / _MLFLOW
        for path in sorted(settings.artifacts.rglob("*")):
            if path.is_file() and not path.is_symlink():
                yield f"{_ARTIFACTS}/{path.relative_to(settings.artifacts).as_posix()}", path


def _add(tar: tarfile.TarFile, name: str, path: Path) -> str:
    with path.open("rb") as source:
        info = tarfile.TarInfo(name)
        info.size = os.fstat(source.fileno()).st_size
        hashed = _Hashing(source)
        tar.addfile(info, hashed)
    return hashed.digest.hexdigest()


class _Hashing:
    """A file to read from; `digest` is of what was read."""

    def __init__(self, source: IO[bytes] | BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


def _manifest(tar: tarfile.TarFile, file: Path) -> dict[str, Any]:
    try:
        member = tar.extractfile(_MANIFEST)
    except KeyError:
        member = None
    if member is None:
        raise BackupError(f"{file} is no whole backup: it was cut short, or is something else")
    try:
        manifest = json.load(member)
        known = manifest["format"] == _FORMAT and {"store", "artifacts", "sha256"} <= set(manifest)
    except (ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise BackupError(
            f"{file} is a backup of another version: restore it with the code of then"
        )
    found: dict[str, Any] = manifest
    return found


def _check_place(settings: Settings, manifest: dict[str, Any], file: Path) -> None:
    here = dump.backend(settings.store_url)
    if manifest["store"] != here:
        raise BackupError(
            f"{file} holds a store on {manifest['store']}, and SHOETAGGER_STORE_URL names one on "
            f"{here}: name a database of the same kind"
        )
    artifacts = manifest["artifacts"]
    if artifacts is None:
        return
    if settings.tracking_uri != settings.mlflow_database:
        raise BackupError(
            f"{file} holds MLflow's data, and MLFLOW_TRACKING_URI names a server: unset it"
        )
    if artifacts != str(settings.artifacts):
        raise BackupError(
            f"{file} was made where models lie in {artifacts}, and MLflow knows them by that path: "
            f"set SHOETAGGER_HOME to {Path(artifacts).parents[1]} and restore again"
        )


def _refuse_used(settings: Settings, with_mlflow: bool) -> None:
    if with_mlflow and any(settings.artifacts.glob("*")):
        raise BackupError(
            f"{settings.home} holds models already: `--replace` puts the backup in their place"
        )
    with Store(settings.store_url) as store:
        if not store.is_empty():
            raise BackupError(
                "the store holds tags already: `--replace` puts the backup in their place"
            )


def _unpack(tar: tarfile.TarFile, manifest: dict[str, Any], beside: Path, file: Path) -> None:
    members = {member.name: member for member in tar.getmembers()}
    for name, digest in manifest["sha256"].items():
        member = members.get(name)
        source = tar.extractfile(member) if member is not None and member.isfile() else None
        path = beside / name
        if source is None or not path.resolve().is_relative_to(beside.resolve()):
            raise BackupError(f"{file} is no whole backup: {name} is not in it")
        path.parent.mkdir(parents=True, exist_ok=True)
        hashed = _Hashing(source)
        with path.open("xb") as out:
            while data := hashed.read(1 << 20):
                out.write(data)
        if hashed.digest.hexdigest() != digest:
            raise BackupError(f"{file} is damaged: {name} is not what was backed up")


def _swap(new: Path, place: Path, before: Path) -> None:
    new.mkdir(exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        shutil.move(place, before)
    new.rename(place)
