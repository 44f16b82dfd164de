"""The benchmark of GPUs runs on a CPU as well, on few pictures; no time is checked here."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import gpu, gpu_page
from benchmarks.agreement import difference
from benchmarks.copies import make_copies
from benchmarks.pieces import square
from helpers import sample
from helpers.bundles import write_bundle
from PIL import Image

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


def test_a_difference_counts_pictures_and_tags(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    one = {bundle.digest: np.array([[0.9, 0.1, 0.1], [0.9, 0.6, 0.1]], dtype=np.float32)}
    other = {bundle.digest: np.array([[0.8, 0.1, 0.1], [0.4, 0.6, 0.55]], dtype=np.float32)}
    found = difference([bundle], one, other)
    assert (found.pictures.tolist(), found.tags, found.of) == ([False, True], 2, 6)
    assert found.worst == pytest.approx(0.5)
