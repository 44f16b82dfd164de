"""DVC's cache: what no commit and no checkout names is removed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from ..config.settings import Settings
from . import checkout_lock
from .process import PipelineError, run_git


def collect(settings: Settings, *, dry_run: bool = False) -> dict[Path, int]:
    """Remove from the DVC cache of the user's repo what nothing names; return files and sizes.

    Kept is what any commit or DVC experiment names, in the repo or in a checkout that is there, and
    what their workspaces name: all data, and the outputs of the commits that were trained from
    last. Other outputs can be computed again; so are those of commits whose dvc.yaml DVC does not
    read. Raises PipelineError where the cache lies outside of the repo, as others may use it too,
    where a training run is at work, where DVC fails, or where it would remove data of a commit.
    """
    from dvc.exceptions import DvcException
    from dvc.lock import LockError
    from dvc.repo import Repo

    settings.checkouts.mkdir(parents=True, exist_ok=True)
    try:
        with (
            checkout_lock.exclusive(checkout_lock.cache(settings.checkouts), wait=False),
            Repo(str(settings.repo)) as repo,
        ):
            place = Path(repo.cache.local.path)
            if not place.is_relative_to(settings.repo.resolve() / ".dvc"):
                raise PipelineError(
                    f"DVC's cache {place} is not the repo's own, so others may use it: "
                    "`dvc gc` it yourself"
                )
            checkouts = [str(path.parent) for path in settings.checkouts.glob("[!.]*/.dvc")]
            kept = {"all_commits": True, "all_experiments": True, "force": True}
            kept["skip_failed"] = True  # a single faulty commit would keep everything for ever
            with _listed() as unused:
                repo.gc(**kept, repos=checkouts, dry=True)
            sizes = {path: _size(path) for path in unused}
            if sizes.keys() & _data(settings.repo, place):
                raise PipelineError(
                    "DVC would remove data that a commit names, which it does not read: "
                    "`dvc gc` it yourself"
                )
            if sizes and not dry_run:
                repo.gc(**kept, repos=checkouts)
            return sizes
    except (BlockingIOError, LockError):
        raise PipelineError("DVC is at work here: clean again when it has ended") from None
    except DvcException as error:
        raise PipelineError(f"DVC cannot say what is unused: {error}") from error


def _data(repo: Path, place: Path) -> set[Path]:
    """Return the files in a cache with the data of the workspace and of every commit."""
    commits = run_git(repo, "log", "--all", "--format=%H", "--diff-filter=AM", "--", "data.dvc")
    texts = {run_git(repo, "show", f"{commit}:data.dvc") for commit in commits.split()}
    if (repo / "data.dvc").is_file():
        texts.add((repo / "data.dvc").read_text(encoding="utf-8"))
    hashes = {out["md5"] for text in texts for out in yaml.safe_load(text)["outs"]}
    for folder in [place / each[:2] / each[2:] for each in hashes if each.endswith(".dir")]:
        if folder.is_file():
            hashes |= {entry["md5"] for entry in json.loads(folder.read_text(encoding="utf-8"))}
    return {place / each[:2] / each[2:] for each in hashes}


class _Paths(logging.Handler):
    """Collects the paths that DVC says it would remove."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[Path] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg == "Removing %s" and isinstance(record.args, tuple):
            self.paths.append(Path(str(record.args[0])))


@contextmanager
def _listed() -> Iterator[list[Path]]:
    """Yield the paths that a dry run lists meanwhile; DVC only logs them."""
    logger = logging.getLogger("dvc_data.hashfile.gc")
    handler, level, propagate = _Paths(), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield handler.paths
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
