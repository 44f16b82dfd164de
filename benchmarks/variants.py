"""The variants to compare, and a run over all of them in alternating rounds."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shoetagger.config import params
from shoetagger.images.views import Transform

from . import isolated
from .bundles import make_bundles
from .isolated import Outcome, Plan

GROUPS = (3, 10, 30)


@dataclass(frozen=True)
class Variant:
    """One way to tag, with a number of groups; `pictures` last for about ten seconds."""

    letter: str
    title: str
    kind: isolated.Kind
    freeze: str
    pictures: int
    groups: int = 3

    @property
    def name(self) -> str:
        return self.letter if self.groups == 3 else f"{self.letter}{self.groups}"


VARIANTS = (
    Variant("a", "the article's two nested loops", "nested_loops", "none", 60),
    Variant("b", "the article's single loop", "single_loop", "none", 80),
    Variant("c", "a DataLoader, batches, three models", "data_loader", "none", 192),
    Variant("d", "this project, nothing frozen", "project", "none", 256),
    Variant("e", "this project, frozen through layer3", "project", "layer3", 640),
    Variant("f", "this project, whole backbone frozen", "project", "layer4", 1000),
    Variant("d", "this project, nothing frozen", "project", "none", 64, 10),
    Variant("e", "this project, frozen through layer3", "project", "layer3", 256, 10),
    Variant("f", "this project, whole backbone frozen", "project", "layer4", 1000, 10),
    Variant("d", "this project, nothing frozen", "project", "none", 32, 30),
    Variant("e", "this project, frozen through layer3", "project", "layer3", 128, 30),
    Variant("f", "this project, whole backbone frozen", "project", "layer4", 1000, 30),
)


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
    a round all variants run once, each in a separate process. `say` gets a line per variant.
    """
    options = params.load(repo / "params.yaml")
    transform = Transform.of(options.images)
    pooled = [options.train_of(group).pooled for group in options.groups]
    order = sorted(pictures)
    random.Random(0).shuffle(order)
    outcomes: dict[str, list[Outcome]] = {variant.name: [] for variant in variants}
    with tempfile.TemporaryDirectory(prefix="shoetagger-bench-") as temporary:
        root = Path(temporary)
        bundles = _make_all_bundles(root / "bundles", variants, pooled, transform)
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
                )
                outcome = isolated.run(plan)
                outcomes[variant.name].append(outcome)
                shutil.rmtree(home)
                rate = outcome.pictures / outcome.wall_s
                say(f"round {number} of {rounds}: {variant.name:4} {rate:7.1f} pictures per second")
    return outcomes


def _sample(parent: Path, pictures: Sequence[Path]) -> Path:
    """Copy pictures into a folder of that sample alone; an equal sample is copied once."""
    folder = parent / str(len(pictures))
    if not folder.exists():
        folder.mkdir(parents=True)
        for number, picture in enumerate(pictures):
            shutil.copyfile(picture, folder / f"{number:05d}{picture.suffix}")
    return folder


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
