"""A git revision, checked out where a worker is, and DVC stages run in it.

The user's workspace is read, never written: a run names one commit, and each worker clones that
commit beside the state (`checkouts/`), with the DVC cache of the user's repo, so that `dvc repro`
in the workspace restores later what a run computed here.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from . import params
from .errors import PassingError, ShoetaggerError
from .settings import Settings

logger = logging.getLogger(__name__)

INPUTS = ("params.yaml", "dvc.yaml", "data.dvc", "src", ".dvcignore")
NEEDED = ("params.yaml", "dvc.yaml", "data.dvc")
LAST_LINES = 20  # of a failed command's output, for the error

Outcome = Literal["ran", "restored", "unchanged"]


class PipelineError(ShoetaggerError):
    """A run cannot be prepared, or a command of it failed; doing it again fails again."""


class TryAgainError(PipelineError, PassingError):
    """What failed may pass by itself: DVC is busy, a remote is away, a stage was killed."""


@dataclass(frozen=True)
class Plan:
    """What a training run names: a full commit id, and the overrides of its params.yaml."""

    commit: str
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its checkout: equal plans, and only those, have the same."""
        if not self.overrides:
            return self.commit[:12]
        digest = hashlib.sha256(json.dumps(self.overrides).encode()).hexdigest()
        return f"{self.commit[:12]}-{digest[:8]}"

    def as_dict(self) -> dict[str, Any]:
        return {"commit": self.commit, "overrides": list(self.overrides)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Plan:
        return cls(commit=value["commit"], overrides=tuple(value["overrides"]))


def prepare(settings: Settings, revision: str = "HEAD", overrides: Sequence[str] = ()) -> Plan:
    """Resolve `revision` to a commit and check that a run can be made from it.

    Where it is the commit that the workspace stands on, uncommitted inputs are refused by name,
    for whoever starts a run means what they see. Raises PipelineError, or ParamsError for what
    params.yaml holds at that commit.
    """
    repo = settings.repo
    commit = _resolve(repo, revision)
    tracked = _git(repo, "ls-tree", "-z", "--name-only", commit).split("\0")
    for name in NEEDED:
        if name not in tracked:
            raise PipelineError(
                f"commit {commit[:12]} of {repo} has no {name}: `git add {name}` and commit"
            )
    plan = Plan(commit, tuple(line.strip() for line in overrides if line.strip()))
    for override in plan.overrides:
        if override.partition("=")[0].partition(".")[0].strip() == "promote":
            raise PipelineError(
                f"override {override!r}: whoever starts a run does not decide what it has to "
                "pass; commit the change to params.yaml"
            )
    params_of(settings, plan)
    if commit == _resolve(repo, "HEAD"):
        _refuse_uncommitted(repo)
    return plan


def params_of(settings: Settings, plan: Plan) -> params.Params:
    """Return the parameters that the plan's stages see: of its commit, with its overrides."""
    text = _git(settings.repo, "show", f"{plan.commit}:params.yaml")
    try:
        document = yaml.safe_load(text)
        params.parse(document)
    except (yaml.YAMLError, params.ParamsError) as error:
        raise PipelineError(f"params.yaml of commit {plan.commit[:12]}: {error}") from None
    for override in plan.overrides:
        document = override_params(document, override)
    try:
        return params.parse(document)  # with all of them, for one may be valid beside another only
    except params.ParamsError as error:
        raise PipelineError(f"with the overrides {', '.join(plan.overrides)}: {error}") from None


def groups_of(settings: Settings, plan: Plan, asked: Sequence[str] = ()) -> list[str]:
    """Return the groups to train, in the order of params.yaml: those asked for, or else all.

    Raises PipelineError that lists the groups there are where an unknown one is asked for.
    """
    known = list(params_of(settings, plan).groups)
    if unknown := [name for name in asked if name not in known]:
        raise PipelineError(
            f"no group {', '.join(map(repr, unknown))} in params.yaml of commit "
            f"{plan.commit[:12]}: the groups are {', '.join(known)}"
        )
    return [name for name in known if name in asked] if asked else known


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
        # A group's own `train` may not be there yet; params.parse refuses what must not be there.
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise PipelineError(
                f"override {override!r}: {'.'.join(path[:depth])} is a value, not a section"
            )
    place[path[-1]] = value
    return document


def data_folder(checkout: Path) -> Path:
    """Return the folder that data.dvc versions: images/ and the label sheet."""
    return checkout / str(_data_out(checkout)["path"])


def outputs(checkout: Path, stage: str) -> dict[str, Path]:
    """Return where a stage's outputs lie, by the name of each file or folder.

    dvc.yaml is the one home of these paths; whoever needs one asks here.
    """
    from dvc.repo import Repo

    with Repo(str(checkout)) as repo:
        # Not by `repo.stage`, which looks for dvc.yaml in the working directory.
        for found in repo.index.stages:
            if found.cmd and found.name == stage:
                return {Path(out.fs_path).name: Path(out.fs_path) for out in found.outs}
    raise PipelineError(f"dvc.yaml of {checkout} has no stage {stage}")


def data_revision(checkout: Path) -> str:
    """Return the md5 that data.dvc gives the image set and label sheet of a checkout."""
    return str(_data_out(checkout)["md5"])


def _data_out(repo: Path) -> Mapping[str, Any]:
    try:
        (out,) = yaml.safe_load((repo / "data.dvc").read_text(encoding="utf-8"))["outs"]
        return {"path": out["path"], "md5": out["md5"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{repo / 'data.dvc'} does not name one folder of data ({error}): "
            "make it with `dvc add data`"
        ) from None


# --- the revision -------------------------------------------------------------------------------


def _resolve(repo: Path, revision: str) -> str:
    top = _git(repo, "rev-parse", "--show-toplevel").strip()
    if Path(top) != repo.resolve():
        raise PipelineError(f"{repo} is not the root of a git repo ({top} is): move it there")
    try:
        return _git(
            repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
        ).strip()
    except PipelineError:
        raise PipelineError(
            f"{revision!r} is not a revision of {repo}: name a branch, tag or commit that "
            "`git log` shows there, or fetch it first"
        ) from None


def _refuse_uncommitted(repo: Path) -> None:
    status = _git(
        repo, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *INPUTS
    )
    changed = [entry[3:] for entry in status.split("\0") if entry]
    if changed:
        raise PipelineError(
            f"uncommitted inputs: {_some(changed)}. A run is made from one commit: commit them "
            "(`git commit`), or name another revision"
        )
    data = _data_out(repo)["path"]
    # A clone whose data was never pulled has changed nothing.
    if (repo / data).exists() and (changed := _changed_data(repo, data)):
        raise PipelineError(
            f"{data}/ is not what data.dvc says: {_some(changed)}. "
            "Run `dvc add data` and commit data.dvc, or undo it with `dvc checkout data.dvc`"
        )


def _changed_data(repo: Path, data: str) -> list[str]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        # Not what `dvc status` does: it wants the lock that a running `dvc repro` may hold.
        with Repo(str(repo)) as opened:
            changes = opened.data_status([data], granular=True, with_renames=False)["uncommitted"]
    except DvcException as error:
        raise PipelineError(f"DVC cannot compare {repo / data} with data.dvc: {error}") from None
    names = sorted(
        f"{name} ({kind})"
        for kind in ("added", "modified", "deleted", "unknown")
        for name in changes.get(kind, [])
    )
    # The folder itself is named too; it says something only where nothing else is.
    return [name for name in names if not name.startswith(f"{data}{os.sep} (")] or names


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


# --- the checkout -------------------------------------------------------------------------------


def checkout(settings: Settings, plan: Plan) -> Path:
    """Return the folder that holds the plan's commit, data and overrides on this machine.

    It is made once, under a lock and beside its place, and used again by every later call.
    Raises TryAgainError where the data cannot be had from cache or remote.
    """
    folder = settings.checkouts / plan.name
    if not folder.is_dir():
        settings.checkouts.mkdir(parents=True, exist_ok=True)
        with _lock(folder, fcntl.LOCK_EX):
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


@contextlib.contextmanager
def using(settings: Settings, plan: Plan, stage: str) -> Iterator[Path]:
    """Hold the plan's checkout, safe from pruning, with the outputs of a stage in it.

    Where this worker's checkout lacks them, the stage is run, which mostly means restored.
    """
    while True:
        folder = checkout(settings, plan)
        if not all(path.exists() for path in outputs(folder, stage).values()):
            run_stage(settings, plan, stage)
        with _lock(folder, fcntl.LOCK_SH):
            if folder.is_dir():  # not pruned between the lines above
                yield folder
                return


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
        with contextlib.suppress(BlockingIOError), _lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
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
def _lock(folder: Path, mode: int) -> Iterator[None]:
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
    _git(settings.checkouts, "clone", "--quiet", "--no-checkout", str(settings.repo), str(tree))
    _git(tree, "checkout", "--quiet", "--detach", plan.commit)
    if plan.overrides:
        document = yaml.safe_load((tree / "params.yaml").read_text(encoding="utf-8"))
        for override in plan.overrides:
            document = override_params(document, override)
        (tree / "params.yaml").write_text(
            yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
    # What stages write there (dvc.lock, metrics) makes it no other commit than it is.
    tracked = _git(tree, "ls-files", "-z")
    _git(tree, "update-index", "--assume-unchanged", "-z", "--stdin", say=tracked)
    _configure_dvc(settings.repo, tree)
    environment = _environment(os.environ)
    if _dvc(tree, environment, "checkout", "data.dvc").code != 0:
        pulled = _dvc(tree, environment, "pull", "data.dvc")
        if pulled.code != 0:
            raise TryAgainError(
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


# --- stages -------------------------------------------------------------------------------------


def run_stage(settings: Settings, plan: Plan, stage: str, *, patience: float = 1800.0) -> Outcome:
    """Bring one stage of dvc.yaml up to date in the plan's checkout, with that commit's code.

    What it rests on is restored first where this machine's checkout lacks it. Output goes to the
    log. Waits up to `patience` seconds for a stage that is at work on the same files. Raises
    PipelineError with the last lines of a stage that failed.
    """
    while True:
        folder = checkout(settings, plan)
        with _lock(folder, fcntl.LOCK_SH):
            if not folder.is_dir():  # pruned between the two lines above
                continue
            environment = _stage_environment(settings, folder)
            for upstream in _upstream(folder, stage):
                if not _done(folder, upstream).exists():
                    logger.info("%s rests on %s, which this machine lacks", stage, upstream)
                    _repro(folder, environment, upstream, patience, again=False)
            return _repro(folder, environment, stage, patience, again=True)


def _done(folder: Path, stage: str) -> Path:
    return folder / ".dvc" / "tmp" / "shoetagger" / stage


def _repro(
    folder: Path, environment: Mapping[str, str], stage: str, patience: float, *, again: bool
) -> Outcome:
    deadline, pause = time.monotonic() + patience, 1.0
    while again or not _done(folder, stage).exists():
        run = _dvc(folder, environment, "repro", "--single-item", stage)
        if run.code == 0:
            outcome = _outcome(run.seen)
            logger.info("%s: %s", stage, _OUTCOMES[outcome])
            _done(folder, stage).parent.mkdir(parents=True, exist_ok=True)
            _done(folder, stage).touch()
            return outcome
        where = f"stage {stage} of checkout {folder.name}"
        if "busy" not in run.seen or "ran" in run.seen:
            # What a signal ended (out of memory, a machine going down) may pass.
            passing = 128 < run.code < 192 or not run.seen.isdisjoint(("killed", "busy"))
            raise (TryAgainError if passing else PipelineError)(f"{where} failed:\n{run.tail}")
        if time.monotonic() + pause > deadline:
            raise TryAgainError(f"{where} was kept busy for {patience:.0f} s:\n{run.tail}")
        logger.info("%s: another process works on its files; again in %.0f s", stage, pause)
        time.sleep(pause)
        pause = min(pause * 2, 30.0)
    return "unchanged"


_OUTCOMES: Mapping[Outcome, str] = {
    "ran": "ran",
    "restored": "restored from the DVC cache: its code did not run and logged nothing",
    "unchanged": "unchanged: its results are there already",
}
# What DVC says, and what it means.
_PHRASES = {
    "busy": re.compile(r"is busy, it is being blocked by|Unable to acquire lock"),
    "killed": re.compile(r"failed to run: .*exited with (-\d+|1[3-5]\d)\s*$"),
    "ran": re.compile(r"Running stage '"),
    "restored": re.compile(r"is cached - skipping run, checking out outputs"),
}


def _outcome(seen: frozenset[str]) -> Outcome:
    if "ran" in seen:
        return "ran"
    return "restored" if "restored" in seen else "unchanged"


def _upstream(folder: Path, stage: str) -> list[str]:
    """Return the stages that `stage` rests on, each after those that it rests on itself."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    try:
        with Repo(str(folder)) as repo:
            targets = [s for s in repo.index.stages if s.cmd and s.name == stage]
            order = plan_repro(repo.index.graph, targets) if targets else []
            return [s.name for s in order if s.cmd and s.name != stage]
    except DvcException:
        return []  # dvc.yaml is broken or lacks the stage: `dvc repro` says it best


# --- processes ----------------------------------------------------------------------------------


_OF_ANOTHER_REPO = frozenset(
    ["DVC_ROOT", "DVC_STAGE"]
    + [f"GIT_{name}" for name in ("DIR", "WORK_TREE", "INDEX_FILE", "PREFIX", "COMMON_DIR")]
    + ["GIT_OBJECT_DIRECTORY"]
)


def _environment(base: Mapping[str, str]) -> dict[str, str]:
    environment = {
        name: value
        for name, value in base.items()
        # A git hook or a DVC stage around us speaks of another repo.
        if name not in _OF_ANOTHER_REPO
    }
    binaries = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([binaries, base.get("PATH", os.defpath)])
    environment["DVC_NO_ANALYTICS"] = "1"
    environment["SHELL"] = "/bin/sh"  # DVC would take that of the account, which may be none
    return environment


def _stage_environment(settings: Settings, folder: Path) -> dict[str, str]:
    environment = _environment(os.environ)
    before = environment.get("PYTHONPATH")
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(folder / "src"), *([before] if before else [])]),
        "PYTHONUNBUFFERED": "1",
        "SHOETAGGER_REPO": str(folder),
        "SHOETAGGER_HOME": str(settings.home),
        "SHOETAGGER_INBOX": str(settings.inbox),
        "SHOETAGGER_STORE_URL": settings.store_url,
        "SHOETAGGER_DEVICE": settings.device,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
    }
    return environment


def _git(folder: Path, *arguments: str, say: str = "") -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env=_environment(os.environ) | {"LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0"},
        input=say,
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    if done.returncode != 0:
        raise PipelineError(f"`git {arguments[0]}` failed in {folder}: {done.stderr.strip()}")
    return done.stdout


@dataclass(frozen=True)
class _Ended:
    """How a command ended: exit status, the phrases of _PHRASES it said, its last lines."""

    code: int
    seen: frozenset[str]
    tail: str


# Stands between us and a command, and ends the command's process group when we are gone or hang up
# (its standard input ends): the task of an Airflow that is killed cannot do it any more.
# Interrupt first, as Ctrl-C does, so that a training run closes its log; then kill.
_GUARD = """
import os, signal, subprocess, sys, threading, time
signal.signal(signal.SIGINT, signal.SIG_DFL)  # a server started in the background ignores it
command = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, process_group=0)

def end(number):
    try:
        os.killpg(command.pid, number)
    except ProcessLookupError:
        pass

def watch():
    os.read(0, 1)
    end(signal.SIGINT)
    time.sleep(float(sys.argv[1]))
    end(signal.SIGKILL)

threading.Thread(target=watch, daemon=True).start()
code = command.wait()
end(signal.SIGKILL)  # what it may have left behind
os._exit(code if code >= 0 else 128 - code)
"""
GRACE_SECONDS = 20.0


def _dvc(folder: Path, environment: Mapping[str, str], *arguments: str) -> _Ended:
    return _run([sys.executable, "-m", "dvc", "--wait-for-lock", *arguments], folder, environment)


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> _Ended:
    """Run a command, its output into the log; it dies with us, whatever ends us."""
    logger.info("%s", " ".join(command[2:]))
    process = subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(GRACE_SECONDS), *command],
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    seen: set[str] = set()
    tail: deque[str] = deque(maxlen=LAST_LINES)
    try:
        _follow(process.stdout, seen, tail)
    finally:
        process.stdin.close()
        _follow(process.stdout, seen, tail)  # what it says while it ends
        process.stdout.close()
        code = process.wait()
    return _Ended(code, frozenset(seen), "\n".join(tail))


def _follow(lines: Iterable[str], seen: set[str], tail: deque[str]) -> None:
    for line in lines:
        text = line.rstrip()
        if not text:
            continue
        logger.info("%s", text)
        tail.append(text)
        seen.update(name for name, phrase in _PHRASES.items() if phrase.search(text))
