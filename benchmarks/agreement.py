"""How many predictions change by two shortcuts: reduced decoding, and bfloat16.

`python -m benchmarks.agreement FOLDER --bundle models/color --bundle models/style ...`
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from more_itertools import chunked

from shoetagger.config import params
from shoetagger.images.decode import Limits, open_image
from shoetagger.images.views import Transform, tagging_view
from shoetagger.inference.decision import predict
from shoetagger.inference.engine import Engine

REPO = Path(__file__).parents[1]
Scores = dict[str, np.ndarray]  # bundle digest -> (N, tags)


def main(
    pictures: Annotated[Path, typer.Argument(help="Folder of pictures.")],
    bundle: Annotated[list[Path], typer.Option(help="Folders such as models/color.")],
) -> None:
    """Print which pictures get other tags than by full decoding, and than by float32."""
    paths = sorted(path for path in pictures.iterdir() if path.is_file())
    engine = Engine(bundle, "cpu")
    exact = Engine(bundle, "cpu", "float32")
    reduced: Scores = {}
    full: Scores = {}
    plain: Scores = {}
    for batch in chunked(paths, 64):
        small = _views(batch, engine.transforms, reduce=True)
        large = _views(batch, engine.transforms, reduce=False)
        _append(reduced, engine.score(small))
        _append(full, engine.score(large))
        _append(plain, exact.score(small))
    _print_difference("reduced against full decoding", paths, engine, reduced, full)
    _print_difference(f"{engine.dtype} against torch.float32", paths, engine, reduced, plain)


def _views(
    paths: list[Path], transforms: tuple[Transform, ...], *, reduce: bool
) -> dict[Transform, np.ndarray]:
    limits = Limits.of(params.load(REPO / "params.yaml").images)
    views = {}
    for transform in transforms:
        longest = transform.size if reduce else None
        opened = [open_image(path.read_bytes(), limits, longest=longest) for path in paths]
        views[transform] = np.stack([tagging_view(image, transform) for image in opened])
    return views


def _append(scores: Scores, more: Scores) -> None:
    for digest, rows in more.items():
        scores[digest] = np.concatenate([scores[digest], rows]) if digest in scores else rows


def _print_difference(
    what: str, paths: list[Path], engine: Engine, one: Scores, other: Scores
) -> None:
    differs = np.zeros(len(paths), dtype=bool)
    tags = 0
    worst = 0.0
    for bundle in engine.bundles:
        a, b = one[bundle.digest], other[bundle.digest]
        predicted = [predict(scores, bundle.thresholds) for scores in (a, b)]
        changed = predicted[0] != predicted[1]
        differs |= changed.any(axis=1)
        tags += int(changed.sum())
        worst = max(worst, float(np.abs(a - b).max()))
    names = ", ".join(path.name for path, other in zip(paths, differs, strict=True) if other)
    print(
        f"{what}: {differs.sum()} of {len(paths)} pictures get other tags ({tags} tags); "
        f"scores differ by {worst:.4f} at most: {names}"
    )


if __name__ == "__main__":
    typer.run(main)
