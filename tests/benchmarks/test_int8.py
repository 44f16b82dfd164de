"""The frozen backbone in int8: heads see nearly what they see of it in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.bundles import make_bundles
from benchmarks.int8 import RUNTIMES, Int8Engine, Runtime, batches_of, layers_of, maps_of, pooled_by

from shoetagger.images.views import Transform
from shoetagger.inference.engine import Engine

TRANSFORM = Transform(size=64)
SEEN = [("histogram", "layer1", "layer3_contrast"), ("layer3", "layer4")]

pytestmark = pytest.mark.slow


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    return make_bundles(tmp_path / "bundles", 3, "layer4", SEEN, TRANSFORM)


@pytest.fixture
def views() -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def quantised(runtime: Runtime, folders: list[Path], views: np.ndarray, file: Path) -> Int8Engine:
    if runtime.missing:
        pytest.skip(f"needs {', '.join(runtime.missing)}, which are not in the lock")
    maps = maps_of(layers_of(folders[0]), pooled_by(Engine(folders, "cpu").bundles))
    runtime.quantise(maps, batches_of(views, TRANSFORM), file)
    return Int8Engine(folders, runtime, file)


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_engine_in_int8_scores_as_one_in_float32_but_for_rounding(
    name: str, folders: list[Path], views: np.ndarray, tmp_path: Path
) -> None:
    found = quantised(RUNTIMES[name], folders, views, tmp_path / "file").score({TRANSFORM: views})
    exact = Engine(folders, "cpu", "float32").score({TRANSFORM: views})
    assert found.keys() == exact.keys()
    differences = np.concatenate([np.abs(found[d] - exact[d]).ravel() for d in exact])
    assert 0 < differences.mean() < 0.02
    assert differences.max() < 0.15


def test_ranges_are_read_from_the_file(
    folders: list[Path], views: np.ndarray, tmp_path: Path
) -> None:
    engine = quantised(RUNTIMES["torch"], folders, views, tmp_path / "file")
    narrow = quantised(RUNTIMES["torch"], folders, views[:1] // 8, tmp_path / "other")
    pictures = torch.randn(2, 3, 64, 64)
    seen, cut = (each._backbone.network(pictures)[-1] for each in (engine, narrow))
    assert (seen - cut).abs().max() > 0.1


def test_bundles_of_several_backbones_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no weights"))
    folders = make_bundles(tmp_path, 2, "layer3", [("layer4",)], TRANSFORM)
    with pytest.raises(ValueError, match="have not all the same"):
        Int8Engine(folders, RUNTIMES["torch"], tmp_path / "file")


def test_a_runtime_tells_which_of_its_packages_are_missing_and_how_large_they_are() -> None:
    own = RUNTIMES["torch"]
    assert (own.missing, own.megabytes) == ((), 0)
    there = Runtime("", own.quantise, own.open, tagging=("numpy",), quantising=("no_such",))
    assert there.missing == ("no_such",)
    assert there.megabytes > 1
