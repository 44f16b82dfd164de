"""What a GPU changes: `python -m benchmarks.gpu --pictures FOLDER --labelled FOLDER`.

Tags distinct copies of the pictures on the device, with a ResNet-18, a ResNet-50 and a ViT-B/16;
measures each piece alone; trains on the device and on the CPU; and compares the tags of bundles
that were trained on the CPU. Needs none of Airflow, MLflow and DVC. Weights that torch's cache
lacks are random, which changes no speed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from shoetagger.config import params
from shoetagger.config.params import Params
from shoetagger.demo import sample
from shoetagger.images.decode import Limits, unreadable
from shoetagger.images.views import Transform
from shoetagger.inference.engine import Engine
from shoetagger.learning.dataset.labels import read_labels
from shoetagger.learning.dataset.sheet import find_sheet
from shoetagger.network.devices import pick_device

from . import gpu_page, machine, night, pieces
from .agreement import Views, difference, scores_of, views_of
from .bundles import imagenet_cached, make_bundles, write_bundle
from .copies import is_jpeg, make_copies
from .pictures import PicturesOption, folder_of
from .training import Trained, train

REPO = Path(__file__).parents[1]
CPU = torch.device("cpu")
BACKBONES = ("resnet18", "resnet50", "vit_b_16")
GROUPS = 3


def main(
    pictures: PicturesOption = None,
    labelled: Annotated[
        Path | None,
        typer.Option(help="Folder with images/ and labels.csv; without it, shoes are drawn."),
    ] = None,
    count: Annotated[int, typer.Option(help="Copies to tag.")] = 100_000,
    seconds: Annotated[float, typer.Option(help="How long each piece runs.")] = 2.0,
    cores: Annotated[int, typer.Option(help="Decoding processes.")] = os.cpu_count() or 1,
    device: Annotated[str, typer.Option(help="cuda, or cpu for a trial.")] = "cuda",
    section: Annotated[list[str] | None, typer.Option(help="Only these; default: all.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="JSON file, written after each section.")
    ] = None,
) -> None:
    """Print the tables of docs/SPEED.md's section on GPUs."""
    options = params.load(REPO / "params.yaml")
    options = replace(options, tag=replace(options.tag, decode_workers=cores))
    with tempfile.TemporaryDirectory(prefix="shoetagger-gpu-") as temporary:
        home = Path(temporary)
        bench = Bench(
            options=options,
            device=pick_device(device),
            pictures=sorted(folder_of(pictures, home / "drawn", min(count, 1000)).iterdir()),
            labelled=(labelled or _drawn(home / "labelled")).absolute(),
            home=home,
            count=count,
            seconds=seconds,
        )
        results: dict[str, Any] = {"machine": bench.machine()}
        for name in section or SECTIONS:
            typer.echo(f"{name} ...")
            results |= getattr(bench, name)()
            if save:
                save.write_text(json.dumps(results, indent=1))
    typer.echo(gpu_page.page(results))


SECTIONS = ("training", "agreement", "alone", "nights")


class Bench:
    """The sections, each of which returns what it found as values for JSON."""

    def __init__(
        self,
        *,
        options: Params,
        device: torch.device,
        pictures: Sequence[Path],
        labelled: Path,
        home: Path,
        count: int,
        seconds: float,
    ) -> None:
        self.options, self.device, self.home = options, device, home
        self.count, self.seconds = count, seconds
        self.pictures = [path for path in pictures if is_jpeg(path.read_bytes())]
        self.transform = Transform.of(options.images)
        self.limits = Limits.of(options.images)
        self.paths, self.truths = _labels(labelled, options)
        self._models: dict[tuple[str, str], Trained] = {}
        weights = "imagenet" if imagenet_cached() else "none"
        self.options = replace(options, train=replace(options.train, weights=weights))

    def machine(self) -> dict[str, Any]:
        """Name the machine, and what a matrix product reaches on the device."""
        side = 8192 if self.device.type == "cuda" else 1024
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        return {
            "device": name,
            "cpu": machine.description(),
            "cores": self.options.tag.decode_workers,
            "copies": self.count,
            "originals": len(self.pictures),
            "weights": self.options.train.weights,
            "teraflops": machine.matrix_gigaflops(torch.bfloat16, side=side, device=self.device)
            / 1e3,
        }

    def agreement(self) -> dict[str, Any]:
        """Train on the CPU, and compare the tags that the bundles give on the CPU and here."""
        with self._folder() as folder:
            trained = self._trained("layer4", CPU)
            bundles = [
                write_bundle(
                    folder / group, group, self.options.groups[group].tags, model, self.transform
                )
                for group, model in trained.models.items()
            ]
            engines = {
                (where, precision): Engine(bundles, where, precision)
                for where in ("cpu", str(self.device))
                for precision in ("auto", "float32")
            }
        usual = self._views

        def decoded(batch: Sequence[Path]) -> Views:
            jpegs = pieces.encoded([path.read_bytes() for path in batch])
            images = pieces.decoded_on(self.device, jpegs)
            squares = [pieces.square(image, self.transform).cpu() for image in images]
            return {self.transform: torch.stack(squares).numpy()}

        found = {key: scores_of(engine, self.pictures, usual) for key, engine in engines.items()}
        here, there = ("cpu", "auto"), (str(self.device), "auto")
        exact_here, exact_there = ("cpu", "float32"), (str(self.device), "float32")
        on_device = scores_of(engines[there], self.pictures, decoded)
        pairs = {
            f"CPU in {_name(engines[here])}, device in {_name(engines[there])}": (
                found[here], found[there],
            ),
            "CPU and device in float32": (found[exact_here], found[exact_there]),
            f"CPU in float32, device in {_name(engines[there])}": (
                found[exact_here], found[there],
            ),
            "decoded on the CPU and on the device": (found[there], on_device),
        }  # fmt: skip
        return {
            "agreement": {
                name: str(difference(engines[here].bundles, *pair)) for name, pair in pairs.items()
            }
        }

    def alone(self) -> dict[str, Any]:
        """Measure each piece alone."""
        few = min(self.count, 20 * len(self.pictures))
        with self._folder() as folder:
            copies = make_copies(self.pictures, folder / "copies", few)
            found = {"files": pieces.files(copies, self.options, self.transform)}
            jpegs = [path.read_bytes() for path in self.pictures]
            found["decoding on the device"] = pieces.decoding_on(
                self.device, jpegs, self.transform, self.seconds
            )
            squares = self._views(self.pictures)[self.transform]
            for arch in BACKBONES:
                bundles = self._bundles(folder / arch, arch)
                engine = Engine(bundles, str(self.device))
                size = engine.batch_size(self.options.tag.batch_size)
                views = pieces.tiled(squares, size)
                found[arch] = pieces.models(bundles, views, self.device, self.seconds)
            with night.store_with(folder / "store", engine) as (store, run):
                night.find_arrivals(
                    store, folder / "copies", run, options=self.options.tag, state=folder / "store"
                )
                found["store"] = {"write": pieces.writing(store, run, engine, 1024)}
        return {"pieces": found}

    def nights(self) -> dict[str, Any]:
        """Tag all copies with each backbone, and with the first one in several shards as well."""
        found: dict[str, Any] = {}
        shards = min(self.options.tag.shards, self.options.tag.decode_workers)
        with self._folder() as folder:
            inbox = folder / "inbox"
            make_copies(self.pictures, inbox, self.count)
            for arch in BACKBONES:
                bundles = self._bundles(folder / arch, arch)
                engine = Engine(bundles, str(self.device))
                found[arch] = asdict(night.tag(inbox, folder / f"{arch}-1", self.options, engine))
                if arch == BACKBONES[0] and shards > 1:
                    found[f"{arch}, {shards} shards side by side"] = asdict(
                        night.tag_in_shards(
                            inbox, folder / "shards", self.options, bundles,
                            str(self.device), shards,
                        )
                    )  # fmt: skip
        return {"nights": found}

    def training(self) -> dict[str, Any]:
        """Train the three groups on the CPU and on the device, by the default and further down."""
        found = {}
        for freeze in ("layer4", "layer3"):
            for device in dict.fromkeys((CPU, self.device)):
                trained = self._trained(freeze, device)
                found[f"{freeze} on {device}"] = {
                    part: getattr(trained, part) for part in ("features_s", "drawing_s", "fits_s")
                }
        return {"training": found, "labelled": len(self.paths)}

    def _trained(self, freeze: str, device: torch.device) -> Trained:
        """Train, once: the models of the section on training serve the one on agreement."""
        key = freeze, str(device)
        if key not in self._models:
            with self._folder() as folder:
                self._models[key] = train(
                    self.options, self.paths, self.truths, freeze, folder / "features", device
                )
        return self._models[key]

    def _views(self, paths: Sequence[Path]) -> Views:
        return views_of(paths, [self.transform], self.limits)

    def _bundles(self, folder: Path, arch: str) -> list[Path]:
        pooled = [self.options.train_of(group).pooled for group in self.options.groups]
        return make_bundles(folder, GROUPS, "layer4", pooled, self.transform, arch)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self.home))
        try:
            yield folder
        finally:
            shutil.rmtree(folder)


def _name(engine: Engine) -> str:
    return str(engine.dtype).removeprefix("torch.")


def _drawn(folder: Path) -> Path:
    sample.write_samples(folder)
    return folder


def _labels(labelled: Path, options: Params) -> tuple[list[Path], dict[str, np.ndarray]]:
    """Return the labelled pictures, and per group their truth (N, tags)."""
    limits, images = Limits.of(options.images), labelled / "images"
    labels = read_labels(
        find_sheet(labelled), images, options.tags, unreadable=lambda path: unreadable(path, limits)
    )
    truths = {
        name: labels.matrix[:, [labels.tags.index(tag) for tag in group.tags]].astype(np.int64)
        for name, group in options.groups.items()
    }
    return [images / name for name in labels.names], truths


if __name__ == "__main__":
    typer.run(main)
