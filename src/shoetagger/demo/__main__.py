"""The whole job on the sample shoes: train, register, promote, tag new pictures, show the tags.

It uses what people use: DVC, Airflow's REST API, the store's current tags. Running it again is
quick: DVC restores what was computed, and pictures that were tagged stay tagged.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..config import params as parameters
from ..config.places import root
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..ops.environment import Ports, Report, log_file, mlflow_address
from ..ops.servers import up
from ..pipeline.dvc_files import data_revision
from .airflow_api import Airflow, DemoError, FailedRunError, clock
from .arrivals import drawn, let_arrive, untagged
from .result import result

SAMPLE = "f2d0114b229852b9db2a838825c1c9a0.dir"  # what data.dvc says while data/ is the drawn shoes
TRAINING = "train_tag_models"
TAGGING = "tag_new_images"
TAGGING_BEGINS = 120.0  # seconds for Airflow to start a run for a promotion

# Random weights, small pictures, few epochs: enough to learn the sample's drawn shoes in minutes
# without downloading anything. What real pictures need is in params.yaml.
QUICK = (
    "train.freeze=none",
    "train.weights=none",
    "train.epochs=10",
    "train.batch_size=16",
    "train.head_lr=0.002",
    "train.backbone_lr=0.002",
    "train.positive_weight=3.0",
    "train.ema=0.0",
    "images.size=64",
    "images.augment.background=0.0",
    "split.folds=0",
    "evaluate.bootstrap=200",
)

_WOKEN_BY = {
    "asset_triggered": "woken by a promotion",
    "scheduled": "woken by its schedule",
    "manual": "triggered, as files still wait",
}


def main() -> int:
    """Run the demo; returns the exit status."""
    try:
        settings = Settings.from_environment()
        demo(settings, Ports.from_environment(), _print)
    except ShoetaggerError as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; `make demo` goes on from here, `make down` stops the servers")
        return 130
    return 0


def demo(settings: Settings, ports: Ports, report: Report) -> None:
    """Run every step and show the result.

    Raises DemoError that names the step that failed, or another demo that is running here.
    """
    with _alone(settings):
        _demo(settings, ports, report)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Keep other demos out of this home; the kernel releases the lock when this process dies."""
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.home / ".demo.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise DemoError(
            f"another `make demo` is running in {settings.home}: let it end, or give this one "
            "another state and other ports (SHOETAGGER_HOME, AIRFLOW_PORT, MLFLOW_PORT)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _demo(settings: Settings, ports: Ports, report: Report) -> None:
    steps = _Steps(6, report)
    with steps("sample data: 220 drawn shoes and their label sheet, from DVC"):
        _refuse_own_data(settings)
        _refuse_foreign_inbox(settings)
        pull_data(settings)
    with steps("servers: Airflow and MLflow"), ThreadPoolExecutor(max_workers=1) as executor:
        # Starting them leaves a core idle now and then, which draws the arrivals.
        drawing = executor.submit(drawn, settings)
        ports = up(settings, ports, lambda text: report(textwrap.indent(text, "      ")))
        drawing.result()
    airflow = Airflow(settings, ports)
    groups = parameters.load(settings.params_file).groups
    # Before training: the first promotion wakes the tagging DAG, which then finds them.
    with steps(f"new pictures arrive in {settings.inbox}"):
        report(f"      {let_arrive(settings)} of {len(drawn(settings))} files are new there")
    with steps(f"training: one small model per group ({', '.join(groups)})"):
        report("      a quick recipe for the demo, from random weights and small pictures:")
        report(f"      {' '.join(QUICK)}")
        airflow.activate(TAGGING)
        earlier = airflow.runs(TAGGING).keys()
        run = airflow.trigger(TRAINING, {"overrides": list(QUICK)})
        airflow.follow(TRAINING, run, report)
    with steps("tagging: what is new in the inbox"):
        follow_tagging(airflow, settings, list(groups), earlier, report)
    with steps("result"):
        report(result(settings, {name: group.tags for name, group in groups.items()}))
    report(
        f"\nPages    {root(settings.published)}pages/index.html\n"
        f"Airflow  {ports.airflow_url}   (`make login` shows the passwords)\n"
        f"MLflow   {mlflow_address(settings, ports)}\n"
        "The servers run on: `make down` stops them."
    )


def follow_tagging(
    airflow: Airflow,
    settings: Settings,
    groups: Sequence[str],
    earlier: Collection[str],
    report: Report,
) -> None:
    """Follow every tagging run that is not among `earlier`, until none is left to come.

    Promotions start runs by themselves. One is triggered only where none runs or is queued and
    arrivals still wait. Raises DemoError where Airflow starts no run for a promotion, and
    FailedRunError where a run fails and none after it succeeds.
    """
    followed = set(earlier)
    triggered = False
    failure: FailedRunError | None = None
    waiting_since = time.monotonic()
    while True:
        # In this order: a promotion that is no longer queued already has its run.
        is_queued = airflow.is_queued(TAGGING)
        runs = {run: kind for run, kind in airflow.runs(TAGGING).items() if run not in followed}
        for run, kind in runs.items():
            failure = _follow_run(airflow, run, kind, report)
        followed |= runs.keys()
        if runs:
            waiting_since = time.monotonic()
        elif is_queued:
            if time.monotonic() - waiting_since > TAGGING_BEGINS:
                raise DemoError(
                    f"a promotion should have started {TAGGING}, and has not after "
                    f"{TAGGING_BEGINS:.0f} s; see {log_file(settings, 'scheduler')}"
                )
            time.sleep(1)
        elif untagged(settings, groups) and not triggered:
            airflow.trigger(TAGGING, {})
            triggered = True
        elif failure is not None:
            raise failure
        else:
            if followed == set(earlier):
                report("      nothing to do: every arrival is tagged or rejected already")
            return


def _follow_run(airflow: Airflow, run: str, kind: str, report: Report) -> FailedRunError | None:
    """Follow one run to its end; return the failure of a scheduled one, raise that of others.

    The schedule may come before anything is live: the next run then makes up for it.
    """
    report(f"      {_WOKEN_BY.get(kind, kind)}: {run}")
    try:
        airflow.follow(TAGGING, run, report)
        if (done := airflow.result(TAGGING, run, "finish")) is not None:
            report(f"      this run: {done['summary']}")
    except FailedRunError as error:
        if kind != "scheduled":
            raise
        report(textwrap.indent(str(error), "      "))
        return error
    return None


class _Steps:
    """Numbered headings; a failure inside a step names it."""

    def __init__(self, total: int, report: Report) -> None:
        self._total, self._report, self._number = total, report, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        self._number += 1
        name = f"[{self._number}/{self._total}] {title}"
        self._report(name)
        begun = time.monotonic()
        try:
            yield
        except ShoetaggerError as error:
            raise DemoError(f"{name} failed\n{error}") from error
        self._report(f"      done after {clock(time.monotonic() - begun)}")


def pull_data(settings: Settings) -> None:
    """Restore data/ as data.dvc names it; raises DemoError with what DVC says."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "pull", "--quiet", "data.dvc"],
        cwd=settings.repo,
        env=os.environ | {"DVC_NO_ANALYTICS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(f"`dvc pull data.dvc` in {settings.repo}:\n{done.stderr.strip()}")


def _refuse_own_data(settings: Settings) -> None:
    if data_revision(settings.repo) != SAMPLE:
        raise DemoError(
            f"{settings.repo} has data of its own, by data.dvc, and the demo would put drawn shoes "
            f"beside it and promote quick models: `make up`, then trigger {TRAINING} instead"
        )


def _refuse_foreign_inbox(settings: Settings) -> None:
    inbox = settings.inbox
    if not isinstance(inbox, Path) or not inbox.is_relative_to(settings.home):
        raise DemoError(
            f"the demo puts drawn pictures into the inbox, and SHOETAGGER_INBOX names one of your "
            f"own, {inbox}: unset it for the demo"
        )


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
