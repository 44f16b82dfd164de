"""What the stages of a group read: its pictures, their states and their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..config.params import Params
from ..learning.dataset.tables import read_split
from ..learning.training.examples import Examples
from ..learning.training.features import Source, open_source
from ..learning.training.images import ImageDataset, open_dataset
from ..network.backbone import TagModel
from ..network.weights import build, load_trained


@dataclass(frozen=True)
class GroupData:
    """One group's table and pictures, and what its models are made of."""

    group: str
    tags: tuple[str, ...]
    table: pd.DataFrame
    dataset: ImageDataset
    device: torch.device
    params: Params
    features: Path

    def new_model(self) -> tuple[TagModel, str | None]:
        """Return a model to train, always the same, and the digest of its pretrained backbone."""
        recipe = self.params.train_of(self.group)
        torch.manual_seed(recipe.seed)
        return build(
            recipe.arch,
            len(self.tags),
            recipe.weights,
            recipe.pooled,
            recipe.dropout,
            size=self.params.images.size,
        )

    def trained_model(self, weights: Path) -> TagModel:
        """Return the model that the stage train wrote, on the CPU."""
        recipe = self.params.train_of(self.group)
        return load_trained(
            recipe.arch,
            len(self.tags),
            recipe.pooled,
            weights,
            size=self.params.images.size,
            dropout=recipe.dropout,
        )

    def source(self, model: TagModel) -> Source:
        """Return where the states of the pictures come from, as the frozen layers leave them."""
        freeze, ids = self.params.train.freeze, list(self.table["image_id"])
        return open_source(self.features, model, self.dataset, ids, freeze, self.device)

    def examples(self, chosen: pd.Series[bool]) -> Examples:
        """Return the chosen rows of the table as examples."""
        rows = np.flatnonzero(chosen.to_numpy())
        return Examples(rows, self.table[list(self.tags)].to_numpy(dtype=np.uint8)[rows])

    @property
    def training(self) -> pd.Series[bool]:
        return self.table["side"] == "train"

    @property
    def validation(self) -> pd.Series[bool]:
        return self.table["side"] == "validation"


def open_group_data(
    params: Params, group: str, split: Path, images: Path, features: Path, device: torch.device
) -> GroupData:
    """Read the table of a group, and describe its pictures and states."""
    table = read_split(split)
    return GroupData(
        group=group,
        tags=params.group(group).tags,
        table=table,
        dataset=open_dataset(params, table, images),
        device=device,
        params=params,
        features=features,
    )
