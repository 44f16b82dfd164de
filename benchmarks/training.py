"""What freezing saves while training: `python -m benchmarks.training --pictures FOLDER`.

Trains three groups as the stages `features` and `train` do, with random labels, alternately with
nothing frozen and frozen through layer3, and prints how long each takes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer

from shoetagger.config import params
from shoetagger.config.params import Params
from shoetagger.images.decode import Limits
from shoetagger.images.views import Transform
from shoetagger.learning.training import features
from shoetagger.learning.training.examples import Examples
from shoetagger.learning.training.fit import fit
from shoetagger.learning.training.images import ImageDataset
from shoetagger.network.digests import prefix_digests
from shoetagger.network.layers import POOLED
from shoetagger.network.weights import build

from .bundles import TAGS, imagenet_cached
from .pictures import PicturesOption, folder_of

REPO = Path(__file__).parents[1]
CPU = torch.device("cpu")


def main(
    pictures: PicturesOption = None,
    count: Annotated[int, typer.Option(help="Pictures to train with.")] = 64,
    epochs: Annotated[int, typer.Option(help="Epochs per group.")] = 12,
    rounds: Annotated[int, typer.Option(help="How often both run.")] = 3,
) -> None:
    """Print the seconds for three groups, and the median ratio of the two."""
    options = params.load(REPO / "params.yaml")
    weights = "imagenet" if imagenet_cached() else "none"
    options = replace(options, train=replace(options.train, epochs=epochs, weights=weights))
    with tempfile.TemporaryDirectory(prefix="shoetagger-training-") as temporary:
        folder = folder_of(pictures, Path(temporary) / "drawn", count)
        paths = sorted(folder.iterdir())[:count]
        ratios = []
        for number in range(1, rounds + 1):
            whole = seconds(options, paths, "none", Path(temporary) / f"none-{number}")
            frozen = seconds(options, paths, "layer3", Path(temporary) / f"layer3-{number}")
            ratios.append(whole / frozen)
            times = f"nothing frozen {whole:.1f} s, frozen through layer3 {frozen:.1f} s"
            print(f"round {number}: {times}", flush=True)
    print(f"{len(paths)} pictures, {epochs} epochs: {median(ratios):.2f} times as fast")


def seconds(options: Params, paths: Sequence[Path], freeze: str, folder: Path) -> float:
    """Return the seconds that the features and the training of three groups take."""
    recipe = replace(options.train, freeze=freeze)
    dataset = ImageDataset(
        paths,
        Transform(size=options.images.size),
        Limits.of(options.images),
        augment=options.images.augment,
        seed=recipe.seed,
    )
    views = options.features.views
    names, rows = [path.name for path in paths], np.arange(len(paths))
    rng = np.random.default_rng(0)
    started = time.perf_counter()
    model, _ = build(recipe.arch, 1, recipe.weights, POOLED, 0.0)
    prefix = prefix_digests(model.eval(), dataset.transform)[freeze] if freeze != "none" else None
    features.compute(
        model,
        dataset,
        names,
        freeze=freeze,
        views=views,
        max_gb=options.features.max_gb,
        prefix=prefix,
        directory=folder,
        device=CPU,
        on_batch=lambda *_: None,
    )
    for tags in TAGS:
        model, _ = build(recipe.arch, tags, recipe.weights, recipe.pooled, recipe.dropout)
        source = features.open_source(folder, model, dataset, names, freeze, CPU)
        truth = rng.random((len(paths), tags)) < 0.3
        fit(
            model,
            source,
            Examples(rows, truth.astype(np.int64)),
            None,
            recipe,
            device=CPU,
            on_epoch=lambda _: None,
        )
    return time.perf_counter() - started


if __name__ == "__main__":
    typer.run(main)
