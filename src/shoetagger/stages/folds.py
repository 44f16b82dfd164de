"""The cross-validation of one group: each fold scored by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..learning.training.backbone import TrainError
from ..learning.training.fit import Epoch, epochs_of, fit
from ..learning.training.scoring import scores
from .command import progress
from .group import GroupData


def score_folds(data: GroupData, folds: int) -> list[pd.DataFrame]:
    """Return a table per fold: image_name, fold, then a score per tag of its training images."""
    total = folds * epochs_of(data.params.train_of(data.group))
    with progress(total, f"crossval {data.group}") as bar:

        def on_epoch(_: Epoch) -> None:
            bar.update()

        return [_score_fold(data, fold, on_epoch) for fold in range(folds)]


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
