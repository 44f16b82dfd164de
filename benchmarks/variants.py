"""The variants to compare, and a run over all of them in alternating rounds."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import typer

from shoetagger.config import params
from shoetagger.images.decode import Limits
from shoetagger.images.views import Transform
from shoetagger.inference.bundle import load_bundle

from . import int8, isolated
from .agreement import views_of
from .bundles import make_bundles
from .isolated import Outcome, Plan, Precision

GROUPS = (3, 10, 30)
_CALIBRATION = 64  # pictures from which the ranges of int8 are taken


@dataclass(frozen=True)
class Variant:
    """One way to tag, with a number of groups; `pictures` last for about ten seconds."""

    letter: str
    title: str
    kind: isolated.Kind
    freeze: str
    pictures: int
    groups: int = 3
    runtime: str | None = None  # of `int8.RUNTIMES`, if one runs the whole backbone in int8
    precision: Precision = "auto"

    @property
    def name(self) -> str:
        if self.runtime is not None or self.precision != "auto":
            return f"{self.letter} {self.runtime or self.precision}"
        return self.letter if self.groups == 3 else f"{self.letter}{self.groups}"

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that it needs and that are not installed here."""
        return () if self.runtime is None else int8.RUNTIMES[self.runtime].missing


VARIANTS = (
    Variant("a", "the article's two nested loops", "nested_loops", "none", 60),
    Variant("b", "the article's single loop", "single_loop", "none", 80),
    Variant("c", "a DataLoader, batches, three models", "data_loader", "none", 192),
    Variant("d", "this project, nothing frozen", "project", "none", 256),
    Variant("e", "this project, frozen through layer3", "project", "layer3", 640),
    Variant("f", "this project, whole backbone frozen", "project", "layer4", 1000),
    Variant("f", "the same in float32", "project", "layer4", 500, precision="float32"),
    *(
        Variant("f", f"the same in int8, by {found.title}", "project", "layer4", 1000, runtime=name)
        for name, found in int8.RUNTIMES.items()
    ),
    Variant("d", "this project, nothing frozen", "project", "none", 64, 10),
    Variant("e", "this project, frozen through layer3", "project", "layer3", 256, 10),
    Variant("f", "this project, whole backbone frozen", "project", "layer4", 1000, 10),
    Variant("d", "this project, nothing frozen", "project", "none", 32, 30),
    Variant("e", "this project, frozen through layer3", "project", "layer3", 128, 30),
    Variant("f", "this project, whole backbone frozen", "project", "layer4", 1000, 30),
)


def named(names: str | None) -> tuple[Variant, ...]:
    """Return the variants of some names, with commas between, and what these compare with.

    All of them for None.
    """
    if names is None:
        return VARIANTS
    wanted = {name.strip() for name in names.split(",")}
    wanted |= {name.partition(" ")[0] for name in wanted}
    if unknown := wanted - {variant.name for variant in VARIANTS}:
        known = ", ".join(variant.name for variant in VARIANTS)
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: the variants are {known}")
    return tuple(variant for variant in VARIANTS if variant.name in wanted)


def run(
    repo: Path,
    pictures: Sequence[Path],
    *,
    rounds: int,
    variants: Sequence[Variant] = VARIANTS,
    most: int | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, list[Outcome]]:
    """Return the outcomes per variant name, one per round.

    Each variant tags its number of pictures, at most `most`, the first of one random order. Within
    a round all variants run once, each in a separate process. Those whose packages are missing are
    left out. `say` gets a line per variant.
    """
    for variant in variants:
        if variant.missing:
            say(f"{variant.name} is left out: it needs {', '.join(variant.missing)}")
    variants = [variant for variant in variants if not variant.missing]
    options = params.load(repo / "params.yaml")
    transform = Transform.of(options.images)
    pooled = [options.train_of(group).pooled for group in options.groups]
    order = sorted(pictures)
    random.Random(0).shuffle(order)
    outcomes: dict[str, list[Outcome]] = {variant.name: [] for variant in variants}
    with tempfile.TemporaryDirectory(prefix="shoetagger-bench-") as temporary:
        root = Path(temporary)
        bundles = _make_all_bundles(root / "bundles", variants, pooled, transform)
        calibration = partial(
            views_of, order[:_CALIBRATION], [transform], Limits.of(options.images)
        )
        quantised = _quantise_all(root, variants, bundles, calibration)
        samples = {
            v.name: _sample(root / "pictures", order[: min(v.pictures, most or v.pictures)])
            for v in variants
        }
        for number in range(1, rounds + 1):
            for variant in variants:
                home = root / f"{variant.name}-{number}"
                home.mkdir()
                plan = Plan(
                    kind=variant.kind,
                    repo=str(repo),
                    pictures=str(samples[variant.name]),
                    bundles=tuple(str(b) for b in bundles[variant.freeze][: variant.groups]),
                    home=str(home),
                    precision=variant.precision,
                    runtime=variant.runtime,
                    quantised=str(quantised.get(variant.name, "")),
                )
                outcome = isolated.run(plan)
                outcomes[variant.name].append(outcome)
                shutil.rmtree(home)
                rate = outcome.pictures / outcome.wall_s
                cpu = 1000 * outcome.cpu_s / outcome.pictures
                say(
                    f"round {number} of {rounds}: {variant.name:13} {rate:7.1f} pictures per second"
                    f" {cpu:7.1f} ms of CPU per picture"
                )
    return outcomes


def _sample(parent: Path, pictures: Sequence[Path]) -> Path:
    """Copy pictures into a folder of that sample alone; an equal sample is copied once."""
    folder = parent / str(len(pictures))
    if not folder.exists():
        folder.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            shutil.copyfile(picture, folder / f"{number:05d}{picture.suffix}")
    return folder


def _quantise_all(
    parent: Path,
    variants: Sequence[Variant],
    bundles: Mapping[str, Sequence[Path]],
    views: Callable[[], Mapping[Transform, np.ndarray]],
) -> dict[str, Path]:
    """Return the file per variant that runs in int8, by the ranges that `views` show."""
    files: dict[str, Path] = {}
    for variant in variants:
        if variant.runtime is None:
            continue
        folders = bundles[variant.freeze][: variant.groups]
        pooled = int8.pooled_by([load_bundle(folder) for folder in folders])
        maps = int8.maps_of(int8.layers_of(folders[0]), pooled)
        ((transform, shown),) = views().items()
        files[variant.name] = parent / f"{variant.runtime}.int8"
        runtime = int8.RUNTIMES[variant.runtime]
        runtime.quantise(maps, int8.batches_of(shown, transform), files[variant.name])
    return files


def _make_all_bundles(
    parent: Path,
    variants: Sequence[Variant],
    pooled: Sequence[tuple[str, ...]],
    transform: Transform,
) -> dict[str, list[Path]]:
    """Return per `freeze` the bundles of the variant with the most groups."""
    most: dict[str, int] = {}
    for variant in variants:
        most[variant.freeze] = max(variant.groups, most.get(variant.freeze, 0))
    return {
        freeze: make_bundles(parent / freeze, groups, freeze, pooled, transform)
        for freeze, groups in most.items()
    }
