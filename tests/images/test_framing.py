"""A picture is cropped to what stands out from a plain border, and to nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shoetagger.config.recipe import Augment
from shoetagger.images.framing import shoe_box
from shoetagger.images.views import (
    Transform,
    TransformError,
    frame_of,
    tagging_view,
    training_view,
)

STILL = Augment(
    min_scale=1.0, flip=0.0, rotate=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0,
    erase=0.0, background=0.0,
)  # fmt: skip
SHOE = Transform(size=64, framing="shoe")
WEIGHTS = Path("weights.safetensors")


def picture(
    box: tuple[int, int, int, int], size: tuple[int, int] = (400, 300), ground: int = 240
) -> Image.Image:
    """Draw a red thing in a box (left, top, right, bottom) on a grey ground."""
    image = Image.new("RGB", size, (ground,) * 3)
    image.paste((180, 40, 40), box)
    return image


def share_of_red(view: np.ndarray) -> float:
    return float((view[..., 0].astype(int) - view[..., 1] > 60).mean())


@pytest.mark.parametrize("size", [(400, 300), (300, 400), (90, 60), (2400, 1800)])
def test_the_box_is_that_of_the_shoe_with_a_margin(size: tuple[int, int]) -> None:
    width, height = size
    thing = (width // 4, height // 3, width // 2, height // 2)
    box = shoe_box(picture(thing, size))
    assert box is not None
    near = 0.08 * max(thing[2] - thing[0], thing[3] - thing[1]) + 2 * max(size) / 90
    for edge, found, outwards in zip(thing, box, (-1, -1, 1, 1), strict=True):
        assert 0 <= outwards * (found - edge) <= near


def test_a_shoe_at_the_edge_keeps_the_edge() -> None:
    box = shoe_box(picture((200, 250, 400, 300)))
    assert box is not None
    assert box[2:] == (400, 300)
    assert box[:2] == pytest.approx((188, 238), abs=5)


def test_dust_and_writing_are_not_the_shoe() -> None:
    image = picture((100, 100, 300, 200))
    wanted = shoe_box(image)
    image.putpixel((10, 10), (0, 0, 0))
    image.paste((0, 0, 0), (390, 5, 392, 6))
    assert shoe_box(image) == wanted
    assert shoe_box(picture((10, 10, 30, 14))) is None


def test_a_picture_whose_border_is_not_plain_stays_whole() -> None:
    rng = np.random.default_rng(3)
    floor = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
    floor[20:40, 20:60] = 255
    for image in (Image.fromarray(floor), Image.new("RGB", (80, 60), "white")):
        assert shoe_box(image) is None
        whole = tagging_view(image, Transform(size=64))
        assert (tagging_view(image, SHOE) == whole).all()


@pytest.mark.parametrize("size", [(1, 1), (2000, 2), (2, 2000), (7, 5), (2000, 31)])
def test_odd_sizes_are_framed_as_well(size: tuple[int, int]) -> None:
    width, height = size
    thing = (width // 4, height // 4, width - width // 4, height - height // 4)
    image = picture(thing, size)
    assert tagging_view(image, SHOE).shape == (64, 64, 3)
    if box := shoe_box(image):
        assert box[0] <= thing[0] < thing[2] <= box[2]
        assert box[1] <= thing[1] < thing[3] <= box[3]


def test_the_square_shows_a_small_shoe_as_large_as_a_large_one() -> None:
    large, small = picture((20, 20, 380, 280)), picture((160, 120, 340, 250))
    views = [tagging_view(image, SHOE) for image in (large, small)]
    shares = [share_of_red(view) for view in views]
    assert shares[1] == pytest.approx(shares[0], rel=0.1)
    assert share_of_red(tagging_view(small, Transform(size=64))) < 0.3 * shares[0]


def test_the_framing_is_part_of_the_transform_only_where_it_is_not_the_old_one() -> None:
    old = {"size": 224, "fill": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert Transform().as_dict() == old
    assert Transform.from_dict(old, WEIGHTS) == Transform()
    assert SHOE.as_dict()["framing"] == "shoe"
    assert Transform.from_dict(SHOE.as_dict(), WEIGHTS) == SHOE
    with pytest.raises(TransformError, match=r"transform\.framing: 'tight' is not one of whole"):
        Transform.from_dict(old | {"framing": "tight"}, WEIGHTS)


def test_training_views_are_framed_as_tagging_is() -> None:
    image = picture((160, 60, 340, 240))
    frame = frame_of(image, SHOE)
    view = training_view(image, frame, SHOE, STILL, np.random.default_rng(1))
    assert (view == tagging_view(image, SHOE)).all()
    # On another background the night could not have cropped it.
    replaced = dataclasses.replace(STILL, background=1.0)
    other = training_view(image, frame, SHOE, replaced, np.random.default_rng(1))
    assert share_of_red(other) < 0.4 * share_of_red(view)


def test_views_zoom_out_as_far_as_asked_on_the_ground_of_the_picture() -> None:
    image = picture((20, 20, 380, 280))
    shares, whole = [], share_of_red(tagging_view(image, Transform(size=64)))
    for number in range(60):
        augment = dataclasses.replace(STILL, zoom_out=0.5)
        view = training_view(
            image, None, Transform(size=64), augment, np.random.default_rng(number)
        )
        shares.append(share_of_red(view) / whole)
        # Around the picture is more of its ground, and then the square's padding, as in tagging.
        assert np.abs(view[32, [0, -1]].astype(int) - 240).max() <= 8
        assert (view == 255).all(axis=2).mean() == pytest.approx(0.25, abs=0.04)
    assert 0.23 < min(shares) < 0.3
    assert max(shares) == pytest.approx(1, abs=0.02)
