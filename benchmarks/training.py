"""How long training takes, and what freezing saves: `python -m benchmarks.training`.

Trains three groups in alternating rounds, with nothing frozen and with the backbone frozen through
layer3, and prints how long each takes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
from shoetagger.learning.training import feature_files, features
from shoetagger.learning.training.examples import Examples
from shoetagger.learning.training.fit import fit
from shoetagger.learning.training.images import ImageDataset
from shoetagger.network.backbone import TagModel, pooled_of
from shoetagger.network.digests import prefix_digests
from shoetagger.network.weights import build

from .bundles import imagenet_cached
from .clock import Clock
from .machine import wait_for
from .pictures import PicturesOption, folder_of

REPO = Path(__file__).parents[1]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trained:
    """Models by group, and the seconds they took: of the features, drawing views is a part."""

    models: Mapping[str, TagModel]
    drawing_s: float
    features_s: float
    fits_s: float

    @property
    def seconds(self) -> float:
        return self.features_s + self.fits_s


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
        truths = drawn_truths(options, len(paths))
        ratios = []
        for number in range(1, rounds + 1):
            whole, frozen = (
                train(options, paths, truths, freeze, Path(temporary) / f"{freeze}-{number}")
                for freeze in ("none", "layer3")
            )
            ratios.append(whole.seconds / frozen.seconds)
            times = f"nothing frozen {whole.seconds:.1f} s, through layer3 {frozen.seconds:.1f} s"
            print(f"round {number}: {times}", flush=True)
    print(f"{len(paths)} pictures, {epochs} epochs: {median(ratios):.2f} times as fast")


def drawn_truths(options: Params, count: int) -> dict[str, np.ndarray]:
    """Draw tags for `count` pictures, of which seconds do not depend: (count, tags) per group."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.random((count, len(group.tags))) < 0.3).astype(np.int64)
        for name, group in options.groups.items()
    }


def train(
    options: Params,
    paths: Sequence[Path],
    truths: Mapping[str, np.ndarray],
    freeze: str,
    folder: Path,
    device: torch.device = CPU,
) -> Trained:
    """Compute the features of pictures into `folder`, and fit a model per group, as the stages do.

    `truths` (N, tags) are by group of `options`.
    """
    options = replace(options, train=replace(options.train, freeze=freeze))
    shared, clock = options.train, Clock()
    dataset = ImageDataset(
        paths,
        Transform.of(options.images),
        Limits.of(options.images),
        augment=options.images.augment,
        seed=shared.seed,
    )
    names, models = [path.name for path in paths], {}
    with clock("features"), clock.of_function(ImageDataset, "views", "drawing"):
        torch.manual_seed(shared.seed)
        seen, size = pooled_of(shared.arch), options.images.size
        model, _ = build(shared.arch, 1, shared.weights, seen, 0.0, size=size)
        digests = prefix_digests(model.eval(), dataset.transform)
        feature_files.compute(
            model,
            dataset,
            names,
            freeze=freeze,
            views=options.features.views,
            max_gb=options.features.max_gb,
            prefix=digests[freeze] if freeze != "none" else None,
            directory=folder,
            cache=None,
            device=device,
            on_work=lambda _: None,
            on_batch=lambda *_: None,
        )
        wait_for(device)
    with clock("fits"):
        for group, truth in truths.items():
            recipe = options.train_of(group)
            torch.manual_seed(recipe.seed)
            model, _ = build(
                recipe.arch,
                truth.shape[1],
                recipe.weights,
                recipe.pooled,
                recipe.dropout,
                size=options.images.size,
            )
            fit(
                model,
                features.open_source(folder, model, dataset, names, freeze, device),
                Examples(np.arange(len(paths)), truth),
                None,
                recipe,
                device=device,
                on_epoch=lambda _: None,
            )
            models[group] = model
        wait_for(device)
    return Trained(
        models, clock.seconds["drawing"], clock.seconds["features"], clock.seconds["fits"]
    )


if __name__ == "__main__":
    typer.run(main)
