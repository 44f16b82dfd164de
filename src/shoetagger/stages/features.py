"""Stage `features`: the frozen prefix of the backbone, computed once for all groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from ..config import params as parameters
from ..config.settings import Settings
from ..learning.dataset.tables import read_split
from ..learning.training.feature_files import Work, compute
from ..learning.training.images import open_dataset
from ..network.backbone import pooled_of
from ..network.devices import pick_device
from ..network.digests import prefix_digests
from ..network.layers import frozen_layers
from ..network.weights import build
from .command import progress, run


def main(
    listing: Annotated[Path, typer.Argument(help="images.csv of the stage split")],
    images: Annotated[Path, typer.Argument(help="folder of the pictures")],
    out: Annotated[Path, typer.Argument(help="folder to write the states to")],
) -> None:
    """Run all views of all pictures through the frozen layers, and write the states."""
    params, settings = parameters.load(Path("params.yaml")), Settings.from_environment()
    recipe, device = params.train, pick_device(settings.device)
    table = read_split(listing)
    dataset = open_dataset(params, table, images)
    torch.manual_seed(recipe.seed)
    # All that any head may see: it is small, and each group chooses from it.
    everything, size = pooled_of(recipe.arch), params.images.size
    model, _ = build(recipe.arch, 1, recipe.weights, everything, dropout=0.0, size=size)
    model.eval()
    frozen = frozen_layers(model.layers, recipe.freeze)
    with progress(0, "features") as bar:

        def on_batch(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        index = compute(
            model,
            dataset,
            list(table["image_id"]),
            freeze=recipe.freeze,
            views=params.features.views,
            max_gb=params.features.max_gb,
            prefix=prefix_digests(model, dataset.transform)[frozen[-1]] if frozen else None,
            directory=out,
            cache=settings.features,
            device=device,
            on_work=tell,
            on_batch=on_batch,
        )
    if not frozen:
        typer.echo("nothing is frozen (train.freeze: none): each group computes its own")
    elif not index.views:
        typer.echo(
            f"features.max_gb={params.features.max_gb} is too small for one view of "
            f"{len(dataset)} pictures: each fit runs the frozen prefix again, on one augmented "
            "view of each; raise it"
        )
    else:
        fewer = (
            ""
            if index.views == params.features.views
            else (
                f" instead of {params.features.views}, for which features.max_gb="
                f"{params.features.max_gb} has no room"
            )
        )
        typer.echo(
            f"{index.views} augmented views{fewer} of {len(dataset)} pictures, to {recipe.freeze}"
        )


def tell(work: Work) -> None:
    """Say how much there is to compute, and about how long it will take."""
    typer.echo(
        f"{work.views:,} views of {work.pictures:,} pictures, {work.kept:,} of them kept from "
        f"earlier runs; the others take about {_duration(work.seconds)} more"
    )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if not minutes:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    run(main)
