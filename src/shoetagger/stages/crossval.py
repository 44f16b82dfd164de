"""Stage `crossval@group`: out-of-fold scores of the training side, for thresholds and metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import params as parameters
from ..config.params import Params
from ..config.settings import Settings
from ..learning.dataset.tables import write_scores
from .command import Features, Group, Images, SplitTable, run

if TYPE_CHECKING:
    import pandas as pd


def main(
    group: Group,
    split: SplitTable,
    images: Images,
    features: Features,
    out: Annotated[Path, typer.Option(help="CSV file of the scores to write")],
) -> None:
    """Score every training image by a model that has not seen its fold, once per repeat."""
    params = parameters.load(Path("params.yaml"))
    folds, repeats = params.split.folds, params.split.repeats
    scored = _score(params, group, split, images, features) if folds else []
    table = write_scores(scored, params.group(group).tags, out)
    pictures = table["image_name"].nunique()
    typer.echo(f"{group}: {pictures} pictures scored in {folds} folds, {repeats} times")


def _score(
    params: Params, group: str, split: Path, images: Path, features: Path
) -> list[pd.DataFrame]:
    # They import torch, which takes seconds that a run without folds need not wait.
    from ..network.devices import pick_device
    from .folds import score_folds
    from .group import open_group_data

    device = pick_device(Settings.from_environment().device)
    data = open_group_data(params, group, split, images, features, device)
    return score_folds(data)


if __name__ == "__main__":
    run(main)
