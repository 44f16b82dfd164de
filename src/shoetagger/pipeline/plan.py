"""What a training run names: a commit, its overrides and its groups."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from ..config.operations import OPERATIONS
from ..config.params import Params, parse
from ..config.reading import read_yaml
from ..config.renamed import old_names
from ..config.strict import ParamsError
from .commits import resolve
from .dvc_files import data_out
from .process import PipelineError, run_git

PARAMS = "params.yaml"
INPUTS = (PARAMS, "dvc.yaml", "data.dvc", "src", ".dvcignore")
NEEDED = (PARAMS, "dvc.yaml", "data.dvc")


class Plan(BaseModel):
    """What a training run names: a full commit id, and the overrides of its params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    commit: str
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the plan's checkout, the same for equal plans only."""
        if not self.overrides:
            return self.commit[:12]
        digest = hashlib.sha256(json.dumps(self.overrides).encode()).hexdigest()
        return f"{self.commit[:12]}-{digest[:8]}"


def prepare(repo: Path, revision: str = "HEAD", overrides: Sequence[str] = ()) -> Plan:
    """Resolve `revision` to a commit, fetched where need be; check that a run can be made from it.

    Where it is the commit that the workspace is at, uncommitted inputs are refused by name: the
    person who starts a run means the files that they see. Sections of params.yaml that are the
    installation's (OPERATIONS) count uncommitted, so they may differ. Raises PipelineError.
    """
    commit = resolve(repo, revision)
    tracked = run_git(repo, "ls-tree", "-z", "--name-only", commit).split("\0")
    for name in NEEDED:
        if name not in tracked:
            raise PipelineError(
                f"commit {commit[:12]} of {repo} has no {name}: `git add {name}` and commit"
            )
    plan = Plan(commit=commit, overrides=tuple(line.strip() for line in overrides if line.strip()))
    for override in plan.overrides:
        key = override.partition("=")[0].strip()
        if key.partition(".")[0].strip() in OPERATIONS:
            raise PipelineError(
                f"override {override!r}: {key} is no parameter of training, and whoever starts a "
                f"run does not decide what it has to pass: set it in {repo / 'params.yaml'}, where "
                "it holds for all runs"
            )
    params_of(repo, plan)
    if commit == resolve(repo, "HEAD"):
        _refuse_uncommitted(repo)
    return plan


def params_of(repo: Path, plan: Plan) -> Params:
    """Return the parameters that the plan's stages see: of its commit, with its overrides."""
    text = run_git(repo, "show", f"{resolve(repo, plan.commit)}:params.yaml")
    try:
        document = read_yaml(text)
        renamed = old_names(document)  # an older commit's code knows them, and those of overrides
        parse(document, renamed)
    except (yaml.YAMLError, ParamsError) as error:
        raise PipelineError(f"params.yaml of commit {plan.commit[:12]}: {error}") from None
    for override in plan.overrides:
        document = override_params(document, override)
    try:
        # With all of them: one may be valid only beside another.
        return parse(document, renamed)
    except ParamsError as error:
        raise PipelineError(f"with the overrides {', '.join(plan.overrides)}: {error}") from None


def groups_of(repo: Path, plan: Plan, names: Sequence[str] = ()) -> list[str]:
    """Return the groups to train, in the order of params.yaml: those named, or else all.

    Raises PipelineError that lists the groups there are where a name is unknown.
    """
    known = list(params_of(repo, plan).groups)
    if unknown := [name for name in names if name not in known]:
        raise PipelineError(
            f"no group {', '.join(map(repr, unknown))} in params.yaml of commit "
            f"{plan.commit[:12]}: the groups are {', '.join(known)}"
        )
    return [name for name in known if name in names] if names else known


class _OverrideLoader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as it is for `dvc exp run -S`."""


_OverrideLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def override_params(document: Any, override: str) -> Any:
    """Return a copy of a parsed params.yaml with one `section.key=value` (value in YAML) set."""
    key, equals, text = override.partition("=")
    path = key.strip().split(".")
    if not equals or not all(path):
        raise PipelineError(f"override {override!r} is not of the form train.head_l2=0.001")
    try:
        value = yaml.load(text, Loader=_OverrideLoader)
    except yaml.YAMLError as error:
        raise PipelineError(f"override {override!r}: the value is not YAML: {error}") from None
    document = copy.deepcopy(document)
    place = document
    for depth, part in enumerate(path[:-1], start=1):
        # A section such as a group's `train` may be missing; params.parse refuses unknown ones.
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise PipelineError(
                f"override {override!r}: {'.'.join(path[:depth])} is a value, not a section"
            )
    place[path[-1]] = value
    return document


def _refuse_uncommitted(repo: Path) -> None:
    status = run_git(
        repo, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *INPUTS
    )
    changed = [entry[3:] for entry in status.split("\0") if entry]
    if PARAMS in changed and _learning(_workspace(repo)) == _learning(_committed(repo)):
        changed.remove(PARAMS)
    if changed:
        raise PipelineError(
            f"uncommitted inputs: {_listed(changed)}. A run is made from one commit: commit them "
            "(`git commit`), or name another revision"
        )
    data = data_out(repo)["path"]
    # A clone whose data was never pulled has changed nothing.
    if (repo / data).exists() and (changed := _changed_data(repo, data)):
        raise PipelineError(
            f"{data}/ is not what data.dvc says: {_listed(changed)}. "
            "Run `dvc add data` and commit data.dvc, or undo it with `dvc checkout data.dvc`"
        )


def _learning(document: object) -> object:
    """Return what of a params.yaml belongs to a commit: the rest is the installation's."""
    if not isinstance(document, dict):
        return None
    return {name: value for name, value in document.items() if name not in OPERATIONS}


def _workspace(repo: Path) -> object:
    """Return the workspace's params.yaml; None where it cannot be read."""
    try:
        return read_yaml((repo / PARAMS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None


def _committed(repo: Path) -> object:
    return read_yaml(run_git(repo, "show", f"HEAD:{PARAMS}"))


def _changed_data(repo: Path, data: str) -> list[str]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        # Not as `dvc status` does it, which takes the lock that a running `dvc repro` may hold.
        with Repo(str(repo)) as opened:
            changes = opened.data_status([data], granular=True, with_renames=False)["uncommitted"]
    except DvcException as error:
        raise PipelineError(f"DVC cannot compare {repo / data} with data.dvc: {error}") from None
    names = sorted(
        f"{name} ({kind})"
        for kind in ("added", "modified", "deleted", "unknown")
        for name in changes.get(kind, [])
    )
    # DVC names the folder itself, too: of use only where it names nothing else.
    return [name for name in names if not name.startswith(f"{data}{os.sep} (")] or names


def _listed(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
