"""A commit, checked out on the machine of a worker.

The user's workspace is read, never written: a run names one commit, and each worker clones that
commit into `checkouts/`, with the DVC cache of the user's repo, so that a later `dvc repro` in the
workspace restores what the run computed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml

from ..config import params
from ..config.reading import read_yaml
from ..config.settings import Settings
from . import checkout_lock
from .commits import resolve
from .plan import Plan, override_params
from .process import PipelineError, TransientPipelineError, command_environment, run_dvc, run_git

logger = logging.getLogger(__name__)


def checkout(settings: Settings, plan: Plan) -> Path:
    """Return the folder that holds the plan's commit, data and overrides on this machine.

    It is made once, under a lock and beside its place, and used again by every later call; making
    it removes the checkouts over `keep.checkouts` of params.yaml. Raises TransientPipelineError
    where the data is neither in the cache nor in the remote.
    """
    folder = settings.checkouts / plan.name
    if not folder.is_dir():
        settings.checkouts.mkdir(parents=True, exist_ok=True)
        cache = checkout_lock.cache(settings.checkouts)
        with checkout_lock.shared(cache), checkout_lock.exclusive(folder):
            if not folder.is_dir():
                _make(settings.repo, plan, folder)
        prune(settings.checkouts, params.load(settings.params_file).keep.checkouts)
    with contextlib.suppress(FileNotFoundError):  # pruned by another worker at this moment
        os.utime(folder)  # in use: the last to be pruned
    return folder


def prune(checkouts: Path, keep: int) -> list[str]:
    """Remove all checkouts but the `keep` used last; return the names of those removed.

    A checkout that a stage is running in stays. A run whose checkout was removed makes it again.
    """
    removed = []
    for folder in beyond(checkouts, keep):
        with (
            contextlib.suppress(BlockingIOError),
            checkout_lock.exclusive(folder, wait=False),
        ):
            if folder.is_dir():  # no other worker has removed it meanwhile
                with tempfile.TemporaryDirectory(dir=checkouts, prefix=f".{folder.name}.") as away:
                    folder.rename(Path(away) / "tree")
                removed.append(folder.name)
            checkout_lock.lock_file(folder).unlink(missing_ok=True)
    return removed


def beyond(checkouts: Path, keep: int) -> list[Path]:
    """Return all checkouts but the `keep` used last."""
    used = {}
    for folder in checkouts.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError):  # removed by another worker at this moment
            if folder.is_dir():
                used[folder] = folder.stat().st_mtime
    return sorted(used, key=used.__getitem__, reverse=True)[keep:]


def _make(repo: Path, plan: Plan, folder: Path) -> None:
    """Make the checkout `folder`, which appears whole or not at all."""
    for left_over in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left_over)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as beside:
        tree = Path(beside) / "tree"
        clone(repo, plan, tree)
        tree.rename(folder)
    logger.info("checked out %s into %s", plan.name, folder)


def clone(repo: Path, plan: Plan, tree: Path) -> None:
    """Clone the plan's commit into `tree`, with its overrides and data, and the repo's DVC cache.

    A commit that the repo lacks is fetched from its remote. Raises TransientPipelineError where the
    data is neither in the cache nor in the remote.
    """
    resolve(repo, plan.commit)
    run_git(tree.parent, "clone", "--quiet", "--no-checkout", str(repo), str(tree))
    run_git(tree, "checkout", "--quiet", "--detach", plan.commit)
    if plan.overrides:
        document = read_yaml((tree / "params.yaml").read_text(encoding="utf-8"))
        for override in plan.overrides:
            document = override_params(document, override)
        (tree / "params.yaml").write_text(
            yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    # What stages write there (dvc.lock, metrics) must not make the commit look dirty.
    tracked = run_git(tree, "ls-files", "-z")
    run_git(tree, "update-index", "--assume-unchanged", "-z", "--stdin", stdin=tracked)
    _configure_dvc(repo, tree)
    environment = command_environment(os.environ)
    if run_dvc(tree, environment, "checkout", "data.dvc").code != 0:
        pulled = run_dvc(tree, environment, "pull", "data.dvc")
        if pulled.code != 0:
            raise TransientPipelineError(
                f"the data of commit {plan.commit[:12]} is neither in the DVC cache nor in the "
                f"remote: `dvc push` it where it is, or configure the remote in "
                f"{repo / '.dvc'}\n{pulled.tail}"
            )


def _configure_dvc(repo: Path, tree: Path) -> None:
    """Give the clone the cache, the remotes and the local settings of the user's repo."""
    from dvc.config import Config
    from dvc.config_schema import RelPath
    from dvc.exceptions import DvcException

    try:
        of_repo = Config(str(repo / ".dvc"))
        cache = of_repo["cache"].get("dir") or repo / ".dvc" / "cache"
        # Resolved on reading: a path relative to the user's .dvc is absolute here.
        repo_local = of_repo.load_one("local")
        # It may hold the secrets of a remote. DVC keeps the mode of a file that is there.
        (tree / ".dvc" / "config.local").touch(mode=0o600)
        config = Config(str(tree / ".dvc"))
        with config.edit("local") as local:
            for section, values in repo_local.items():
                for name, value in values.items():
                    if isinstance(value, dict):
                        local[section][name] = {k: _unmarked(v) for k, v in value.items()}
                    else:
                        local[section][name] = _unmarked(value)
            local["cache"]["dir"] = str(cache)
            # A link takes no time and no space; stages replace outputs, never write in place.
            if "type" not in of_repo["cache"]:
                local["cache"]["type"] = "reflink,hardlink,copy"
            for name, remote in config["remote"].items():
                if "url" in local["remote"].get(name, {}):
                    continue
                url = remote["url"]
                if isinstance(url, RelPath) and not Path(url).exists():
                    # Relative to .dvc, and outside of the repo: only the user's repo has it there.
                    original = os.path.normpath(repo / os.path.relpath(url, tree))
                    local["remote"].setdefault(name, {})["url"] = original
    except DvcException as error:
        raise PipelineError(f"the DVC configuration of {repo}: {error}") from None


def _unmarked(value: Any) -> Any:
    """Return a value without DVC's mark of a path that it resolved.

    DVC would write a marked path relative to the clone.
    """
    return str.__str__(value) if isinstance(value, str) else value
