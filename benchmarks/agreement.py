"""How many predictions change by two shortcuts: reduced decoding, and bfloat16.

`python -m benchmarks.agreement FOLDER --bundle models/color --bundle models/style ...`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from more_itertools import chunked

from shoetagger.config import params
from shoetagger.images.decode import Limits, open_image
from shoetagger.images.views import Transform, tagging_view
from shoetagger.inference.bundle import Bundle
from shoetagger.inference.engine import Engine

REPO = Path(__file__).parents[1]
BATCH = 64
Scores = dict[str, np.ndarray]  # bundle digest -> (N, tags)
Views = dict[Transform, np.ndarray]  # (B, S, S, 3) uint8


@dataclass(frozen=True)
class Difference:
    """What two ways of scoring the same pictures disagree on."""

    pictures: np.ndarray  # (N,) bool: the tags differ
    tags: int  # of all pictures, how many are in one prediction and not in the other
    of: int  # tags of all pictures
    worst: float  # largest difference of a score

    def __str__(self) -> str:
        return (
            f"{self.pictures.sum()} of {len(self.pictures)} pictures get other tags ({self.tags} "
            f"of {self.of} tags); scores differ by {self.worst:.4f} at most"
        )


def main(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures.")],
    bundle: Annotated[list[Path], typer.Option(help="Folders such as models/color.")],
) -> None:
    """Print which pictures get other tags than by full decoding, and than by float32."""
    paths = sorted(path for path in pictures.iterdir() if path.is_file())
    limits = Limits.of(params.load(REPO / "params.yaml").images)
    engine, exact = Engine(bundle, "cpu"), Engine(bundle, "cpu", "float32")

    def reduced(batch: Sequence[Path]) -> Views:
        return views_of(batch, engine.transforms, limits)

    def full(batch: Sequence[Path]) -> Views:
        return views_of(batch, engine.transforms, limits, reduce=False)

    usual = scores_of(engine, paths, reduced)
    for what, other in (
        ("reduced against full decoding", scores_of(engine, paths, full)),
        (f"{engine.dtype} against torch.float32", scores_of(exact, paths, reduced)),
    ):
        found = difference(engine.bundles, usual, other)
        names = ", ".join(path.name for path, on in zip(paths, found.pictures, strict=True) if on)
        print(f"{what}: {found}: {names}")


def views_of(
    paths: Sequence[Path], transforms: Sequence[Transform], limits: Limits, *, reduce: bool = True
) -> Views:
    """Return the tagging views of some pictures, by default decoded as a night does."""
    views = {}
    for transform in transforms:
        longest = transform.longest if reduce else None
        opened = [open_image(path.read_bytes(), limits, longest=longest) for path in paths]
        views[transform] = np.stack([tagging_view(image, transform) for image in opened])
    return views


def scores_of(
    engine: Engine, paths: Sequence[Path], views: Callable[[Sequence[Path]], Views]
) -> Scores:
    """Return the scores of all pictures; `views` decodes some of them."""
    parts = [engine.score(views(batch)) for batch in chunked(paths, BATCH)]
    return {digest: np.concatenate([part[digest] for part in parts]) for digest in parts[0]}


def difference(bundles: Sequence[Bundle], one: Scores, other: Scores) -> Difference:
    """Compare two scorings of the same pictures by the same bundles."""
    changed, worst = [], 0.0
    for bundle in bundles:
        a, b = one[bundle.digest], other[bundle.digest]
        changed.append(bundle.predict(a) != bundle.predict(b))
        worst = max(worst, float(np.abs(a - b).max()))
    differs = np.concatenate(changed, axis=1)
    return Difference(differs.any(axis=1), int(differs.sum()), differs.size, worst)


if __name__ == "__main__":
    typer.run(main)
