"""DVC stages run in a checkout."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tenacity import Retrying, retry_if_exception_type, stop_before_delay, wait_exponential

from ..config.settings import Settings
from . import checkout_lock, sharing
from .checkout import checkout
from .dvc_files import outputs, own_folder, upstream
from .plan import Plan
from .process import PipelineError, TransientPipelineError, run_dvc, stage_environment

logger = logging.getLogger(__name__)


Outcome = Literal["ran", "restored", "unchanged"]


@contextlib.contextmanager
def materialised(settings: Settings, plan: Plan, stage: str) -> Iterator[Path]:
    """Yield the plan's checkout, locked against pruning, with the outputs of a stage in it.

    Where this worker's checkout lacks them, the stage is run, which mostly means restored. One that
    was killed may have left a folder with nothing, or not all, in it.
    """
    while True:
        folder = checkout(settings, plan)
        made = outputs(folder, stage).values()
        if not (_done(folder, stage).exists() and all(path.exists() for path in made)):
            run_stage(settings, plan, stage)
        with checkout_lock.shared(folder):
            if folder.is_dir():  # not pruned between the lines above
                yield folder
                return


def run_stage(
    settings: Settings, plan: Plan, stage: str, *, patience: float = 1800.0, dag_run: str = ""
) -> Outcome:
    """Bring one stage of dvc.yaml up to date in the plan's checkout, with that commit's code.

    The stages that it depends on are restored first where this machine's checkout lacks them.
    Through DVC's remote, if there is one, a worker restores what another has computed. Output goes
    to the log. Waits up to `patience` seconds while another process works on the same files.
    `dag_run` is the address of a DAG run's page, which the stage's MLflow run names. Raises
    PipelineError with the last lines of a stage that failed.
    """
    while True:
        folder = checkout(settings, plan)
        cache = checkout_lock.cache(settings.checkouts)
        with checkout_lock.shared(cache), checkout_lock.shared(folder):
            if not folder.is_dir():  # pruned between the two lines above
                continue
            run = _Run(
                folder,
                stage_environment(settings, folder) | {"SHOETAGGER_DAG_RUN": dag_run},
                patience,
                shared=settings.share_results and sharing.shared_remote(settings.repo) is not None,
            )
            for other in _upstream(folder, stage):
                if not _done(folder, other).exists():
                    logger.info("%s depends on %s, which this machine lacks", stage, other)
                    _repro(run, other, again=False)
            return _repro(run, stage, again=True)


@dataclass(frozen=True)
class _Run:
    """What the stages run in: a checkout, variables, seconds to wait for others, a remote."""

    folder: Path
    environment: Mapping[str, str]
    patience: float
    shared: bool  # whether results go to DVC's remote, and come from there


def _done(folder: Path, stage: str) -> Path:
    """Return the file that marks a stage as brought up to date in a checkout."""
    return own_folder(folder) / stage


class _BusyError(TransientPipelineError):
    """Another process works on the files of the stage."""


def _repro(run: _Run, stage: str, *, again: bool) -> Outcome:
    """Run a stage, and wait for other processes as long as the run has patience.

    Unless `again`, nothing is run once the stage is marked as done, by whichever process.
    """
    for attempt in Retrying(
        retry=retry_if_exception_type(_BusyError),
        wait=wait_exponential(multiplier=1, max=30),
        stop=stop_before_delay(run.patience),
        before_sleep=lambda state: logger.info(
            "%s: another process works on its files; next try in %.0f s",
            *(stage, state.upcoming_sleep),
        ),
        reraise=True,
    ):
        with attempt:
            done = _done(run.folder, stage)
            if not again and done.exists():
                break
            if run.shared and not done.exists():
                sharing.fetch(run.folder, stage, done.with_name(f"{stage}.lock"))
            outcome = _repro_once(run, stage)
            if run.shared:
                sharing.push(run.folder, stage)
            return outcome
    return "unchanged"


def _repro_once(run: _Run, stage: str) -> Outcome:
    result = run_dvc(run.folder, run.environment, "repro", "--single-item", stage)
    if result.code == 0:
        outcome = _outcome(result.seen)
        logger.info("%s: %s", stage, _OUTCOMES[outcome])
        _done(run.folder, stage).parent.mkdir(parents=True, exist_ok=True)
        _done(run.folder, stage).touch()
        return outcome
    place = f"stage {stage} of checkout {run.folder.name}"
    if "busy" in result.seen and "ran" not in result.seen:
        raise _BusyError(f"{place} was kept busy for {run.patience:.0f} s:\n{result.tail}")
    # What a signal ended (out of memory, a machine going down) may succeed later.
    transient = 128 < result.code < 192 or not result.seen.isdisjoint(("killed", "busy"))
    error = TransientPipelineError if transient else PipelineError
    raise error(f"{place} failed:\n{result.tail}")


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
    try:
        return upstream(folder, stage)
    except PipelineError:
        return []  # dvc.yaml is broken: `dvc repro` reports it better
