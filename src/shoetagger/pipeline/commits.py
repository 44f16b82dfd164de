"""Commits of the repo; those that another machine made come from git's remote."""

from __future__ import annotations

import re
from pathlib import Path

from .process import PipelineError, TransientPipelineError, run_git

_COMMIT_ID = re.compile(r"[0-9a-f]{40}")


def git_remote(repo: Path) -> str | None:
    """Return the name of the repo's remote: `origin`, else the first; None where there is none."""
    remotes = run_git(repo, "remote").split()
    return "origin" if "origin" in remotes else next(iter(remotes), None)


def resolve(repo: Path, revision: str) -> str:
    """Return the id of the commit that a revision names; fetch it where the repo lacks it.

    A fetch changes no branch, and nothing that lies in the workspace. Raises PipelineError where
    the remote does not have it either, TransientPipelineError where the remote does not answer.
    """
    top = run_git(repo, "rev-parse", "--show-toplevel").strip()
    if Path(top) != repo.resolve():
        raise PipelineError(f"{repo} is not the root of a git repo ({top} is): move it there")
    if (commit := _commit(repo, revision)) is not None:
        return commit
    remote = git_remote(repo)
    if remote is not None and (commit := _fetched(repo, remote, revision)) is not None:
        return commit
    nor_there = f", nor of its remote {remote}" if remote else ""
    raise PipelineError(
        f"{revision!r} is not a revision of {repo}{nor_there}: name a branch, tag or commit that "
        "`git log` shows there, or `git push` it from where it is"
    )


def _commit(repo: Path, revision: str) -> str | None:
    try:
        return run_git(
            repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
        ).strip()
    except PipelineError:
        return None


def _fetched(repo: Path, remote: str, revision: str) -> str | None:
    """Fetch the remote's branches and tags; return the commit, if it is there now."""
    fault = None
    try:
        run_git(repo, "fetch", "--quiet", remote)
    except PipelineError as error:
        fault = error  # or another task fetched at the same moment
    for name in (revision, f"{remote}/{revision}"):
        if (commit := _commit(repo, name)) is not None:
            return commit
    if fault is not None:
        raise TransientPipelineError(f"{revision!r} is not in {repo}: {fault}") from None
    if _COMMIT_ID.fullmatch(revision):  # in a branch that was rebased meanwhile
        try:
            run_git(repo, "fetch", "--quiet", remote, revision)
        except PipelineError:
            return None
    return _commit(repo, revision)
