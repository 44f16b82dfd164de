"""The cross-validations of one group: each fold scored by a model that has not seen it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..config.recipe import Split
from ..learning.dataset.folds import fold
from ..learning.training.backbone import TrainError
from ..learning.training.fit import Epoch, epochs_of, fit
from ..learning.training.scoring import scores
from .command import progress
from .group import GroupData


def score_folds(data: GroupData) -> list[pd.DataFrame]:
    """Return a table per repeat and fold: image_name, repeat, fold, then a score per tag.

    Each repeat scores every picture of the training side once.
    """
    split = data.params.split
    total = split.repeats * split.folds * epochs_of(data.params.train_of(data.group))
    with progress(total, f"crossval {data.group}") as bar:

        def on_epoch(_: Epoch) -> None:
            bar.update()

        return [
            _score_fold(data, folds, repeat, number, on_epoch)
            for repeat in range(split.repeats)
            for folds in [_folds(data.table, split, repeat)]
            for number in range(split.folds)
        ]


def _folds(table: pd.DataFrame, split: Split, repeat: int) -> pd.Series[int]:
    # The first repeat's stand in the table; the others would change what `train` depends on.
    if repeat == 0:
        return table["fold"]
    return table["image_id"].map(lambda image_id: fold(image_id, split, repeat))


def _score_fold(
    data: GroupData,
    folds: pd.Series[int],
    repeat: int,
    number: int,
    on_epoch: Callable[[Epoch], None],
) -> pd.DataFrame:
    held_out = data.training & (folds == number)
    learned = data.training & (folds != number)
    if learned.sum() < 2:
        raise TrainError(
            f"fold {number} of repeat {repeat} leaves {learned.sum()} of {data.training.sum()} "
            f"training pictures to learn {data.group} from, at least 2 are needed: label more "
            f"pictures, or lower split.folds ({data.params.split.folds}) or split.repeats "
            f"({data.params.split.repeats}) in params.yaml; folds: 0 means none"
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
    table = data.table.loc[held_out, ["image_name"]].assign(repeat=repeat, fold=number)
    table[list(data.tags)] = scores(model, source, rows, recipe.freeze, data.device)
    return table
