"""Compare the frozen backbone in bfloat16 with the same quantised to int8: speed and macro F1.

    python -m experiments.quantised

Backbone, heads and pictures are those of params.yaml and data/. Speed is that of a prefix as the
engine runs it, from pictures in their squares to what heads see, in rounds that take turns. Macro
F1 is out of fold, with heads fitted to what each of them shows. Prints a row of a Markdown table
each. int8 is by each of the runtimes of `benchmarks.int8` that are installed; torch's needs no
more than the lock. `make bench` measures the whole way from JPEG to rows with them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from benchmarks.int8 import AT_ONCE, RUNTIMES, Backbone, Maps, Network, batches_of, maps_of
from torch import Tensor

from shoetagger.images.views import Transform
from shoetagger.learning.training.examples import Examples
from shoetagger.learning.training.images import transform_of
from shoetagger.network.backbone import State, begin, pooled_of
from shoetagger.network.devices import cores
from shoetagger.network.weights import build
from shoetagger.stages.command import progress, run

from .crossvalidate import FOLDS, folds_of, task_of
from .markdown import head, line, number, with_interval
from .scoring import Rule, Scored, differences, metrics
from .trainers import Recipe, Task, fit_and_score

_CPU = torch.device("cpu")
_CALIBRATION = 64  # pictures from which the ranges of int8 are taken
_TIMED = 128  # pictures per round

REFERENCE = "bfloat16"


def in_bfloat16(maps: Maps) -> Network:
    """Return a network as the engine runs it."""
    half = maps.to(torch.bfloat16).to(memory_format=torch.channels_last)
    return lambda x: half(x.bfloat16())


@dataclass(frozen=True)
class Prefix:
    """A frozen backbone, with the transform before it."""

    backbone: Backbone
    transform: Transform

    @torch.inference_mode()
    def seen(self, views: np.ndarray) -> Mapping[str, Tensor]:
        """Return what heads see, (B, values) float32 by name, of pictures (B, S, S, 3) uint8."""
        state = begin(torch.from_numpy(views), self.transform, self.backbone.pooled)
        return self.backbone.run(state).pooled


class _Speed(NamedTuple):
    """What one round measured."""

    rate: float  # pictures per second
    cpu_ms: float  # per picture


def main(
    seeds: Annotated[str, typer.Option(help="seeds of the folds")] = "1,2,3",
    views: Annotated[int, typer.Option(help="augmented views per picture")] = 4,
    rounds: Annotated[int, typer.Option(help="how often each is timed")] = 9,
) -> None:
    """Print speed and macro F1 of each."""
    # Heads are fitted where prefixes run, also on a machine with a GPU.
    task = replace(task_of(Recipe("project", params={"features.views": views})), device=_CPU)
    ways = [REFERENCE, *(name for name, runtime in RUNTIMES.items() if not runtime.missing)]
    prefixes, starts = {}, {}
    for name in ways:
        prefixes[name], starts[name] = _started(task, name)
    _tell_speed(prefixes, _plain(task, _TIMED), rounds)
    typer.echo()
    names = "start-up s", "macro F1 [95 %]", "average precision", "difference of macro F1"
    typer.echo(head("", *names))
    numbers = [int(seed) for seed in seeds.split(",")]
    scored: dict[str, list[Scored]] = {}
    for name, prefix in prefixes.items():
        scored[name] = _cross_validate(task, prefix, numbers, name)
        typer.echo(line(name, f"{starts[name]:.2f}", *_quality(task, scored, name)))


def _tell_speed(prefixes: Mapping[str, Prefix], shown: np.ndarray, rounds: int) -> None:
    """Print how fast prefixes are: medians of the rounds, ratios within a round."""
    typer.echo(head("", "pictures per second", "ratio", "ms of CPU per picture"))
    for threads in sorted({1, torch.get_num_threads()}):
        found = _alternate(prefixes, shown, threads, rounds)
        for name, measured in found.items():
            pairs = zip(measured, found[REFERENCE], strict=True)
            ratio = statistics.median(one.rate / other.rate for one, other in pairs)
            rate = statistics.median(one.rate for one in measured)
            cpu = statistics.median(one.cpu_ms for one in measured)
            cells = f"{rate:.1f}", f"{ratio:.2f}", f"{cpu:.1f}"
            typer.echo(line(f"{name}, {threads} at a time", *cells))


def wanted_by(task: Task) -> tuple[str, ...]:
    """Return all that the heads of a task see, each name once."""
    groups = task.params.groups
    return tuple(dict.fromkeys(p for group in groups for p in task.params.train_of(group).pooled))


def _started(task: Task, name: str) -> tuple[Prefix, float]:
    """Return a prefix, and the seconds from its file to the first batch done.

    A runtime's file is made before, by the ranges that the first pictures show.
    """
    train, pooled, transform = task.params.train, wanted_by(task), transform_of(task.params)
    seen, size = pooled_of(train.arch), task.params.images.size
    model, _ = build(train.arch, 1, train.weights, seen, dropout=0.0, size=size)
    layers = tuple(model.eval().layer(layer) for layer in model.layers)
    shown = _plain(task, _CALIBRATION)
    batches = batches_of(shown, transform)
    with tempfile.TemporaryDirectory(prefix="shoetagger-int8-") as folder:
        file = Path(folder) / name
        if name != REFERENCE:
            RUNTIMES[name].quantise(maps_of(layers, pooled), batches, file)
        started = time.perf_counter()
        maps = maps_of(layers, pooled)
        if name == REFERENCE:
            network = in_bfloat16(maps)
        else:
            network = RUNTIMES[name].open(file, maps, batches[0], torch.get_num_threads())
        prefix = Prefix(Backbone(network, layers, pooled), transform)
        prefix.seen(shown[:AT_ONCE])
        return prefix, time.perf_counter() - started


def _plain(task: Task, count: int) -> np.ndarray:
    """Return the tagging views (count, S, S, 3) uint8 of the first pictures."""
    dataset = task.dataset(task.params.images.augment)
    return np.stack([dataset.plain(row) for row in range(min(count, len(dataset)))])


def _alternate(
    prefixes: Mapping[str, Prefix], shown: np.ndarray, threads: int, rounds: int
) -> Mapping[str, Sequence[_Speed]]:
    """Time prefixes in turn, on so many cores, each of which runs its own pictures."""
    found = defaultdict[str, list[_Speed]](list)
    before = torch.get_num_threads()
    with cores(threads, "timed") as pool:
        for number in range(rounds + 1):
            for name, prefix in prefixes.items():
                measured = _time(prefix, shown, pool)
                if number:  # the first round makes what later ones find
                    found[name].append(measured)
    torch.set_num_threads(before)
    return found


def _time(prefix: Prefix, shown: np.ndarray, pool: ThreadPoolExecutor) -> _Speed:
    parts = [shown[start : start + AT_ONCE] for start in range(0, len(shown), AT_ONCE)]
    wall, cpu = time.perf_counter(), time.process_time()
    list(pool.map(prefix.seen, parts))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return _Speed(len(shown) / wall, 1000 * cpu / len(shown))


@dataclass(frozen=True)
class _Seen:
    """What heads see of all views of all pictures, as a Source: the plain view is the last."""

    views: int
    planes: Mapping[str, Tensor]  # (views + 1, N, values) float16, by name

    def augmented(self, rows: np.ndarray, epoch: int) -> State:
        return self._state((rows + epoch) % self.views, rows)

    def plain(self, rows: np.ndarray) -> State:
        return self._state(np.full(len(rows), self.views), rows)

    def _state(self, views: np.ndarray, rows: np.ndarray) -> State:
        pooled = {name: plane[views, rows].float() for name, plane in self.planes.items()}
        return State(torch.empty(len(rows), 0), pooled)


def _seen(task: Task, prefix: Prefix) -> _Seen:
    """Run a prefix on all views of all pictures."""
    dataset, views = task.dataset(task.params.images.augment), task.params.features.views

    def of(row: int) -> Mapping[str, Tensor]:
        return prefix.seen(np.stack([*dataset.views(row, range(views)), dataset.plain(row)]))

    with cores(torch.get_num_threads(), "views") as pool:
        rows = list(pool.map(of, range(len(dataset))))
    names = prefix.backbone.pooled
    return _Seen(views, {n: torch.stack([row[n] for row in rows], dim=1).half() for n in names})


def _cross_validate(task: Task, prefix: Prefix, seeds: Sequence[int], name: str) -> list[Scored]:
    """Score all pictures out of fold, by heads fitted to what a prefix shows."""
    source, scored = _seen(task, prefix), []
    with progress(len(seeds) * FOLDS, name) as bar:
        for seed in seeds:
            of = folds_of(task, seed)
            found = np.empty(task.truth.shape)
            for number in range(FOLDS):
                held, learned = np.flatnonzero(of == number), np.flatnonzero(of != number)
                found[held] = _score(task, source, learned, held)
                bar.update()
            scored.append(Scored(of, found, {}))
    return scored


def _score(task: Task, source: _Seen, learned: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Fit a head per group to some pictures; return the scores (held, tags) of others."""
    parts = [
        fit_and_score(task, group, source, Examples(learned, task.truth[learned, columns]), held)
        for group, columns in task.columns.items()
    ]
    return np.concatenate(parts, axis=1)


def _quality(task: Task, scored: Mapping[str, list[Scored]], name: str) -> tuple[str, ...]:
    params = task.params
    groups = {group: spec.tags for group, spec in params.groups.items()}
    rule = Rule(groups, params.evaluate.min_positives, params.evaluate.shrink)
    found = metrics(rule, task.truth, scored[name])
    gain = differences(rule, task.truth, scored[name], scored[REFERENCE])["scores"]
    low, high = gain["macro_f1_interval"]
    difference = f"{gain['macro_f1']:+.4f} [{low:+.4f}, {high:+.4f}]"
    return with_interval(found), number(found["mean_average_precision"]), difference


if __name__ == "__main__":
    run(main)
