"""DVC stages run in a checkout."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from ..config.settings import Settings
from .checkout import checkout, checkout_lock
from .dvc_files import outputs
from .plan import Plan
from .process import PipelineError, TransientPipelineError, run_dvc, stage_environment

logger = logging.getLogger(__name__)


Outcome = Literal["ran", "restored", "unchanged"]


@contextlib.contextmanager
def materialised(settings: Settings, plan: Plan, stage: str) -> Iterator[Path]:
    """Hold the plan's checkout, safe from pruning, with the outputs of a stage in it.

    Where this worker's checkout lacks them, the stage is run, which mostly means restored.
    """
    while True:
        folder = checkout(settings, plan)
        if not all(path.exists() for path in outputs(folder, stage).values()):
            run_stage(settings, plan, stage)
        with checkout_lock(folder, fcntl.LOCK_SH):
            if folder.is_dir():  # not pruned between the lines above
                yield folder
                return


# --- stages -------------------------------------------------------------------------------------
def run_stage(settings: Settings, plan: Plan, stage: str, *, patience: float = 1800.0) -> Outcome:
    """Bring one stage of dvc.yaml up to date in the plan's checkout, with that commit's code.

    What it rests on is restored first where this machine's checkout lacks it. Output goes to the
    log. Waits up to `patience` seconds for a stage that is at work on the same files. Raises
    PipelineError with the last lines of a stage that failed.
    """
    while True:
        folder = checkout(settings, plan)
        with checkout_lock(folder, fcntl.LOCK_SH):
            if not folder.is_dir():  # pruned between the two lines above
                continue
            environment = stage_environment(settings, folder)
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
        run = run_dvc(folder, environment, "repro", "--single-item", stage)
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
            raise (TransientPipelineError if passing else PipelineError)(
                f"{where} failed:\n{run.tail}"
            )
        if time.monotonic() + pause > deadline:
            raise TransientPipelineError(f"{where} was kept busy for {patience:.0f} s:\n{run.tail}")
        logger.info("%s: another process works on its files; again in %.0f s", stage, pause)
        time.sleep(pause)
        pause = min(pause * 2, 30.0)
    return "unchanged"


_OUTCOMES: Mapping[Outcome, str] = {
    "ran": "ran",
    "restored": "restored from the DVC cache: its code did not run and logged nothing",
    "unchanged": "unchanged: its results are there already",
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
