"""States are computed once per view and picture, and are the same however they came about."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bundles import random_model
from PIL import Image

from shoetagger.config import params as parameters
from shoetagger.images.decode import Limits, Rejected, image_id
from shoetagger.images.views import Transform
from shoetagger.learning.training import view_cache
from shoetagger.learning.training.feature_files import Work, compute
from shoetagger.learning.training.features import INDEX_FILE, Index, Live
from shoetagger.learning.training.images import ImageDataset
from shoetagger.network.digests import prefix_digests

CPU = torch.device("cpu")
AUGMENT = parameters.load(Path(__file__).parents[2] / "params.yaml").images.augment
LIMITS = Limits(max_bytes=10**6, max_pixels=10**6)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Seven small pictures, no two alike."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(7):
        pixels = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


@dataclass
class Stage:
    """The stage's computation on some pictures, and what it said."""

    out: Path
    cache: Path | None = None
    freeze: str = "layer1"
    views: int = 3
    max_gb: float = 1.0
    seed: int = 1
    said: list[Work] = field(default_factory=list)
    on_batch: Callable[[int, int], None] = lambda *_: None

    def run(self, paths: Sequence[Path]) -> Index:
        model = random_model(1, backbone_seed=0, head_seed=0, pooled=("histogram", "layer1"))
        dataset = ImageDataset(paths, Transform(size=32), LIMITS, augment=AUGMENT, seed=self.seed)
        return compute(
            model, dataset, [image_id(path.read_bytes()) for path in paths],
            freeze=self.freeze, views=self.views, max_gb=self.max_gb,
            prefix=prefix_digests(model, dataset.transform)[self.freeze],
            directory=self.out, cache=self.cache, device=CPU,
            on_work=self.said.append, on_batch=self.on_batch,
        )  # fmt: skip

    @property
    def kept(self) -> int:
        return self.said[-1].kept


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_states_are_those_of_a_picture_alone(pictures: list[Path], tmp_path: Path) -> None:
    Stage(tmp_path).run(pictures)
    model = random_model(1, backbone_seed=0, head_seed=0, pooled=("histogram", "layer1"))
    dataset = ImageDataset(pictures, Transform(size=32), LIMITS, augment=AUGMENT, seed=1)
    state = Live(model, dataset, "layer1", 3, CPU).state(
        [*(dataset.view(4, number) for number in range(3)), dataset.plain(4)]
    )
    written = {path.stem: np.load(path)[:, 4] for path in tmp_path.glob("*.npy")}
    assert (written.pop("map") == state.output.half().numpy()).all()
    for name, planes in written.items():
        expected = state.pooled[name.removeprefix("pooled_")].half().numpy()
        assert (planes == expected).all(), name


@pytest.mark.slow
def test_a_second_run_computes_new_pictures_alone_and_writes_the_same_files(
    pictures: list[Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    Stage(tmp_path / "first", cache).run(pictures[:5])
    with_cache, without = Stage(tmp_path / "with", cache), Stage(tmp_path / "without")
    order = [*pictures[5:], *pictures[:4]]  # two new ones first, and one less
    with_cache.run(order)
    without.run(order)
    assert with_cache.said == [Work(6, 24, 16, with_cache.said[0].seconds)]
    assert without.kept == 0
    assert contents(with_cache.out) == contents(without.out)
    again = Stage(tmp_path / "again", cache)
    again.run(pictures)
    assert again.kept == 28


@pytest.mark.slow
def test_what_states_depend_on_keeps_them_apart(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    Stage(tmp_path / "out", cache).run(pictures[:2])
    for other in ({"seed": 2}, {"freeze": "stem"}, {"views": 2}):
        stage = Stage(tmp_path / "out", cache, **other)
        stage.run(pictures[:2])
        assert stage.kept == 0, other
    code = tmp_path / "code.py"
    code.write_text("# draws views in another way\n")
    monkeypatch.setattr(view_cache, "_CODE", (code,))
    stage = Stage(tmp_path / "out", cache)
    stage.run(pictures[:2])
    assert stage.kept == 0


def test_a_damaged_file_is_computed_again(pictures: list[Path], tmp_path: Path) -> None:
    cache, good = tmp_path / "cache", Stage(tmp_path / "good")
    Stage(tmp_path / "first", cache).run(pictures[:3])
    good.run(pictures[:3])
    cut, empty, _ = sorted(cache.rglob("*.safetensors"))
    cut.write_bytes(cut.read_bytes()[:-10])
    empty.write_bytes(b"")
    stage = Stage(tmp_path / "second", cache)
    stage.run(pictures[:3])
    assert contents(stage.out) == contents(good.out)


def test_the_cache_stays_within_its_size_and_loses_first_what_was_not_used_for_longest(
    pictures: list[Path], tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    Stage(tmp_path / "out", cache).run(pictures)
    files = sorted(cache.rglob("*.safetensors"))
    for age, file in enumerate(files):  # the last one was used last
        os.utime(file, (10**9 + age, 10**9 + age))
    size = files[0].stat().st_size
    # Another seed, two pictures: with room for five, three of the seven stay.
    stage = Stage(tmp_path / "other", cache, seed=2, max_gb=5.2 * size / 1e9)
    stage.run(pictures[:2])
    left = sorted(cache.rglob("*.safetensors"))
    assert [file for file in files if file in left] == files[-3:]
    assert len(left) == 5
    assert sum(file.stat().st_size for file in left) <= 5.2 * size


def test_a_folder_that_cannot_be_read_as_a_picture_is_named(
    pictures: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:200])
    with pytest.raises(Rejected, match=r"broken\.png: "):
        Stage(tmp_path / "out").run([*pictures[:3], broken])
    assert not (tmp_path / "out" / INDEX_FILE).exists()


def test_only_a_few_pictures_are_in_memory_at_a_time(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, most = [], 0
    views = ImageDataset.views
    monkeypatch.setattr(
        ImageDataset,
        "views",
        lambda self, row, numbers: begun.append(row) or views(self, row, numbers),
    )

    def on_batch(done: int, _: int) -> None:
        nonlocal most
        most = max(most, len(begun) - done)

    Stage(tmp_path / "out", views=1, freeze="stem", on_batch=on_batch).run(pictures * 9)
    assert len(begun) == 63
    assert most <= 2 * torch.get_num_threads()
