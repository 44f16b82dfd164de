"""Brings what people said about arrivals into the versioned label sheet, as a commit on a branch.

The user's workspace is read, never written. The commit is made in a clone beside the checkouts and
then becomes the branch's tip; until that moment nothing has changed, and after it everything has.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from filelock import FileLock, Timeout

from ..config.params import Params
from ..config.places import Place
from ..config.settings import Settings
from ..errors import ShoetaggerError, TransientError
from ..images.decode import Limits, image_id, unreadable
from ..ingest.inbox import Inbox, ReadError
from ..ingest.places import inbox_at
from ..learning.dataset.labels import LABELLED_AT, LABELLED_BY, NAME_COLUMN, ORIGIN, read_labels
from ..learning.dataset.sheet import LabelsError, find_sheet
from ..learning.dataset.sheet_rows import Row, write_rows
from ..pipeline import checkout_lock
from ..pipeline.checkout import clone
from ..pipeline.dvc_files import data_folder, default_remote
from ..pipeline.plan import Plan
from ..pipeline.process import PipelineError, command_environment, run_dvc, run_git
from ..store.store import Store
from .gather import Checked, gather

log = logging.getLogger(__name__)

# The folder below images/ that collected pictures go to.
FOLDER = "collected"

_BESIDE = ".collect."  # how the names of folders begin in which collections work


class CollectionError(ShoetaggerError):
    """Nothing was collected; the message says why and what to do. Nothing was changed."""


class CollectionUnderWay(CollectionError, TransientError):  # noqa: N818 - a state that passes
    """Another collection is at work."""


@dataclass(frozen=True)
class _Taken:
    """A picture that is collected under a name below images/; `is_new` where no row had it."""

    picture: Checked
    name: str
    is_new: bool


@dataclass(frozen=True)
class Collected:
    """What a collection did: `commit` is None where it had nothing to do.

    `left_out` are sentences about pictures that could not be taken, `warnings` about what is done
    but for a step that a person has to do.
    """

    commit: str | None
    pictures: int
    left_out: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def collect(settings: Settings, params: Params, store: Store, *, least: int = 1) -> Collected:
    """Commit the checked pictures and their rows on `labels.branch`, and push data and branch.

    Fewer than `least` pictures are left for a later collection. The branch begins at HEAD, and
    follows it once it was merged. Raises CollectionError where branch and HEAD hold different data,
    where the sheet would have faults, or where the data cannot be pushed; CollectionUnderWay where
    another collection is at work.
    """
    with _alone(settings.home):
        checked = list(gather(store, params.groups))
        if len(checked) < least:
            log.info("%d checked pictures wait: a collection takes %d or more", len(checked), least)
            return Collected(None, 0)
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
            taken, left_out = _put_images(checked, tree, settings.inbox, params)
            if not taken:
                return Collected(None, 0, tuple(left_out))
            _put_rows(taken, tree, params)
            warnings = _version_data(tree, settings.repo)
            commit = _commit(tree, settings.repo, taken, params.labels.branch)
        store.corrections.mark_collected(
            [number for one in taken for number in one.picture.corrections], commit
        )
        warnings += _push_branch(settings.repo, params.labels.branch)
        return Collected(commit, len(taken), tuple(left_out), tuple(warnings))


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


def _put_images(
    checked: Sequence[Checked], tree: Path, inbox: Place, params: Params
) -> tuple[list[_Taken], list[str]]:
    """Copy the pictures' bytes into the data, but for those that are there already.

    Also returns a sentence for each picture that could not be taken.
    """
    images, opened = data_folder(tree) / "images", inbox_at(inbox)
    known = {
        image_id(path.read_bytes()): path.relative_to(images).as_posix()
        for path in sorted(images.rglob("*"))
        if path.is_file()
    }
    taken, left_out = [], []
    for picture in checked:
        if (name := known.get(picture.image_id)) is not None:
            taken.append(_Taken(picture, name, is_new=False))
        elif (data := _bytes_of(picture, opened, Limits.of(params.images).max_bytes)) is not None:
            name = _name_of(picture)
            path = images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            taken.append(_Taken(picture, name, is_new=True))
        else:
            left_out.append(
                f"{_shown(picture)} is gone from the inbox, or was replaced: its labels wait in "
                "the store"
            )
    return taken, left_out


def _bytes_of(picture: Checked, inbox: Inbox, max_bytes: int) -> bytes | None:
    """Return the bytes of the first file that still holds the picture."""
    for locator in picture.locators:
        try:
            data = inbox.read(locator, max_bytes).data
        except ReadError:
            continue
        if image_id(data) == picture.image_id:
            return data
    return None


def _name_of(picture: Checked) -> str:
    """Return a name that every system and spreadsheet takes, the same for the same picture."""
    path = PurePosixPath(unquote(picture.locators[0], errors="replace"))
    stem = re.sub(r"[^A-Za-z0-9]+", "-", path.stem).strip("-")[:60] or "picture"
    suffix = re.sub(r"[^a-z0-9.]", "", path.suffix.lower())[:6]
    return f"{FOLDER}/{stem}-{picture.image_id[:8]}{suffix}"


def _put_rows(taken: Sequence[_Taken], tree: Path, params: Params) -> None:
    """Write the pictures' rows into the sheet, and check all of it as training will."""
    data = data_folder(tree)
    columns = (NAME_COLUMN, *params.tags, ORIGIN, LABELLED_BY, LABELLED_AT)
    limits = Limits.of(params.images)
    new = {data / "images" / one.name for one in taken if one.is_new}
    try:
        sheet = find_sheet(data)
        write_rows(sheet, [_row(one, params.tags) for one in taken], columns)
        read_labels(
            sheet,
            data / "images",
            params.tags,
            unreadable=lambda path: unreadable(path, limits) if path in new else None,
        )
    except LabelsError as error:
        raise CollectionError(
            "nothing was collected, since the label sheet would not pass `shoetagger validate`:\n"
            f"{error}"
        ) from None


def _row(one: _Taken, tags: Sequence[str]) -> Row:
    """Return the cells to write; a picture that has a row keeps its origin, and so its side."""
    picture = one.picture
    ticks = {tag: "1" if tag in picture.tags else "0" for tag in tags}
    row = {NAME_COLUMN: one.name, **ticks, LABELLED_BY: picture.by}
    row[LABELLED_AT] = f"{picture.at:%Y-%m-%d}"
    return row | {ORIGIN: picture.origin} if one.is_new else row


def _version_data(tree: Path, repo: Path) -> list[str]:
    """Add the data to DVC and push it to the remote; return what is left for a person to do."""
    environment = command_environment(os.environ)
    _dvc(tree, environment, "add", "--quiet", data_folder(tree).relative_to(tree).as_posix())
    remote = default_remote(repo)
    if remote is None:
        return ["there is no DVC remote: the data is in the cache of this repo only"]
    if Path(remote).is_relative_to(repo):
        return [f"the DVC remote {remote} lies in the repo: `dvc push` there once you have merged"]
    _dvc(tree, environment, "push", "--quiet", "data.dvc")
    return []


def _dvc(tree: Path, environment: Mapping[str, str], *arguments: str) -> None:
    done = run_dvc(tree, environment, *arguments)
    if done.code:
        raise CollectionError(
            f"nothing was collected: `dvc {arguments[0]}` failed; see whether the remote responds "
            f"(`dvc remote list`), and collect again\n{done.tail}"
        )


def _commit(tree: Path, repo: Path, taken: Sequence[_Taken], branch: str) -> str:
    """Commit data.dvc and make the commit the branch's tip in the repo; return the commit."""
    run_git(tree, "update-index", "--no-assume-unchanged", "data.dvc")
    run_git(tree, "add", "data.dvc")
    run_git(tree, *_identity(repo), "commit", "--quiet", "--message", _message(taken))
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


def _message(taken: Sequence[_Taken]) -> str:
    people = Counter(one.picture.by for one in taken)
    origins = Counter(one.picture.origin for one in taken)
    new = sum(one.is_new for one in taken)
    lines = [f"Labels: {len(taken)} checked pictures, {new} of them new", ""]
    lines += [f"checked by {name}: {number}" for name, number in people.most_common()]
    lines += [f"met in {origin}: {number}" for origin, number in origins.most_common()]
    return "\n".join(lines)


def _push_branch(repo: Path, branch: str) -> list[str]:
    """Push the branch to the repo's remote, if it has one; return what went wrong."""
    remotes = run_git(repo, "remote").split()
    if not remotes:
        return []
    remote = "origin" if "origin" in remotes else remotes[0]
    try:
        run_git(repo, "push", "--quiet", remote, f"refs/heads/{branch}")
    except PipelineError as error:
        return [
            f"the commit is on {branch} here, and could not be pushed to {remote}: "
            f"`git push {remote} {branch}` ({error})"
        ]
    return []


def _shown(picture: Checked) -> str:
    if not picture.locators:
        return f"picture {picture.image_id[:12]}"
    return PurePosixPath(unquote(picture.locators[0], errors="replace")).name


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
