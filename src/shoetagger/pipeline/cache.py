"""DVC's cache: what no commit and no checkout names is removed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ..config.settings import Settings
from . import checkout_lock
from .dvc_files import data_revision
from .process import PipelineError, run_git

if TYPE_CHECKING:
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo

# What a commit has to change for DVC to read other hashes from it than from its parent.
_READ_BY_DVC = ("*.dvc", "*dvc.yaml", "*dvc.lock", "*params.yaml", "*.dvc/config")


def collect(settings: Settings, *, dry_run: bool = False) -> dict[Path, int]:
    """Remove from the DVC cache of the user's repo what nothing names; return files and sizes.

    Kept is what any commit or DVC experiment of the repo names, and what the workspaces of the repo
    and of the checkouts name: all data, and the outputs of the commits that were trained from last.
    Other outputs can be computed again; so are those of commits whose dvc.yaml DVC does not read.
    Raises PipelineError where the cache lies outside of the repo, as others may use it too, where a
    training run is at work, where DVC fails, where it would remove data of a commit, or where the
    workspace's data.dvc has a fault.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo
    from dvc_data.hashfile.gc import gc

    settings.checkouts.mkdir(parents=True, exist_ok=True)
    try:
        with ExitStack() as stack:
            lock = checkout_lock.cache(settings.checkouts)
            stack.enter_context(checkout_lock.exclusive(lock, wait=False))
            repo = stack.enter_context(Repo(str(settings.repo)))
            place = Path(repo.cache.local.path)
            if not place.is_relative_to(settings.repo.resolve() / ".dvc"):
                raise PipelineError(
                    f"DVC's cache {place} is not the repo's own, so others may use it: "
                    "`dvc gc` it yourself"
                )
            folders = [path.parent for path in settings.checkouts.glob("[!.]*/.dvc")]
            checkouts = [stack.enter_context(Repo(str(folder))) for folder in folders]
            for each in (repo, *checkouts):
                stack.enter_context(each.lock)
            used = _used(repo, checkouts)
            cache = repo.cache.local
            hashes = {each.value for each in used if each.name == cache.hash_name}
            unused = {Path(cache.oid_to_path(each)) for each in cache.all() if each not in hashes}
            if unused & _data(settings.repo, place):
                raise PipelineError(
                    "DVC would remove data that a commit names, which it does not read: "
                    "`dvc gc` it yourself"
                )
            sizes = {path: _size(path) for path in unused}
            if sizes and not dry_run:
                gc(cache, used)
            return sizes
    except (BlockingIOError, LockError):
        raise PipelineError("DVC is at work here: clean again when it has ended") from None
    except DvcException as error:
        raise PipelineError(f"DVC cannot say what is unused: {error}") from error


def _used(repo: Repo, checkouts: Iterable[Repo]) -> set[HashInfo]:
    """Return the hashes that `dvc gc --all-commits` would keep of a repo, and of some workspaces.

    DVC takes a tenth of a second per commit. So it reads those only which change what it reads.
    """
    log = ("log", "--all", "--full-history", "--format=%H", "--", *_READ_BY_DVC)
    commits = run_git(Path(repo.scm.root_dir), *log).split()
    with _quiet_dvc():
        # A single faulty commit would keep everything for ever.
        found = [repo.used_objs(revs=commits, all_experiments=True, force=True, skip_failed=True)]
        found += [each.used_objs(force=True, skip_failed=True) for each in checkouts]
    return {each for by_remote in found for hashes in by_remote.values() for each in hashes}


@contextmanager
def _quiet_dvc() -> Iterator[None]:
    """Silence DVC: of every output that an old commit never made, it says to run `dvc repro`."""
    logger = logging.getLogger("dvc")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _data(repo: Path, place: Path) -> set[Path]:
    """Return the files in a cache with the data of the workspace and of every commit.

    A data.dvc of history with a fault, such as marks of a merge, names none. Raises PipelineError
    for such a one in the workspace.
    """
    commits = run_git(repo, "log", "--all", "--format=%H", "--diff-filter=AM", "--", "data.dvc")
    texts = {run_git(repo, "show", f"{commit}:data.dvc") for commit in commits.split()}
    hashes = {each for text in texts for each in _hashes(text)}
    if (repo / "data.dvc").is_file():
        hashes.add(data_revision(repo))
    for folder in [place / each[:2] / each[2:] for each in hashes if each.endswith(".dir")]:
        if folder.is_file():
            hashes |= {entry["md5"] for entry in json.loads(folder.read_text(encoding="utf-8"))}
    return {place / each[:2] / each[2:] for each in hashes}


def _hashes(text: str) -> set[str]:
    """Return the hashes that a data.dvc names; none where it has a fault."""
    try:
        return {out["md5"] for out in yaml.safe_load(text)["outs"]}
    except (yaml.YAMLError, KeyError, TypeError):
        return set()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
