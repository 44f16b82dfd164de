"""A backup in the place of what is there: as a whole or not at all."""

from __future__ import annotations

import logging
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..config.places import PlaceError
from ..config.settings import PUBLISHED_FORMAT, Settings, redacted, sqlite_url
from ..storage.places import published_at
from ..storage.storage import StorageError
from ..store import dump
from ..store.rows import StoreError, StoreUnavailable
from ..store.store import Store
from .backup_file import ARTIFACTS, MLFLOW, STORE, BackupError, BackupReader, Manifest, reading
from .processes import processes_with_open
from .replacement import Replacement, new_of

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 30.0
# Of the disk, a database, and the place of what is published.
_FAULTS = (OSError, StoreError, StorageError, PlaceError)


def restore(settings: Settings, file: Path, *, replace: bool = False) -> Manifest:
    """Put what a backup holds in the place of what is there; returns its manifest.

    All of it is unpacked beside, checked and migrated first, then moved into place together. After
    an error everything is as it was; if the process is killed, the next command completes the
    restore or undoes it (`settle`). Raises BackupError for a damaged file, one made for another
    place, or a database in use, and where something is there already and `replace` is not given.
    """
    settings.home.mkdir(parents=True, exist_ok=True)
    with _only_restore(settings):
        _end_interrupted(settings)
        try:
            with reading(file) as backup:
                _check_place(settings, backup.manifest, file)
                if not replace:
                    _refuse_used(settings, backup.manifest)
                _restore(settings, backup)
        except _FAULTS as error:
            reason = error.strerror if isinstance(error, OSError) else None
            raise BackupError(
                f"cannot restore {file}, and nothing was changed: {reason or error}"
            ) from error
    with Store(settings.store_url) as store:
        store.migrate()  # a PostgreSQL is now of the version that was backed up
    return backup.manifest


def settle(settings: Settings) -> None:
    """Complete or undo a restore that was killed; where there was none, do nothing.

    Raises BackupError while a restore is running, and for one that cannot be completed.
    """
    if Replacement.interrupted(_folder(settings)) is None:
        return
    with _only_restore(settings):
        interrupted = Replacement.interrupted(_folder(settings))
        if interrupted is None:  # settled by another process
            return
        if not interrupted.decided:
            interrupted.abandon()
            logger.warning("a restore was interrupted; it has changed nothing: run it again")
            return
        try:
            _complete(settings, interrupted)
        except _FAULTS as error:
            raise BackupError(
                f"a restore was interrupted, and cannot be completed: {error}. Mend that, or run "
                "`shoetagger restore FILE --replace` again"
            ) from error
        logger.warning("a restore that was interrupted has been completed")


def _complete(settings: Settings, interrupted: Replacement) -> None:
    _require_unused(interrupted)
    _put_in_place(settings, interrupted)
    interrupted.finish()


def _end_interrupted(settings: Settings) -> None:
    """Complete an earlier restore that was killed, or else undo it: another one follows."""
    interrupted = Replacement.interrupted(_folder(settings))
    if interrupted is None:
        return
    if interrupted.decided:
        try:
            _complete(settings, interrupted)
            return
        except _FAULTS as error:
            logger.warning("an earlier restore was interrupted, and is undone: %s", error)
            interrupted.move_back()
    interrupted.abandon()


def _restore(settings: Settings, backup: BackupReader) -> None:
    places = _places(settings, backup.manifest)
    _check_space(places, backup.sizes())
    on_disk = [place for name, place in places.items() if not _is_dump(settings, name)]
    replacement = Replacement(_folder(settings), on_disk, redacted(settings.store_url))
    _require_unused(replacement)
    try:
        replacement.prepare()
        _unpack(settings, backup, places)
        _require_unused(replacement)
        replacement.decide()
    except BaseException:
        replacement.abandon()
        raise
    try:
        _put_in_place(settings, replacement)
    except _FAULTS:
        replacement.move_back()
        replacement.abandon()
        raise
    replacement.finish()


def _folder(settings: Settings) -> Path:
    """Return the folder of a restore that is at work."""
    return settings.home / ".restore"


def _is_dump(settings: Settings, name: str) -> bool:
    """Return whether a member is a dump to load, not a file to move into place."""
    return name == STORE and dump.backend(settings.store_url) == "postgresql"


def _places(settings: Settings, manifest: Manifest) -> dict[str, Path]:
    """Return where each part of a backup belongs."""
    if _is_dump(settings, STORE):
        store = _folder(settings) / STORE
    else:
        store = dump.sqlite_file(settings.store_url)
    if manifest.artifacts is None:
        return {STORE: store}
    # The artifacts come first: moving a folder is the most likely to be refused.
    return {
        ARTIFACTS: settings.artifacts,
        MLFLOW: dump.sqlite_file(settings.mlflow_database),
        STORE: store,
    }


def _unpack(settings: Settings, backup: BackupReader, places: Mapping[str, Path]) -> None:
    """Unpack a backup beside its places; check its databases, and migrate the store."""
    targets = {
        name: place if _is_dump(settings, name) else new_of(place) for name, place in places.items()
    }
    if ARTIFACTS in targets:
        targets[ARTIFACTS].mkdir()

    def target_of(member: str) -> Path:
        part, _, path = member.partition("/")
        if part not in targets or (part == ARTIFACTS) != bool(path):
            raise BackupError(f"{member} is no part of a backup: take another one")
        return targets[part] / path if path else targets[part]

    backup.unpack(target_of)
    for name, target in targets.items():
        if name != ARTIFACTS and not _is_dump(settings, name):
            dump.check(target, f"{name} in the backup")
    if not _is_dump(settings, STORE):
        with Store(sqlite_url(targets[STORE])) as store:
            store.migrate()  # the backup may be older than this code


def _put_in_place(settings: Settings, replacement: Replacement) -> None:
    """Move the new files, and load the dump of a PostgreSQL; both may be repeated.

    What is published is of the store before: the next publication writes all of it again.
    """
    published_at(settings.published).remove([PUBLISHED_FORMAT])
    replacement.move()
    dumped = replacement.folder / STORE
    if dumped.exists():
        if redacted(settings.store_url) != replacement.note:
            raise StoreError(
                f"it is for the store {replacement.note}, and SHOETAGGER_STORE_URL names "
                f"{redacted(settings.store_url)}"
            )
        dump.load(settings.store_url, dumped)


def _check_place(settings: Settings, manifest: Manifest, file: Path) -> None:
    """Raise BackupError for a backup of another kind of store, or of models elsewhere."""
    here = dump.backend(settings.store_url)
    if manifest.store != here:
        raise BackupError(
            f"{file} holds a store on {manifest.store}, and SHOETAGGER_STORE_URL names one on "
            f"{here}: name a database of the same kind"
        )
    if manifest.artifacts is None:
        return
    if settings.tracking_uri != settings.mlflow_database:
        raise BackupError(
            f"{file} holds MLflow's data, and MLFLOW_TRACKING_URI names a server: unset it"
        )
    if manifest.artifacts != str(settings.artifacts):
        raise BackupError(
            f"{file} was made where models lie in {manifest.artifacts}, and MLflow knows them by "
            f"that path: set SHOETAGGER_HOME to {Path(manifest.artifacts).parents[1]} and restore "
            "again"
        )


def _refuse_used(settings: Settings, manifest: Manifest) -> None:
    """Raise BackupError where there are models or tags."""
    how = "`--replace` puts the backup in their place"
    if manifest.artifacts is not None and any(settings.artifacts.glob("*")):
        raise BackupError(f"{settings.home} holds models already: {how}")
    try:
        with Store(settings.store_url) as store:
            if not store.is_empty():
                raise BackupError(f"the store holds tags already: {how}")
    except StoreError as error:
        raise BackupError(f"{error}: {how}") from error


def _check_space(places: Mapping[str, Path], sizes: Mapping[str, int]) -> None:
    """Raise BackupError where a disk has too little room for what will be unpacked on it."""
    needed: defaultdict[Path, int] = defaultdict(int)
    for member, size in sizes.items():
        if place := places.get(member.partition("/")[0]):
            needed[_mount_of(place)] += size
    for disk, size in needed.items():
        free = shutil.disk_usage(disk).free
        if size > free:
            raise BackupError(
                f"the disk of {disk} has {free / 1e6:,.0f} MB free, and restoring takes "
                f"{size / 1e6:,.0f} MB beside what is there: make room, and restore again"
            )


def _mount_of(path: Path) -> Path:
    """Return the root of the file system on which a path is, or will be."""
    while not path.exists() or not path.is_mount():
        path = path.parent
    return path


def _require_unused(replacement: Replacement) -> None:
    """Wait until no process has one of the databases open; raise BackupError that names it."""
    files = [place for place in replacement.places if place.is_file()]
    give_up = time.monotonic() + _BUSY_SECONDS
    while users := processes_with_open(files):
        if time.monotonic() > give_up:
            raise BackupError(
                f"{' and '.join(users)} has the databases in use: end that, then restore"
            )
        time.sleep(0.2)
    for file in files:
        try:
            dump.require_unused(file, max(give_up - time.monotonic(), 1.0))
        except StoreUnavailable as error:
            raise BackupError(
                f"{error}, by a process that cannot be seen from here: end it (`make down` stops "
                "the servers), then restore"
            ) from None


@contextmanager
def _only_restore(settings: Settings) -> Iterator[None]:
    """Hold the lock of the process that restores."""
    try:
        lock = FileLock(settings.home / "restore.lock").acquire(blocking=False)
    except Timeout:
        raise BackupError("a restore is running: wait until it has ended") from None
    with lock:
        yield
