"""The whole job on the sample shoes: train, register, promote, tag new pictures, show the tags.

Over the same doors that people use: DVC, Airflow's REST API, the store's current tags. Running it
again is quick: DVC restores what was computed, and pictures that were tagged stay tagged.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..config import params as parameters
from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..ops.environment import Ports, Say, airflow_environment
from ..ops.servers import up
from .airflow_api import Airflow, DemoError, clock

TRAINING = "train_tag_models"
TAGGING = "tag_new_images"
ARRIVALS = 24
SEED = 7

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


def main() -> int:
    """Run the demo; returns the exit status."""
    say = _print
    try:
        settings = Settings.from_environment()
        demo(settings, Ports.from_environment(), say)
    except ShoetaggerError as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; `make demo` goes on from here, `make down` stops the servers")
        return 130
    return 0


def demo(settings: Settings, ports: Ports, say: Say) -> None:
    """Do the whole job and show the result; raises DemoError that names the step that failed.

    Another demo at work in the same state is left alone, and said to be there.
    """
    with _alone(settings):
        _demo(settings, ports, say)


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the demo's lock, which the kernel releases when this process dies, however it does."""
    settings.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(settings.home / ".demo.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise DemoError(
            f"another `make demo` is at work in {settings.home}: let it end, or give this one "
            "a state and ports of its own (SHOETAGGER_HOME, AIRFLOW_PORT, MLFLOW_PORT)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _demo(settings: Settings, ports: Ports, say: Say) -> None:
    steps = _Steps(6, say)
    with steps("sample data: 220 drawn shoes and their label sheet, from DVC"):
        _refuse_another_inbox(settings)
        pull_data(settings)
    with steps("servers: Airflow and MLflow"), ThreadPoolExecutor(max_workers=1) as executor:
        # Starting them leaves a core idle now and then: the arrivals are drawn meanwhile.
        drawn = executor.submit(_drawn, settings)
        ports = up(settings, ports, lambda text: say(textwrap.indent(text, "      ")))
        drawn.result()
    airflow = Airflow(settings, ports)
    groups = parameters.load(settings.params_file).groups
    with steps(f"training: one small model a group ({', '.join(groups)})"):
        say("      a quick recipe for the demo, from random weights and small pictures:")
        say(f"      {' '.join(QUICK)}")
        run = airflow.trigger(TRAINING, {"overrides": list(QUICK)})
        airflow.follow(TRAINING, run, say)
    with steps(f"new pictures arrive in {settings.inbox}"):
        arrived = let_arrive(settings)
        say(f"      {arrived} of {len(_drawn(settings))} files are new there")
    with steps("tagging: what is new in the inbox"):
        run = airflow.trigger(TAGGING, {})
        airflow.follow(TAGGING, run, say)
    with steps("result"):
        say(report(settings, list(groups)))
    say(
        f"\nPages    {(settings.published / 'pages' / 'index.html').as_uri()}\n"
        f"Airflow  {ports.airflow_url}   (`make login` shows the password)\n"
        f"MLflow   {airflow_environment(settings, ports)['MLFLOW_TRACKING_URI']}\n"
        "The servers run on: `make down` stops them."
    )


class _Steps:
    """Numbered headings; a failure inside a step names it."""

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say, self._number = total, say, 0

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        self._number += 1
        name = f"[{self._number}/{self._total}] {title}"
        self._say(name)
        begun = time.monotonic()
        try:
            yield
        except ShoetaggerError as error:
            raise DemoError(f"{name} failed\n{error}") from error
        self._say(f"      done after {clock(time.monotonic() - begun)}")


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


def _refuse_another_inbox(settings: Settings) -> None:
    if not settings.inbox.is_relative_to(settings.home):
        raise DemoError(
            f"the demo puts drawn pictures into the inbox, and SHOETAGGER_INBOX names one of your "
            f"own, {settings.inbox}: unset it for the demo"
        )


def let_arrive(settings: Settings) -> int:
    """Put the drawn pictures and a few broken files into the inbox; returns how many were new.

    Each appears there whole, and one that is there already is not touched.
    """
    settings.inbox.mkdir(parents=True, exist_ok=True)
    arrived = 0
    for source in _drawn(settings):
        target = settings.inbox / source.name
        if not target.exists():
            beside = settings.home / "demo" / f".{os.getpid()}-{source.name}"
            shutil.copy2(source, beside)
            beside.replace(target)
            arrived += 1
    return arrived


def _drawn(settings: Settings) -> list[Path]:
    """Return the pictures that arrive, which are drawn once."""
    folder = settings.home / "demo" / f"arrivals-{SEED}-{ARRIVALS}"
    if not folder.is_dir():
        from .sample import write_arrivals

        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".drawing-") as beside:
            write_arrivals(Path(beside) / "all", ARRIVALS, SEED, with_bad=True)
            if not folder.is_dir():
                (Path(beside) / "all").rename(folder)
    return sorted(folder.iterdir())


def report(settings: Settings, groups: Sequence[str]) -> str:
    """Return the current tags of the arrivals, what was rejected and why, and by which versions.

    Raises DemoError where one of them is neither tagged nor rejected.
    """
    from ..ingest import inbox
    from ..store.store import Store

    names = {path.name for path in _drawn(settings)}
    store = Store(settings.store_url)
    try:
        rows = [["picture", *groups]]
        versions: set[str] = set()
        for row in store.current.rows(groups):
            for locator in row.locators:
                name = inbox.path_of(locator).name
                if name not in names:
                    continue
                said = [", ".join(row.groups[g].tags) if g in row.groups else "-" for g in groups]
                rows.append([name, *said])
                versions |= {f"{group} v{tags.version}" for group, tags in row.groups.items()}
        rejected = {inbox.path_of(row.locator).name: row.reason for row in store.files.rejected()}
    finally:
        store.close()
    if left := names - rejected.keys() - {row[0] for row in rows}:
        raise DemoError(f"neither tagged nor rejected: {', '.join(sorted(left))}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "      " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(
        [
            *(line.rstrip() for line in table),
            f"      {len(rows) - 1} pictures tagged by {', '.join(sorted(versions))}",
            f"      {len(rejected)} files rejected:",
            *(f"      {name}: {reason}" for name, reason in rejected.items()),
        ]
    )


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
