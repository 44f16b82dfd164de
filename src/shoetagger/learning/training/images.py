"""The data set of image files that training reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from ...config.params import Params
from ...images.decode import Limits, Rejected, image_id, open_image
from ...images.views import Transform, fit_longest, frame_of, tagging_view, training_view
from ...network.libraries import library

if TYPE_CHECKING:
    from ...config.recipe import Augment
    from ...images.backgrounds import Square
    from ...images.box import Box


class ImageDataset:
    """The picture files that models learn from, and (S, S, 3) uint8 views of each, by its index.

    A view depends on the seed, the picture's bytes and the view's number only, not on the order in
    which views are drawn. Raises Rejected, with the file's path in front, for a file that is no
    picture.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        transform: Transform,
        limits: Limits,
        *,
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self.paths = tuple(paths)
        self.transform = transform
        self.limits = limits
        self.augment = augment
        self.seed = seed
        self._last: tuple[Path, str, Image.Image] | None = None
        self._frames: dict[Path, Box | None] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def plain(self, index: int) -> Square:
        """Return the tagging view of a picture, exactly as in tagging."""
        image = _open_file(self.paths[index], self.limits, self.transform.longest)[1]
        return tagging_view(image, self.transform)

    def view(self, index: int, number: int) -> Square:
        """Return one augmented view of a picture; `augment` must be given."""
        return self.views(index, [number])[0]

    def views(self, index: int, numbers: Iterable[int]) -> list[Square]:
        """Return some augmented views of a picture; `augment` must be given."""
        if self.augment is None:
            raise ValueError("these pictures have no augment: only their plain view can be drawn")
        path = self.paths[index]
        identity, image = self._image(path)
        if path not in self._frames:  # finding it takes a third of a view's time
            self._frames[path] = frame_of(image, self.transform)
        frame, drawn = self._frames[path], []
        for number in numbers:
            rng = np.random.default_rng([self.seed, number, int(identity, 16)])
            drawn.append(training_view(image, frame, self.transform, self.augment, rng))
        return drawn

    def _image(self, path: Path) -> tuple[str, Image.Image]:
        # Views of one picture are mostly drawn one after the other: decode it once for them. Other
        # threads may draw views of other pictures meanwhile.
        last = self._last
        if last is None or last[0] != path:
            longest = 2 * self.transform.longest
            identity, image = _open_file(path, self.limits, longest)
            if max(image.size) > longest:
                image = fit_longest(image, longest)
            self._last = last = path, identity, image
        return last[1], last[2]


def _open_file(path: Path, limits: Limits, longest: int) -> tuple[str, Image.Image]:
    data = path.read_bytes()
    try:
        return image_id(data), open_image(data, limits, longest=longest)
    except Rejected as error:
        raise Rejected(f"{path}: {error.reason}", unfinished=error.unfinished) from None


def transform_of(params: Params) -> Transform:
    """Return the tagging transform: as `images` sets it, normalised as the backbone needs it."""
    source, name = library(params.train.arch)
    return replace(Transform.of(params.images), **source.normalisation(name)._asdict())


def open_dataset(params: Params, table: pd.DataFrame, images: Path) -> ImageDataset:
    """Return the data set of a table's pictures, in its order."""
    return ImageDataset(
        paths=[images / name for name in table["image_name"]],
        transform=transform_of(params),
        limits=Limits.of(params.images),
        augment=params.images.augment,
        seed=params.train.seed,
    )
