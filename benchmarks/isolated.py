"""Times one way to tag in a separate process, `python -m benchmarks.isolated`.

Reads a Plan as JSON from standard input and writes an Outcome as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import psutil

from .clock import Clock

if TYPE_CHECKING:
    from shoetagger.inference.engine import Engine

Kind = Literal["nested_loops", "single_loop", "data_loader", "project"]
Precision = Literal["auto", "float32"]


@dataclass(frozen=True)
class Plan:
    """What to run: `pictures` is a folder, `bundles` are folders from `make_bundles`."""

    kind: Kind
    repo: str
    pictures: str
    bundles: tuple[str, ...]
    home: str  # an empty folder for databases
    precision: Precision = "auto"  # of the project's backbones
    runtime: str | None = None  # of `int8.RUNTIMES`, for a backbone that all bundles share
    quantised: str = ""  # the file that it opens


@dataclass(frozen=True)
class Outcome:
    """What a run took; seconds are for all its pictures.

    `wall_s` is from the first file to the last row, without `start_s`, the loading of the models,
    and `cpu_s` is what all processes spend of CPU in that time. `decode_s` is CPU time where other
    processes decode, which overlaps with the rest; `model_s` and `write_s` are wall time.
    """

    pictures: int
    wall_s: float
    cpu_s: float
    start_s: float
    decode_s: float
    model_s: float
    write_s: float
    gigaflops: float  # per picture; a multiply-add counts as two
    peak_mb: float = 0.0


def run(plan: Plan) -> Outcome:
    """Run a plan in a separate process; adds the peak memory of it and its children."""
    # The loops use torch's default for waiting threads; the project sets one wherever it runs.
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    if plan.kind == "project":
        environment["OMP_WAIT_POLICY"] = "PASSIVE"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.isolated"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=plan.repo,
    )
    peak = _Peak(process.pid)
    peak.start()
    out, _ = process.communicate(json.dumps(asdict(plan)))
    peak.stop()
    if process.returncode:
        raise RuntimeError(f"the run of {plan.kind} failed: see its output above")
    return Outcome(**{**json.loads(out), "peak_mb": peak.megabytes})


class _Peak(threading.Thread):
    """Samples the memory of a process and its children; shared memory counts once."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self.megabytes = 0.0

    def run(self) -> None:
        while not self._over.wait(0.25):
            try:
                family = [self._process, *self._process.children(recursive=True)]
            except psutil.NoSuchProcess:
                return
            total = sum(_proportional_kb(process.pid) for process in family)
            self.megabytes = max(self.megabytes, round(total / 1024))

    def stop(self) -> None:
        self._over.set()
        self.join()


def _proportional_kb(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))


def measure(plan: Plan) -> Outcome:
    """Run a plan in this process."""
    bundles = [Path(folder) for folder in plan.bundles]
    if plan.kind == "project":
        return _measure_project(plan, bundles)
    return _measure_loop(plan, bundles)


def _measure_loop(plan: Plan, bundles: Sequence[Path]) -> Outcome:
    import torch
    from torch import nn
    from torchvision.models import get_model

    from shoetagger.inference.bundle import load_bundle

    from . import baselines

    clock = Clock()
    with clock("start"):
        models: dict[str, nn.Module] = {}
        for folder in bundles:
            bundle = load_bundle(folder)
            model = get_model(bundle.arch, weights=None)
            model.fc = nn.Linear(model.fc.in_features, len(bundle.tags))
            models[bundle.group] = model.eval()
    paths = sorted(Path(plan.pictures).iterdir())
    rows = baselines.Rows(Path(plan.home) / "tags.db")
    with torch.inference_mode():
        first = baselines.load(paths[0])[None]
        flops = _flops(lambda: [model(first) for model in models.values()])
        before = _Used.until_now()
        getattr(baselines, plan.kind)(paths, models, rows, clock)
        used = _Used.until_now().since(before)
    # These loaded their models before the first picture.
    return _outcome(len(paths), used, clock.seconds["start"], clock, flops)


def _measure_project(plan: Plan, bundles: Sequence[Path]) -> Outcome:
    from shoetagger.inference.engine import Engine
    from shoetagger.store.store import Store

    from . import project

    flops = _flops_of_engine(Engine(bundles, "cpu"))
    clock = Clock()
    inbox = Path(plan.pictures)
    settings = project.installation(Path(plan.repo), Path(plan.home), inbox, bundles)
    with Store(settings.store_url) as store:
        run = project.start_run(store)
    before = _Used.until_now()
    project.tag_inbox(settings, run, clock, plan)
    start = _Used(clock.seconds["start"], clock.cpu["start"], 0.0)
    used = _Used.until_now().since(before).since(start)
    return _outcome(len(list(inbox.iterdir())), used, start.wall, clock, flops)


def _outcome(pictures: int, used: _Used, start_s: float, clock: Clock, flops: int) -> Outcome:
    parts = clock.seconds
    return Outcome(
        pictures=pictures,
        wall_s=used.wall,
        cpu_s=used.cpu + used.of_children,
        start_s=start_s,
        decode_s=parts["decode"] + used.of_children,
        model_s=parts["model"],
        write_s=parts["write"],
        gigaflops=flops / 1e9,
    )


class _Used(NamedTuple):
    """Seconds of wall time, and of the CPU of this process and of its children that have ended."""

    wall: float
    cpu: float
    of_children: float

    @classmethod
    def until_now(cls) -> _Used:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        ended = children.ru_utime + children.ru_stime
        return cls(time.perf_counter(), time.process_time(), ended)

    def since(self, other: _Used) -> _Used:
        return _Used(*(a - b for a, b in zip(self, other, strict=True)))


def _flops_of_engine(engine: Engine) -> int:
    import numpy as np

    views = {t: np.zeros((1, t.size, t.size, 3), np.uint8) for t in engine.transforms}
    return _flops(lambda: engine.score(views))


def _flops(once: Callable[[], object]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        once()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    print(json.dumps(asdict(measure(Plan(**json.load(sys.stdin))))))
