"""Results of stages, handed from worker to worker through DVC's remote.

DVC's run-cache has an entry per stage and inputs, which names the outputs; a stage with an entry is
restored instead of run. `dvc push --run-cache` and `dvc repro --pull` copy all entries there ever
were, at each stage, and not the outputs with `cache: false`, without which a stage runs again. This
copies the one entry that a stage needs, and all outputs that it names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..config.settings import redacted
from .dvc_files import default_remote

logger = logging.getLogger(__name__)


def shared_remote(repo: Path) -> str | None:
    """Return the remote through which the workers share results; None where there is none.

    One that lies in the repo, as that of the sample does, is no place that workers share.
    """
    remote = default_remote(repo)
    return None if remote is None or Path(remote).is_relative_to(repo) else remote


def push(folder: Path, stage: str) -> None:
    """Copy what a stage of a checkout has made to the remote; what is there already stays.

    Where the remote cannot be written there is a warning: the results are in this worker's cache.
    """

    def copy(entry: _Entry) -> None:
        if entry.newest_here() is None:
            # DVC saves none for a stage with outputs that git keeps, unless these are metrics. To
            # save one, it looks for dvc.yaml in the working directory.
            with chdir(folder):
                entry.repo.stage_cache.save(entry.stage)
        name = entry.newest_here()
        assert name is not None
        entry.transfer(name, entry.repo.cloud.push)
        if entry.fs.exists(entry.there(name)):
            return
        entry.fs.makedirs(entry.fs.parent(entry.there(name)), exist_ok=True)
        entry.fs.put_file(str(entry.here / name), entry.there(name))
        logger.info("%s: its results are in DVC's remote for other workers", stage)

    _unless_remote_fails(
        folder, stage, copy, "another worker would run it again; `dvc push` shows what is wrong"
    )


def fetch(folder: Path, stage: str, lock: Path) -> None:
    """Bring what another worker has computed for a stage with the same inputs into the DVC cache.

    `dvc repro` then restores it. One process of a checkout does it at a time, by a file `lock`.
    Where the remote cannot be read there is a warning, and the stage will be run.
    """

    def copy(entry: _Entry) -> None:
        name = entry.newest_here()
        if name is None:
            # Two workers may have run it at once: all others take the same one of the two.
            places = entry.fs.find(entry.there()) if entry.fs.exists(entry.there()) else []
            if not places:
                return
            place = min(places)
            name = entry.fs.name(place)
            entry.here.mkdir(parents=True, exist_ok=True)
            beside = entry.here.with_name(f"{entry.key}.{name}")
            entry.fs.get_file(place, str(beside))
            beside.rename(entry.here / name)
        entry.transfer(name, entry.repo.cloud.pull)

    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        _unless_remote_fails(
            folder, stage, copy, "it is run here; `dvc fetch` shows what is wrong with the remote"
        )


@dataclass(frozen=True)
class _Entry:
    """The place of a stage's entry in the run-cache, here and in the remote.

    An entry is a folder named by a hash of command and inputs, with a file per run that differed.
    """

    repo: Any
    stage: Any
    key: str
    fs: Any  # DVC's, of the remote
    root: str  # of the remote

    @property
    def here(self) -> Path:
        return Path(self.repo.stage_cache.cache_dir, self.key[:2], self.key)

    def there(self, *name: str) -> str:
        return str(self.fs.join(self.root, "runs", self.key[:2], self.key, *name))

    def newest_here(self) -> str | None:
        """Return the name of the file that DVC would restore from; None where there is none."""
        files = list(self.here.iterdir()) if self.here.is_dir() else []
        return max(files, key=lambda path: path.stat().st_mtime).name if files else None

    def transfer(self, name: str, copy: Callable[..., Any]) -> None:
        """Copy the outputs that a file of this entry names; raises OSError where some stay away."""
        from dvc.stage.loader import StageLoader
        from dvc.utils.serialize import load_yaml

        StageLoader.fill_from_lock(self.stage, load_yaml(str(self.here / name)))
        for out in self.stage.outs:
            out.use_cache = True  # also what git keeps: the cache has it as well
        for odb, objects in self.stage.get_used_objs().items():
            if failed := copy(objects, odb=odb).failed:
                raise OSError(f"{len(failed)} of {len(objects)} files could not be copied")


def _unless_remote_fails(
    folder: Path, stage: str, copy: Callable[[_Entry], None], otherwise: str
) -> None:
    try:
        with _entry(folder, stage) as entry:
            if entry is not None:
                copy(entry)
    except Exception as error:  # each kind of remote is a package with errors of its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        logger.warning("%s: DVC's remote fails (%s): %s", stage, redacted(lines[0]), otherwise)


@contextmanager
def _entry(folder: Path, stage: str) -> Iterator[_Entry | None]:
    """Yield the entry of a stage as the checkout is now; None where it has none in a remote."""
    from dvc.dvcfile import load_file
    from dvc.fs import HTTPFileSystem
    from dvc.repo import Repo
    from dvc.stage.cache import _can_hash, _get_stage_hash

    with Repo(str(folder)) as repo:
        found = load_file(repo, str(folder / "dvc.yaml")).stages.get(stage)
        if found is None or not all(dep.exists for dep in found.deps):
            yield None  # which `dvc repro` reports better
            return
        found.save_deps()
        odb = repo.cloud.get_remote_odb(None, "push", hash_name="md5-dos2unix")
        # There is no listing by HTTP.
        usable = _can_hash(found) and not isinstance(odb.fs, HTTPFileSystem)
        yield _Entry(repo, found, _get_stage_hash(found), odb.fs, odb.path) if usable else None
