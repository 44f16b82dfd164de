"""A git revision, checked out where a worker is, and DVC stages run in it.

The user's workspace is read, never written: a run names one commit, and each worker clones that
commit beside the state (`checkouts/`), with the DVC cache of the user's repo, so that `dvc repro`
in the workspace restores later what a run computed here.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from ..config import params
from ..config.settings import Settings
from .plan import Plan, override_params
from .process import PipelineError, TransientPipelineError, command_environment, run_dvc, run_git

logger = logging.getLogger(__name__)


# --- the checkout -------------------------------------------------------------------------------
def checkout(settings: Settings, plan: Plan) -> Path:
    """Return the folder that holds the plan's commit, data and overrides on this machine.

    It is made once, under a lock and beside its place, and used again by every later call.
    Raises TransientPipelineError where the data cannot be had from cache or remote.
    """
    folder = settings.checkouts / plan.name
    if not folder.is_dir():
        settings.checkouts.mkdir(parents=True, exist_ok=True)
        with checkout_lock(folder, fcntl.LOCK_EX):
            if not folder.is_dir():
                for left_over in settings.checkouts.glob(f".{plan.name}.*"):
                    shutil.rmtree(left_over)
                with tempfile.TemporaryDirectory(
                    dir=settings.checkouts, prefix=f".{plan.name}."
                ) as beside:
                    tree = Path(beside) / "tree"
                    _make_tree(settings, plan, tree)
                    tree.rename(folder)
                logger.info("checked out %s into %s", plan.name, folder)
        prune(settings)
    with contextlib.suppress(FileNotFoundError):  # pruned by another worker at this moment
        os.utime(folder)  # in use: the last to be pruned
    return folder


def prune(settings: Settings, keep: int | None = None) -> list[str]:
    """Remove all checkouts but the `keep` used last; return the names of those removed.

    Left out, `keep` is `keep.checkouts` of params.yaml. One that a stage is running in stays. A
    run whose checkout went makes it again.
    """
    if keep is None:
        keep = params.load(settings.params_file).keep.checkouts
    used = {
        folder: folder.stat().st_mtime
        for folder in settings.checkouts.glob("[!.]*")
        if folder.is_dir()
    }
    removed = []
    for folder in sorted(used, key=used.__getitem__, reverse=True)[keep:]:
        with (
            contextlib.suppress(BlockingIOError),
            checkout_lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB),
        ):
            with tempfile.TemporaryDirectory(
                dir=settings.checkouts, prefix=f".{folder.name}."
            ) as away:
                folder.rename(Path(away) / "tree")
            _lock_file(folder).unlink()
            removed.append(folder.name)
    return removed


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextlib.contextmanager
def checkout_lock(folder: Path, mode: int) -> Iterator[None]:
    """Hold the lock of a checkout: exclusive to make or remove it, shared to work in it."""
    path = _lock_file(folder)
    while True:
        with path.open("a") as file:
            fcntl.flock(file, mode)
            try:
                current = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            except FileNotFoundError:
                current = False
            if current:
                yield
                return

        # Removed by prune while we waited: what we hold is no longer the lock.


def _make_tree(settings: Settings, plan: Plan, tree: Path) -> None:
    run_git(settings.checkouts, "clone", "--quiet", "--no-checkout", str(settings.repo), str(tree))
    run_git(tree, "checkout", "--quiet", "--detach", plan.commit)
    if plan.overrides:
        document = yaml.safe_load((tree / "params.yaml").read_text(encoding="utf-8"))
        for override in plan.overrides:
            document = override_params(document, override)
        (tree / "params.yaml").write_text(
            yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    # What stages write there (dvc.lock, metrics) makes it no other commit than it is.
    tracked = run_git(tree, "ls-files", "-z")
    run_git(tree, "update-index", "--assume-unchanged", "-z", "--stdin", say=tracked)
    _configure_dvc(settings.repo, tree)
    environment = command_environment(os.environ)
    if run_dvc(tree, environment, "checkout", "data.dvc").code != 0:
        pulled = run_dvc(tree, environment, "pull", "data.dvc")
        if pulled.code != 0:
            raise TransientPipelineError(
                f"the data of commit {plan.commit[:12]} is neither in the DVC cache nor in the "
                f"remote: `dvc push` it where it is, or configure the remote in "
                f"{settings.repo / '.dvc'}\n{pulled.tail}"
            )


def _configure_dvc(repo: Path, tree: Path) -> None:
    """Give the clone the cache, the remotes and the local settings of the user's repo."""
    from dvc.config import Config
    from dvc.config_schema import RelPath
    from dvc.exceptions import DvcException

    try:
        theirs = Config(str(repo / ".dvc"))
        cache = theirs["cache"].get("dir") or repo / ".dvc" / "cache"
        # Resolved on reading: a path relative to the user's .dvc is absolute here.
        user_local = theirs.load_one("local")
        config = Config(str(tree / ".dvc"))
        with config.edit("local") as ours:
            for section, values in user_local.items():
                for name, value in values.items():
                    if isinstance(value, dict):
                        ours[section][name] = {k: _plain(v) for k, v in value.items()}
                    else:
                        ours[section][name] = _plain(value)
            ours["cache"]["dir"] = str(cache)
            # A link takes no time and no room; stages write outputs anew, never in place.
            if "type" not in theirs["cache"]:
                ours["cache"]["type"] = "reflink,hardlink,copy"
            for name, remote in config["remote"].items():
                if "url" in ours["remote"].get(name, {}):
                    continue
                url = remote["url"]
                if isinstance(url, RelPath) and not Path(url).exists():
                    # Relative to .dvc, and outside of the repo: only the user's repo has it there.
                    original = os.path.normpath(repo / os.path.relpath(url, tree))
                    ours["remote"].setdefault(name, {})["url"] = original
    except DvcException as error:
        raise PipelineError(f"the DVC configuration of {repo}: {error}") from None


def _plain(value: Any) -> Any:
    # DVC marks paths that came from a relative one, and would write them relative to the clone.
    return str.__str__(value) if isinstance(value, str) else value
