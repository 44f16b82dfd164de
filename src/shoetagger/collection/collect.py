"""Brings what people said about arrivals into the versioned label sheet, as a commit on a branch.

The user's workspace is read, never written. The commit is made in a clone beside the checkouts and
then becomes the branch's tip; until that moment nothing has changed, and after it everything has.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ..config.params import Params
from ..config.settings import Settings
from ..errors import ShoetaggerError, TransientError
from ..learning.dataset.sheet import LabelsError
from ..pipeline import checkout_lock
from ..pipeline.checkout import clone
from ..pipeline.commits import git_remote
from ..pipeline.dvc_files import data_folder, default_remote
from ..pipeline.plan import Plan
from ..pipeline.process import PipelineError, command_environment, run_dvc, run_git
from ..store.store import Store
from .gather import Checked, NoShoe, gather, no_shoes
from .sheet_edits import SheetEdits, edit_sheet

log = logging.getLogger(__name__)

_BESIDE = ".collect."  # how the names of folders begin in which collections work


class CollectionError(ShoetaggerError):
    """Nothing was collected; the message says why and what to do. Nothing was changed."""


class CollectionUnderWay(CollectionError, TransientError):  # noqa: N818 - a state that passes
    """Another collection is at work."""


@dataclass(frozen=True)
class Collected:
    """What a collection did: `commit` is None where it had nothing to do.

    `pushed_to` is git's remote that has the commit now, if there is one.
    `pictures` are those whose rows were written, `removed` those whose rows are gone since they are
    no shoes. `left_out` are sentences about pictures that could not be taken, `changes` about rows
    that say other tags now, `doubts` about what to look at before merging, `warnings` about what is
    done but for a step that a person has to do.
    """

    commit: str | None
    pictures: int
    removed: int = 0
    left_out: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    pushed_to: str | None = None


@dataclass(frozen=True)
class Preview:
    """What a collection would do now; `until` is the last correction that it takes into account."""

    edits: SheetEdits
    until: int


def collect(
    settings: Settings,
    params: Params,
    store: Store,
    *,
    least: int = 1,
    until: int | None = None,
    approved_by: str | None = None,
) -> Collected:
    """Commit the checked pictures and their rows on `labels.branch`, and push data and branch.

    The rows of pictures that people judged not to be shoes go. Fewer than `least` pictures, all
    together, are left for a later collection, and so is what was edited after the correction
    `until`. The branch begins at HEAD, and follows it once it was merged; the commit names who
    checked and who approved. Raises CollectionError
    where branch and HEAD hold different data, where the sheet would have faults, or where the data
    cannot be pushed; CollectionUnderWay where another collection is at work.
    """
    branch = params.labels.branch
    with _alone(settings.home):
        checked, judged = _waiting(store, params, until)
        if not _are_enough(checked, judged, least):
            return Collected(None, 0)
        with _edited(settings, params, checked, judged) as (tree, base, edits):
            commit, warnings = base, []
            if edits:
                warnings = _version_data(tree, settings.repo)
                commit = _commit(tree, settings.repo, edits, branch, approved_by)
        numbers = [number for one in edits.taken for number in one.picture.corrections]
        store.corrections.mark_collected(
            [*numbers, *(one.verdict for one in judged)],
            commit,
            removed=[one.picture.image_id for one in edits.removed],
        )
        if commit == base:  # the sheet says all of it already
            return Collected(None, 0, left_out=edits.left_out)
        remote, refusals = _push_branch(settings.repo, branch)
        return Collected(
            commit,
            len(edits.taken),
            len(edits.removed),
            edits.left_out,
            edits.changes,
            edits.doubts,
            (*warnings, *refusals),
            remote,
        )


def preview(settings: Settings, params: Params, store: Store, *, least: int = 1) -> Preview | None:
    """Return what `collect` would do now, and change nothing; None where too little is checked.

    Raises as `collect` does, but for what is pushed.
    """
    until = store.corrections.last()
    with _alone(settings.home):
        checked, judged = _waiting(store, params, until)
        if not _are_enough(checked, judged, least):
            return None
        with _edited(settings, params, checked, judged) as (_, _, edits):
            return Preview(edits, until)


def _waiting(store: Store, params: Params, until: int | None) -> tuple[list[Checked], list[NoShoe]]:
    checked = list(gather(store, params.groups, until=until))
    return checked, list(no_shoes(store, until=until))


def _are_enough(checked: Sequence[Checked], judged: Sequence[NoShoe], least: int) -> bool:
    number = len(checked) + len(judged)
    if number < least:
        log.info("%d checked pictures wait: a collection takes %d or more", number, least)
    return number >= least


@contextmanager
def _edited(
    settings: Settings, params: Params, checked: Sequence[Checked], judged: Sequence[NoShoe]
) -> Iterator[tuple[Path, str, SheetEdits]]:
    """Make the edits in a clone of the commit to build on; yield clone, commit and edits."""
    base = _base(settings.repo, params.labels.branch)
    settings.checkouts.mkdir(parents=True, exist_ok=True)
    for left_over in settings.checkouts.glob(f"{_BESIDE}*"):  # of one that was killed
        shutil.rmtree(left_over)
    with (
        checkout_lock.shared(checkout_lock.cache(settings.checkouts)),
        tempfile.TemporaryDirectory(dir=settings.checkouts, prefix=_BESIDE) as beside,
    ):
        tree = Path(beside) / "tree"
        clone(settings.repo, Plan(commit=base), tree)
        try:
            edits = edit_sheet(data_folder(tree), checked, judged, settings.inbox, params)
        except LabelsError as error:
            raise CollectionError(
                "nothing was collected, since the label sheet cannot take it, or would not pass "
                f"`shoetagger validate`:\n{error}"
            ) from None
        yield tree, base, edits


def _base(repo: Path, branch: str) -> str:
    """Return the commit to build on: the branch's tip, or HEAD where that has all of the branch.

    Raises CollectionError where each has data that the other lacks.
    """
    head = run_git(repo, "rev-parse", "--verify", "HEAD^{commit}").strip()
    tip = run_git(repo, "for-each-ref", "--format=%(objectname)", f"refs/heads/{branch}").strip()
    if not tip or tip == head:
        return head
    common = run_git(repo, "merge-base", head, tip).strip()
    if common == tip:
        return head
    if common != head and run_git(repo, "diff", "--name-only", common, head, "--", "data.dvc"):
        raise CollectionError(
            f"the labels were edited both on {branch} and on the present branch: merge them "
            f"(`git merge {branch}`, then settle data.dvc by hand), and collect again"
        )
    return tip


def _version_data(tree: Path, repo: Path) -> list[str]:
    """Add the data to DVC and push it to the remote; return what is left for a person to do."""
    environment = command_environment(os.environ)
    _dvc(tree, environment, "add", data_folder(tree).relative_to(tree).as_posix())
    remote = default_remote(repo)
    if remote is None:
        return ["there is no DVC remote: the data is in the cache of this repo only"]
    if Path(remote).is_relative_to(repo):
        return [f"the DVC remote {remote} lies in the repo: `dvc push` there once you have merged"]
    _dvc(tree, environment, "push", "data.dvc")
    return []


def _dvc(tree: Path, environment: Mapping[str, str], *arguments: str) -> None:
    # Not quiet: then DVC would not say why it failed.
    done = run_dvc(tree, environment, *arguments)
    if done.code:
        raise CollectionError(
            f"nothing was collected: `dvc {arguments[0]}` failed; see whether the remote responds "
            f"(`dvc remote list`), and collect again\n{done.tail}"
        )


def _commit(tree: Path, repo: Path, edits: SheetEdits, branch: str, approved_by: str | None) -> str:
    """Commit data.dvc and make the commit the branch's tip in the repo; return the commit.

    Where the data is as it was, that is the commit that the clone is at.
    """
    run_git(tree, "update-index", "--no-assume-unchanged", "data.dvc")
    run_git(tree, "add", "data.dvc")
    if run_git(tree, "diff", "--cached", "--name-only"):
        identity = _identity(repo)
        run_git(tree, *identity, "commit", "--quiet", "--message", _message(edits, approved_by))
        try:
            run_git(tree, "push", "--quiet", str(repo), f"HEAD:refs/heads/{branch}")
        except PipelineError as error:
            raise CollectionError(
                f"nothing was collected: the branch {branch} cannot move on. Is it checked out in "
                f"{repo}? Then switch to another one (`git switch -`) and collect again\n{error}"
            ) from None
    return run_git(tree, "rev-parse", "HEAD").strip()


def _identity(repo: Path) -> Iterator[str]:
    """Yield git's options for who commits: the repo's user, else this program."""
    defaults = {"user.name": "shoetagger", "user.email": "shoetagger@localhost"}
    for key, default in defaults.items():
        value = run_git(repo, "config", "--default", default, "--get", key).strip()
        yield from ("-c", f"{key}={value}")


def _message(edits: SheetEdits, approved_by: str | None) -> str:
    people = Counter(one.picture.by for one in edits.taken)
    people.update(one.picture.by for one in edits.removed)
    origins = Counter(one.picture.origin for one in edits.taken)
    lines = [f"Labels: {edits.summary}", ""]
    lines += [f"checked by {name}: {number}" for name, number in people.most_common()]
    lines += [f"met in {origin}: {number}" for origin, number in origins.most_common()]
    lines += [f"approved by {approved_by}"] if approved_by else []
    lines += [f"not a shoe: {name}" for one in edits.removed for name in one.names]
    lines += [f"changed: {words}" for words in edits.changes]
    return "\n".join(lines)


def _push_branch(repo: Path, branch: str) -> tuple[str | None, list[str]]:
    """Push the branch to the repo's remote, if it has one; return which has it, and what failed."""
    remote = git_remote(repo)
    if remote is None:
        return None, []
    try:
        run_git(repo, "push", "--quiet", remote, f"refs/heads/{branch}")
    except PipelineError as error:
        return None, [
            f"the commit is on {branch} here, and could not be pushed to {remote}: "
            f"`git push {remote} {branch}` ({error})"
        ]
    return remote, []


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the lock of collections; the lock of a killed one is free."""
    home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(home / "collect.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise CollectionUnderWay(
            "another collection is at work: what people check meanwhile comes with the next one"
        ) from None
    try:
        yield
    finally:
        lock.release()
