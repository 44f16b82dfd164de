"""Stage `crossval@group`: out-of-fold scores of the training side, for thresholds and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from ..config import params as parameters
from ..config.settings import Settings
from ..learning.dataset.tables import write_scores
from ..learning.training.fit import Epoch, TrainError, epochs_of, fit, scores
from ..network.devices import pick_device
from .command import progress, run
from .group import Features, Group, GroupData, Images, SplitTable, open_group_data


def main(
    group: Group,
    split: SplitTable,
    images: Images,
    features: Features,
    out: Annotated[Path, typer.Option(help="CSV file of the scores to write")],
) -> None:
    """Score every training picture by a model that has not seen its fold."""
    params, settings = parameters.load(Path("params.yaml")), Settings.from_environment()
    device = pick_device(settings.device)
    data = open_group_data(params, group, split, images, features, device)
    folds, epochs = params.split.folds, epochs_of(params.train_of(group))
    found = []
    with progress(folds * epochs, f"crossval {group}") as bar:

        def on_epoch(_: Epoch) -> None:
            bar.update()

        for fold in range(folds):
            found.append(_score_fold(data, fold, on_epoch))
    table = write_scores(found, data.tags, out)
    typer.echo(f"{group}: {len(table)} pictures scored in {folds} folds")


def _score_fold(data: GroupData, fold: int, on_epoch: Callable[[Epoch], None]) -> pd.DataFrame:
    held_out = data.training & (data.table["fold"] == fold)
    learned = data.training & (data.table["fold"] != fold)
    if learned.sum() < 2:
        raise TrainError(
            f"fold {fold} leaves {learned.sum()} of {data.training.sum()} training pictures to "
            f"learn {data.group} from, at least 2 are needed: label more pictures, or lower "
            f"split.folds ({data.params.split.folds}) in params.yaml; 0 means none"
        )
    recipe = data.params.train_of(data.group)
    model, _ = data.new_model()
    source = data.source(model)
    fit(
        model,
        source,
        data.examples(learned),
        None,
        recipe,
        device=data.device,
        on_epoch=on_epoch,
    )
    rows = np.flatnonzero(held_out.to_numpy())
    table = data.table.loc[held_out, ["image_name", "fold"]].copy()
    table[list(data.tags)] = scores(model, source, rows, recipe.freeze, data.device)
    return table


if __name__ == "__main__":
    run(main)
