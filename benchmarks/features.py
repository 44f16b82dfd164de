"""How fast the stage `features` is beside the engine of the night: `python -m benchmarks.features`.

In alternating rounds: one picture's views drawn and run, then the next one's, by torch's own
threads; the stage; the stage again, which finds all of them kept; and the engine on pictures from
their bytes, with the three groups of params.yaml. Rates are per second of wall time and, for a
machine that others use as well, per second of CPU.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer

from shoetagger.config import params
from shoetagger.config.params import Params
from shoetagger.images.decode import Limits, image_id, open_image
from shoetagger.images.views import Transform, tagging_view
from shoetagger.inference.engine import Engine
from shoetagger.learning.training import feature_files
from shoetagger.learning.training.features import Live
from shoetagger.learning.training.images import ImageDataset
from shoetagger.network.backbone import TagModel, pooled_of
from shoetagger.network.digests import prefix_digests
from shoetagger.network.weights import build

from .bundles import imagenet_cached, make_bundles
from .pictures import PicturesOption, folder_of

REPO = Path(__file__).parents[1]
CPU = torch.device("cpu")
FREEZE = "layer4"


def main(
    pictures: PicturesOption = None,
    count: Annotated[
        int, typer.Option(help="Pictures of the stage; the engine gets four times as many.")
    ] = 32,
    rounds: Annotated[int, typer.Option(help="How often all of them run.")] = 3,
) -> None:
    """Print the views, or the pictures, per second of each."""
    options = params.load(REPO / "params.yaml")
    weights = "imagenet" if imagenet_cached() else "none"
    arch, size = options.train.arch, options.images.size
    model, _ = build(arch, 1, weights, pooled_of(arch), 0.0, size=size)
    with tempfile.TemporaryDirectory(prefix="shoetagger-features-") as temporary:
        place = Path(temporary)
        all_paths = sorted(folder_of(pictures, place / "drawn", 4 * count).iterdir())[: 4 * count]
        paths, transform = all_paths[:count], Transform.of(options.images)
        pooled = [options.train_of(group).pooled for group in options.groups]
        bundles = make_bundles(place / "bundles", len(pooled), FREEZE, pooled, transform)
        engines = {p: Engine(bundles, "cpu", p) for p in ("float32", "auto")}
        rates = defaultdict[str, list[Rate]](list)
        for number in range(rounds):
            stage = options, model.eval(), paths, place / f"out-{number}", place / f"kept-{number}"
            views = (options.features.views + 1) * len(paths)
            few = paths[: max(1, count // 4)]
            some = (options.features.views + 1) * len(few)
            rates["one picture after the other"].append(_rate(some, _one_by_one, *stage[:2], few))
            rates["the stage"].append(_rate(views, _stage, *stage))
            rates["the stage, all kept"].append(_rate(views, _stage, *stage))
            for precision, engine in engines.items():
                rate = _rate(len(all_paths), _tag, engine, all_paths, options)
                rates[f"the engine, {precision}"].append(rate)
            print(f"round {number + 1}", *_lines({k: v[-1] for k, v in rates.items()}), sep="\n")
    print("medians", *_lines({name: _median(values) for name, values in rates.items()}), sep="\n")
    for precision in engines:
        pairs = list(zip(rates["the stage"], rates[f"the engine, {precision}"], strict=True))
        wall, cpu = (median(a[i] / b[i] for a, b in pairs) for i in range(2))
        print(f"the stage / the engine, {precision}: {wall:.2f}, by CPU {cpu:.2f}")


class Rate(NamedTuple):
    """Views, or pictures, per second of wall time and of CPU."""

    wall: float
    cpu: float


def _rate(count: int, work: Callable[..., None], *arguments: Any) -> Rate:
    wall, cpu = time.perf_counter(), time.process_time()
    work(*arguments)
    return Rate(count / (time.perf_counter() - wall), count / (time.process_time() - cpu))


def _median(rates: Sequence[Rate]) -> Rate:
    return Rate(median(r.wall for r in rates), median(r.cpu for r in rates))


def _lines(rates: Mapping[str, Rate]) -> list[str]:
    return [
        f"  {name:28} {r.wall:6.1f} per second, {r.cpu:6.1f} per CPU second"
        for name, r in rates.items()
    ]


def _dataset(options: Params, paths: list[Path]) -> ImageDataset:
    limits, augment = Limits.of(options.images), options.images.augment
    return ImageDataset(paths, Transform.of(options.images), limits, augment=augment, seed=1)


def _one_by_one(options: Params, model: TagModel, paths: list[Path]) -> None:
    """Draw and run the views of a picture, then those of the next."""
    dataset, views = _dataset(options, paths), options.features.views
    live = Live(model, dataset, FREEZE, views, CPU)
    for row in range(len(paths)):
        live.state([*dataset.views(row, range(views)), dataset.plain(row)])


def _stage(options: Params, model: TagModel, paths: list[Path], folder: Path, kept: Path) -> None:
    dataset = _dataset(options, paths)
    feature_files.compute(
        model,
        dataset,
        [image_id(path.read_bytes()) for path in paths],
        freeze=FREEZE,
        views=options.features.views,
        max_gb=options.features.max_gb,
        prefix=prefix_digests(model, dataset.transform)[FREEZE],
        directory=folder,
        cache=kept,
        device=CPU,
        on_work=lambda _: None,
        on_batch=lambda *_: None,
    )


def _tag(engine: Engine, paths: list[Path], options: Params) -> None:
    """Decode pictures and predict their tags, decoding beside the models."""
    transform, limits = engine.transforms[0], Limits.of(options.images)

    def view(path: Path) -> np.ndarray:
        image = open_image(path.read_bytes(), limits, longest=transform.longest)
        return tagging_view(image, transform)

    size = options.tag.batch_size
    with ThreadPoolExecutor(options.tag.decode_workers) as pool:
        drawn = list(pool.map(view, paths[:size]))
        for start in range(0, len(paths), size):
            following = pool.map(view, paths[start + size : start + 2 * size])
            engine.predict({transform: np.stack(drawn)})
            drawn = list(following)


if __name__ == "__main__":
    typer.run(main)
