from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from shoetagger.config import params
from shoetagger.demo.painter import draw_shoe
from shoetagger.demo.sample import arrival_tags, main, write_arrivals, write_samples
from shoetagger.demo.shapes import TAGS
from shoetagger.errors import ShoetaggerError
from shoetagger.learning.dataset.labels import read_labels
from shoetagger.learning.dataset.sheet import find_sheet

REPO = Path(__file__).parents[2]
SMALL = (64, 64)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shoetagger.demo.sample._SIZES", ((48, 48),) * 5)


def drawn(*tags: str, seed: int = 0, size: tuple[int, int] = SMALL) -> np.ndarray:
    picture = draw_shoe(frozenset(tags), np.random.default_rng(seed), size)
    assert picture.mode == "RGB"
    assert picture.size == size
    return np.asarray(picture, dtype=float)


def shoe_color(pixels: np.ndarray) -> np.ndarray:
    """Return the median RGB of what differs clearly from the backdrop."""
    differs = np.abs(pixels - pixels[0, 0]).max(axis=2) > 60
    return np.median(pixels[differs], axis=0)


def test_the_tags_are_those_of_params() -> None:
    assert params.load(REPO / "params.yaml").tags == TAGS


def test_the_same_seed_gives_the_same_picture_and_another_seed_another() -> None:
    assert (drawn("red", "boot", seed=3) == drawn("red", "boot", seed=3)).all()
    assert (drawn("red", "boot", seed=3) != drawn("red", "boot", seed=4)).any()


@pytest.mark.parametrize("style", ["boot", "heel", "sneaker", "sandal", "flat", "loafer"])
def test_every_style_is_drawn_on_a_plain_light_ground_and_fills_the_picture(style: str) -> None:
    pixels = drawn("black", style)
    assert pixels[:3].min() > 230
    dark_columns = (pixels.min(axis=2) < 128).any(axis=0)
    assert dark_columns.mean() > 0.5


def test_colours_show() -> None:
    red, blue, black = (shoe_color(drawn(c, "boot")) for c in ("red", "blue", "black"))
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]
    assert black.max() < 80


def test_every_detail_changes_the_picture() -> None:
    plain = drawn("grey", "flat")
    for detail in ("patterned", "shiny", "leather", "studded"):
        assert np.abs(drawn("grey", "flat", detail) - plain).mean() > 0.2


def test_any_set_of_known_tags_can_be_drawn_and_an_unknown_one_is_named() -> None:
    rng = np.random.default_rng(0)
    draw_shoe(frozenset(), rng, (32, 32))
    draw_shoe(frozenset(TAGS), rng, (32, 32))
    draw_shoe(frozenset({"flat", "above_ankle"}), rng, (48, 32))
    with pytest.raises(ValueError, match="wellington"):
        draw_shoe(frozenset({"boot", "wellington"}), rng, SMALL)


@pytest.mark.slow
@pytest.mark.usefixtures("small_files")
def test_samples_are_a_valid_label_sheet_with_odd_file_names(tmp_path: Path) -> None:
    write_samples(tmp_path / "data", count=60, seed=1)
    sheet = find_sheet(tmp_path / "data")
    labels = read_labels(sheet, sheet.parent / "images", TAGS, unreadable=lambda _: None)
    assert len(labels.names) == 60
    assert labels.warnings == ()
    assert any(not name.isascii() for name in labels.names)
    assert any(" " in name for name in labels.names)
    assert (labels.matrix.sum(axis=0) >= 3).all()
    assert (labels.matrix.sum(axis=1) >= 2).all()

    before = sheet.read_bytes()
    with pytest.raises(ShoetaggerError, match=r"labels\.csv is there already"):
        write_samples(tmp_path / "data", count=5)
    assert sheet.read_bytes() == before
    write_samples(tmp_path / "again", count=60, seed=1)
    assert (tmp_path / "again" / "labels.csv").read_bytes() == before
    for name in labels.names:
        pictures = [tmp_path / d / "images" / name for d in ("data", "again")]
        assert pictures[0].read_bytes() == pictures[1].read_bytes()


@pytest.mark.usefixtures("small_files")
def test_arrivals_come_without_labels_and_some_are_broken_on_request(tmp_path: Path) -> None:
    shown = write_arrivals(tmp_path, 6, seed=2, with_bad=True)
    assert len(shown) == 6
    assert {path.name: tags for path, tags in shown.items()} == arrival_tags(6, seed=2)
    assert all(tags <= set(TAGS) for tags in shown.values())
    for path in shown:
        with Image.open(path) as picture:
            picture.load()
    bad = set(tmp_path.iterdir()) - set(shown)
    assert len(bad) == 3
    for path in bad:
        with pytest.raises((UnidentifiedImageError, OSError)), Image.open(path) as picture:
            picture.load()
    others = write_arrivals(tmp_path, 6, seed=3)
    assert not set(others) & set(shown)


@pytest.mark.usefixtures("small_files")
def test_the_command_line_writes_data_or_arrivals_and_says_what_is_in_the_way(
    tmp_path: Path,
) -> None:
    main([str(tmp_path / "data"), "--count", "2", "--seed", "5"])
    with (tmp_path / "data" / "labels.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["image_name", *TAGS]
    main([str(tmp_path / "inbox"), "--arrivals", "--count", "1", "--with-bad"])
    assert len(list((tmp_path / "inbox").iterdir())) == 4
    with pytest.raises(SystemExit, match="is there already"):
        main([str(tmp_path / "data")])
