"""The file that `backup` writes and `restore` reads: a tar archive that ends with its manifest."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import ShoetaggerError

FORMAT = 1
STORE, MLFLOW, ARTIFACTS = "store", "mlflow", "artifacts"
_MANIFEST = "manifest.json"


class BackupError(ShoetaggerError):
    """A backup cannot be made, or a file is none that can be restored here."""


class Manifest(BaseModel):
    """What a backup holds, and where it was made."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    made_at: str = ""
    store: str  # kind of the store's database
    artifacts: str | None  # folder of MLflow's artifacts; None if MLflow was left out
    sha256: dict[str, str] = {}  # of each member


class BackupWriter:
    """Adds members to an archive that becomes a backup; each is read once."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._sha256: dict[str, str] = {}

    def add(self, name: str, path: Path) -> None:
        """Add a file under the name of a member."""
        with path.open("rb") as source:
            info = tarfile.TarInfo(name)
            info.size = os.fstat(source.fileno()).st_size
            hashing = _Hashing(source)
            self._tar.addfile(info, hashing)
        self._sha256[name] = hashing.digest.hexdigest()

    def finish(self, manifest: Manifest) -> Manifest:
        """Add the manifest, with the digests of what was added, and return it.

        It comes last: a file that was cut short has none.
        """
        complete = manifest.model_copy(update={"sha256": self._sha256})
        data = complete.model_dump_json(indent=1).encode()
        info = tarfile.TarInfo(_MANIFEST)
        info.size = len(data)
        self._tar.addfile(info, BytesIO(data))
        return complete


class BackupReader:
    """A backup that was opened for reading."""

    def __init__(self, tar: tarfile.TarFile, file: Path) -> None:
        """Read the manifest; raises BackupError for a file that is no whole backup."""
        self._tar, self._file = tar, file
        self.manifest = self._read_manifest()
        self._members = {member.name: member for member in tar.getmembers() if member.isfile()}

    def _read_manifest(self) -> Manifest:
        try:
            member = self._tar.extractfile(_MANIFEST)
        except KeyError:
            member = None
        if member is None:
            raise BackupError(
                f"{self._file} is no whole backup: it was cut short, or is something else"
            )
        try:
            manifest = Manifest.model_validate_json(member.read())
        except ValidationError:
            manifest = None
        if manifest is None or manifest.format != FORMAT:
            raise BackupError(
                f"{self._file} is a backup of another version: restore it with the code that made "
                "it"
            )
        return manifest

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each member; raises BackupError where one is missing."""
        for name in self.manifest.sha256:
            if name not in self._members or not _is_plain(name):
                raise BackupError(f"{self._file} is no whole backup: {name} is not in it")
        return {name: self._members[name].size for name in self.manifest.sha256}

    def unpack(self, target_of: Callable[[str], Path]) -> None:
        """Write each member to the new file that `target_of` gives for its name.

        Raises BackupError for a member that is not what was backed up.
        """
        for name in self.sizes():
            source = self._tar.extractfile(self._members[name])
            assert source is not None  # it is a file
            path = target_of(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            hashing = _Hashing(source)
            with path.open("xb") as out:
                while data := hashing.read(1 << 20):
                    out.write(data)
            if hashing.digest.hexdigest() != self.manifest.sha256[name]:
                raise BackupError(f"{self._file} is damaged: {name} is not what was backed up")


@contextmanager
def reading(file: Path) -> Iterator[BackupReader]:
    """Open a backup; raises BackupError for a file that is none."""
    try:
        with tarfile.open(file, mode="r:") as tar:
            yield BackupReader(tar, file)
    except tarfile.TarError as error:
        raise BackupError(f"{file} is no whole backup: {error}") from error


class _Hashing:
    """A file to read from; `digest` is of what was read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        return data


def _is_plain(name: str) -> bool:
    """Return whether a member's name stays within the folder that it is unpacked to."""
    path = PurePosixPath(name)
    # Where a part is empty, as in artifacts//etc, what follows would be taken for an absolute path.
    return str(path) == name and not path.is_absolute() and ".." not in path.parts
