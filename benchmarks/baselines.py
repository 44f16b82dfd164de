"""The usual ways: the article's two loops, its single loop, and a DataLoader with batches.

All three use torchvision's networks in eval and inference mode with torch's default threads, and
write one row per picture and group to SQLite, in one transaction at the end: the cheapest way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from .clock import Clock

BATCH = 64

TRANSFORM = v2.Compose(
    [
        v2.Resize(256),
        v2.CenterCrop(224),
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)


class Rows:
    """The table that the variants write."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file)
        self._connection.execute("CREATE TABLE tags (picture TEXT, model TEXT, scores TEXT)")

    def add(self, picture: Path, model: str, scores: Sequence[float]) -> None:
        row = picture.name, model, " ".join(f"{score:.4f}" for score in scores)
        self._connection.execute("INSERT INTO tags VALUES (?, ?, ?)", row)

    def commit(self) -> None:
        self._connection.commit()


def load(path: Path) -> Tensor:
    """Return one picture as the input of a network, (3, 224, 224) float32."""
    with Image.open(path) as image:
        view: Tensor = TRANSFORM(image.convert("RGB"))
    return view


def nested_loops(
    paths: Sequence[Path], models: Mapping[str, nn.Module], rows: Rows, clock: Clock
) -> None:
    """(a) For each model, each picture: the article's first way."""
    for name, model in models.items():
        for path in paths:
            with clock("decode"):
                picture = load(path)
            with clock("model"):
                scores = torch.sigmoid(model(picture[None]))[0].tolist()
            with clock("write"):
                rows.add(path, name, scores)
    with clock("write"):
        rows.commit()


def single_loop(
    paths: Sequence[Path], models: Mapping[str, nn.Module], rows: Rows, clock: Clock
) -> None:
    """(b) For each picture, each model: the article's faster way."""
    for path in paths:
        with clock("decode"):
            picture = load(path)
        for name, model in models.items():
            with clock("model"):
                scores = torch.sigmoid(model(picture[None]))[0].tolist()
            with clock("write"):
                rows.add(path, name, scores)
    with clock("write"):
        rows.commit()


class PictureFiles(Dataset[tuple[int, Tensor]]):
    """Pictures and their numbers, as a DataLoader's workers load them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, i: int) -> tuple[int, Tensor]:
        return i, load(self._paths[i])


def data_loader(
    paths: Sequence[Path], models: Mapping[str, nn.Module], rows: Rows, clock: Clock
) -> None:
    """(c) A DataLoader with one worker per core; each model on each batch."""
    workers = torch.get_num_threads()
    for numbers, pictures in DataLoader(PictureFiles(paths), BATCH, num_workers=workers):
        for name, model in models.items():
            with clock("model"):
                scores = torch.sigmoid(model(pictures)).tolist()
            with clock("write"):
                for i, row in zip(numbers.tolist(), scores, strict=True):
                    rows.add(paths[i], name, row)
    with clock("write"):
        rows.commit()
