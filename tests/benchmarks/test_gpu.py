"""The benchmark of GPUs runs on a CPU as well, on few pictures; no time is checked here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import gpu, gpu_page
from benchmarks.agreement import difference, views_of
from benchmarks.copies import make_copies
from benchmarks.pieces import square
from helpers import sample
from helpers.bundles import write_bundle
from PIL import Image, ImageDraw

from shoetagger.config import params
from shoetagger.images.decode import Limits, open_image
from shoetagger.images.views import Transform, tagging_view

ROOT = Path(__file__).parents[2]
LIMITS = Limits(max_bytes=10**6, max_pixels=10**7)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled pictures, in images/."""
    folder = tmp_path_factory.mktemp("drawn")
    sample.copy_sample(folder, 12)
    return folder


@pytest.mark.slow
def test_every_section_is_measured_and_has_a_table(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    monkeypatch.setattr(gpu, "BACKBONES", ("resnet18",))
    plain = params.load(ROOT / "params.yaml")
    options = dataclasses.replace(
        plain,
        images=dataclasses.replace(plain.images, size=32),
        features=dataclasses.replace(plain.features, views=1),
        train=dataclasses.replace(plain.train, epochs=1),
        tag=dataclasses.replace(plain.tag, batch_size=4, decode_workers=1, shards=1),
    )
    bench = gpu.Bench(
        options=options, device=torch.device("cpu"), pictures=sorted((drawn / "images").iterdir()),
        labelled=drawn, home=tmp_path, count=10, seconds=0.0,
    )  # fmt: skip
    assert bench.transform == Transform.of(options.images)  # as nights see pictures
    results = {"machine": bench.machine()}
    for section in gpu.SECTIONS:
        results |= getattr(bench, section)()
    assert {night["pictures"] for night in results["nights"].values()} == {10}
    parts = ("list_s", "model_s", "write_s")
    assert all(night[part] > 0 for night in results["nights"].values() for part in parts)
    assert all(rate > 0 for rates in results["pieces"].values() for rate in rates.values())
    assert set(results["training"]) == {"layer4 on cpu", "layer3 on cpu"}
    page = gpu_page.page(results)
    names = [*results["nights"], *results["training"], *results["agreement"]]
    assert all(f"| {name} |" in page for name in names)
    assert not list(tmp_path.iterdir())  # each section removes its files


def test_copies_differ_in_their_bytes_and_not_in_their_pixels(drawn: Path, tmp_path: Path) -> None:
    originals = sorted((drawn / "images").iterdir())[:2]
    copies = make_copies(originals, tmp_path, 5)
    assert len({path.read_bytes() for path in copies}) == 5
    for number, path in enumerate(copies):
        copy, original = (
            np.asarray(open_image(p.read_bytes(), LIMITS)) for p in (path, originals[number % 2])
        )
        assert (copy == original).all()


@pytest.mark.parametrize("size", [(120, 70), (70, 120), (20, 20)])
def test_a_square_fitted_by_torch_is_nearly_that_of_tagging(size: tuple[int, int]) -> None:
    image = Image.effect_mandelbrot(size, (-2, -1, 1, 1), 40).convert("RGB")
    transform = Transform(size=64)
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    found, wanted = square(pixels, transform).numpy(), tagging_view(image, transform)
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted.astype(int)).mean() < 1.5


def shoe(size: tuple[int, int]) -> Image.Image:
    """Draw a small thing of many colours on a plain ground."""
    width, height = size
    image = Image.new("RGB", size, (240, 240, 240))
    thing = Image.effect_mandelbrot((width // 4, height // 4), (-2, -1, 1, 1), 40).convert("RGB")
    ImageDraw.Draw(thing).rectangle((0, 0, width // 8, height // 8), (180, 40, 40))
    image.paste(thing, (width // 4, height // 3))
    return image


@pytest.mark.parametrize("size", [(1200, 900), (900, 1200), (80, 60)])
def test_a_square_fitted_by_torch_is_cropped_to_the_shoe(size: tuple[int, int]) -> None:
    image, transform = shoe(size), Transform(size=128, framing="shoe")
    pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    found, wanted = square(pixels, transform).numpy(), tagging_view(image, transform)
    assert np.abs(found.astype(int) - wanted.astype(int)).mean() < 10
    whole = tagging_view(image, Transform(size=128))
    assert np.abs(found.astype(int) - whole.astype(int)).mean() > 40


def test_the_views_compared_are_those_of_a_night(tmp_path: Path) -> None:
    transform, path = Transform(size=64, framing="shoe"), tmp_path / "shoe.jpg"
    shoe((800, 600)).save(path, quality=95)
    found = views_of([path], [transform], LIMITS)[transform][0]
    night = open_image(path.read_bytes(), LIMITS, longest=transform.longest)
    assert (found == tagging_view(night, transform)).all()


@pytest.mark.slow
def test_no_more_pictures_are_drawn_than_are_tagged(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    monkeypatch.setattr(gpu.machine, "matrix_gigaflops", lambda *_, **__: 1.0)
    monkeypatch.setattr(gpu.Bench, "training", lambda _: {})
    saved = tmp_path / "results.json"
    gpu.main(labelled=drawn, count=3, device="cpu", section=["training"], save=saved)
    assert json.loads(saved.read_text())["machine"]["originals"] == 3


def test_a_difference_counts_pictures_and_tags(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    one = {bundle.digest: np.array([[0.9, 0.1, 0.1], [0.9, 0.6, 0.1]], dtype=np.float32)}
    other = {bundle.digest: np.array([[0.8, 0.1, 0.1], [0.4, 0.6, 0.55]], dtype=np.float32)}
    found = difference([bundle], one, other)
    assert (found.pictures.tolist(), found.tags, found.of) == ([False, True], 2, 6)
    assert found.worst == pytest.approx(0.5)
