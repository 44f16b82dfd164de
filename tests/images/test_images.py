from __future__ import annotations

import dataclasses
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.corpus import (
    FORMATS,
    ISO_MEDIA,
    LIMITS,
    corpus,
    deep_png,
    encode,
    oriented,
    plain,
    shoe,
    swapped_profile,
    ycck,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from shoetagger.config.recipe import Augment
from shoetagger.images.backgrounds import draw_background
from shoetagger.images.decode import (
    Limits,
    Rejected,
    image_id,
    open_image,
    open_with_size,
    unreadable,
)
from shoetagger.images.views import Transform, TransformError, tagging_view, training_view
from shoetagger.learning.training.images import ImageDataset

NONE = Augment(
    min_scale=1.0, flip=0.0, rotate=0.0, brightness=0.0, contrast=0.0,
    saturation=0.0, hue=0.0, erase=0.0, background=0.0,
)  # fmt: skip
ALL = Augment(
    min_scale=0.7, flip=0.5, rotate=8.0, brightness=0.15, contrast=0.15,
    saturation=0.1, hue=0.02, erase=0.3, background=0.5,
)  # fmt: skip
BIG = Limits(max_bytes=50_000_000, max_pixels=100_000_000)
WEIGHTS = Path("weights.safetensors")


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_image(data, LIMITS)).astype(int)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


# --- bytes to picture ---


@pytest.mark.slow
def test_every_file_of_the_corpus_ends_as_it_must() -> None:
    cases = corpus()
    assert len(cases) >= 300
    wrong = []
    for case in cases:
        try:
            opened = open_with_size(case.data, LIMITS, longest=224)
        except Rejected as error:
            if case.outcome == "tagged" or case.reason not in error.reason:
                wrong.append(f"{case.name}: rejected, {error.reason}")
            continue
        if case.outcome == "rejected" or opened.image.mode != "RGB":
            wrong.append(f"{case.name}: {opened.image.mode} {opened.size}")
    assert wrong == []


@pytest.mark.slow
@given(
    form=st.sampled_from((*FORMATS, *ISO_MEDIA)),
    cut=st.floats(0, 1),
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=0, max_size=6)), max_size=8
    ),
)
@settings(max_examples=250, deadline=None)
def test_mutated_pictures_end_as_a_picture_or_rejected(
    form: str, cut: float, edits: list[tuple[float, bytes]]
) -> None:
    data = bytearray(plain(form))
    for place, new in edits:
        # Headers are short and hold what decoders trust: hit them as often as the rest.
        at = int(place * 2 * len(data)) if place < 0.5 else int((place - 0.5) * 2 * 64)
        data[at : at + len(new)] = new
    del data[int(len(data) * max(cut, 0.02)) :]
    try:
        image = open_image(bytes(data), LIMITS, longest=64)
    except Rejected:
        return
    assert tagging_view(image, Transform(size=64)).shape == (64, 64, 3)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG", "WebP", "AVIF", "HEIC"])
def test_eight_orientations_show_the_same_picture(form: str) -> None:
    options = {} if form in ("PNG", "TIFF") else {"quality": 95}
    image = shoe()
    for orientation in range(1, 9):
        opened = open_with_size(oriented(orientation, form, image, **options), LIMITS)
        assert opened.size == opened.image.size == (120, 80)
        assert difference(np.asarray(opened.image), np.asarray(image)) < 2.5


def test_a_turned_jpeg_that_is_reduced_reports_its_full_upright_size() -> None:
    opened = open_with_size(oriented(6, "JPEG", shoe((800, 600))), LIMITS, longest=64)
    assert opened.size == (800, 600)
    assert opened.image.size == (100, 75)


def test_transparency_is_put_on_white() -> None:
    see_through = shoe().convert("RGBA")
    see_through.putalpha(0)
    for form in ("PNG", "WebP", "TIFF", "AVIF", "HEIC"):
        assert (pixels(encode(see_through, form)) == 255).all()
    palette = Image.new("P", (4, 4), 7)
    palette.putpalette([9] * 768)
    for form in ("PNG", "GIF"):
        assert (pixels(encode(palette, form, transparency=7)) == 255).all()
    half = Image.new("LA", (4, 4), (0, 128))
    assert (pixels(encode(half, "PNG")) == 127).all()


def test_ink_colours_come_out_as_they_went_in() -> None:
    image = shoe()
    wanted = np.asarray(image)
    cmyk = encode(image.convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert difference(pixels(cmyk), wanted) < 3
    assert difference(pixels(ycck(image)), wanted) < 3


def test_sixteen_bits_are_scaled_not_cut() -> None:
    grey = np.asarray(shoe().convert("L"))
    for form in ("PNG", "TIFF"):
        deep = encode(Image.fromarray(grey.astype(np.uint16) * 257), form)
        assert (pixels(deep) == grey[..., None]).all()
    assert (pixels(deep_png(shoe())) == np.asarray(shoe())).all()
    assert (
        pixels(encode(Image.fromarray(grey / np.float32(255)), "TIFF")) == grey[..., None]
    ).all()


def test_a_colour_profile_is_applied_when_it_is_valid_and_of_these_colours() -> None:
    image = Image.new("RGB", (8, 8), (200, 30, 40))
    swapped = pixels(encode(image, "PNG", icc_profile=swapped_profile()))[0, 0]
    assert swapped[1] > 150 > 100 > swapped[0]
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for ignored in (srgb, lab, swapped_profile()[:200], b"\xff" * 300):
        assert tuple(pixels(encode(image, "PNG", icc_profile=ignored))[0, 0]) == (200, 30, 40)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WebP", "TIFF", "AVIF", "HEIC"])
def test_of_an_animation_the_first_frame_counts(form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    data = encode(frames[0], form, save_all=True, append_images=frames[1:])
    red, green, blue = pixels(data)[8, 8]
    assert red > 240
    assert max(green, blue) < 15


@pytest.mark.parametrize(
    ("longer_side", "reduced_to"), [(335, 335), (336, 336), (700, 350), (1500, 375), (4000, 500)]
)
def test_a_reduced_jpeg_gives_the_same_view_within_a_level_and_a_half(
    longer_side: int, reduced_to: int
) -> None:
    # Grain of about three pixels of the view, a fifth of the full range.
    rng = np.random.default_rng(0)
    size = longer_side, longer_side * 3 // 4
    grain = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize(size)
    image = Image.blend(shoe(size), grain, 0.2)
    data = encode(image, "JPEG", quality=90)
    whole = tagging_view(open_image(data, BIG), Transform())
    opened = open_with_size(data, BIG, longest=224)
    assert opened.size == size
    assert opened.image.width == reduced_to
    view = tagging_view(opened.image, Transform())
    assert difference(view, whole) < 1.5
    assert np.percentile(np.abs(view.astype(int) - whole), 99) <= 10


def test_limits_hold_at_their_very_edge() -> None:
    data = encode(Image.new("RGB", (50, 40)), "PNG")
    assert open_image(data, Limits(len(data), 2000)).size == (50, 40)
    with pytest.raises(Rejected, match=r"too many pixels \(2000, limit 1999\)"):
        open_image(data, Limits(len(data), 1999))
    with pytest.raises(Rejected, match="too large a file"):
        open_image(data, Limits(len(data) - 1, 2000))


def test_our_limits_count_whatever_pillows_own_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for form in ("JPEG", "PNG", "BMP", "AVIF", "HEIC"):
        assert open_image(plain(form), LIMITS).size == (120, 80)


def test_neither_filters_of_warnings_nor_truncated_files_change_what_is_accepted() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    broken_exif = encode(shoe(), "JPEG", exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    palette = encode(shoe().convert("P"), "PNG", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (broken_exif, palette):
            assert open_image(data, LIMITS).size == (120, 80)


def test_only_a_file_that_more_bytes_could_mend_is_called_unfinished() -> None:
    for data, unfinished in (
        (b"", True),
        (bytes(100), True),
        (plain("JPEG")[:500], True),
        (plain("PNG")[:5], True),
        (b"<html>", False),
        (encode(Image.new("1", (1001, 1000)), "PNG"), False),
    ):
        with pytest.raises(Rejected) as caught:
            open_image(data, LIMITS)
        assert caught.value.unfinished is unfinished


def test_an_image_id_is_the_sha256_of_the_bytes() -> None:
    assert image_id(b"abc").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


# --- the tagging transform ---


@pytest.mark.parametrize("size", [(1, 1), (20000, 2), (3, 5), (224, 224), (500, 300), (64, 900)])
def test_a_tagging_view_shows_the_whole_picture_in_a_padded_square(size: tuple[int, int]) -> None:
    view = tagging_view(Image.new("RGB", size, (10, 20, 30)), Transform(size=96, fill=200))
    assert view.shape == (96, 96, 3)
    assert view.dtype == np.uint8
    inside = (view == (10, 20, 30)).all(axis=2)
    assert (view[~inside] == 200).all()
    longest, shortest = max(size), min(size)
    assert inside.any(axis=0).sum() == (96 if size[0] == longest else inside.any(axis=0).sum())
    assert sorted((inside.any(axis=0).sum(), inside.any(axis=1).sum())) == [
        max(1, round(96 * shortest / longest)),
        96,
    ]


def test_a_tagging_view_is_antialiased() -> None:
    stripes = np.zeros((960, 960, 3), dtype=np.uint8)
    stripes[::2] = 255
    view = tagging_view(Image.fromarray(stripes), Transform(size=96))
    assert np.abs(view.astype(int) - 127).max() <= 6


def test_a_transform_comes_back_from_its_dict() -> None:
    transform = Transform(size=160, fill=0, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    assert Transform.from_dict(transform.as_dict(), WEIGHTS) == transform


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sise": 3}, "sise"),
        ({"size": "224"}, "transform.size: '224'"),
        ({"size": True}, "transform.size"),
        ({"fill": 256}, "transform.fill"),
        ({"mean": [0.5, 0.5]}, "transform.mean"),
        ({"std": [0.5, 0.5, 0]}, "transform.std"),
        ({"std": [0.5, 0.5, float("nan")]}, "transform.std"),
    ],
)
def test_a_wrong_transform_is_refused_by_its_key(change: dict[str, object], named: str) -> None:
    with pytest.raises(TransformError, match=named):
        Transform.from_dict(Transform().as_dict() | change, WEIGHTS)


def test_a_transform_with_a_missing_key_is_refused() -> None:
    with pytest.raises(TransformError, match="size, fill, mean, std"):
        Transform.from_dict({"size": 224}, WEIGHTS)


# --- the training transform ---


def views(augment: Augment, image: Image.Image, count: int = 20) -> list[np.ndarray]:
    return [
        training_view(image, None, Transform(size=64), augment, np.random.default_rng(number))
        for number in range(count)
    ]


def test_a_training_view_without_changes_is_the_tagging_view() -> None:
    image = shoe((200, 200))
    wanted = tagging_view(image, Transform(size=64))
    assert all((view == wanted).all() for view in views(NONE, image, 5))


def test_the_same_generator_draws_the_same_view() -> None:
    image = shoe()
    for first, second in zip(views(ALL, image), views(ALL, image), strict=True):
        assert (first == second).all()
    assert not (views(ALL, image, 2)[0] == views(ALL, image, 2)[1]).all()


@pytest.mark.parametrize("size", [(1, 1), (2000, 2), (2, 2000), (30, 30)])
def test_odd_sizes_can_be_trained_on(size: tuple[int, int]) -> None:
    always = dataclasses.replace(ALL, background=1.0, erase=1.0)
    for view in views(always, shoe(size), 10):
        assert view.shape == (64, 64, 3)
        assert view.dtype == np.uint8


def test_zoom_and_shift_keep_most_of_the_shoe_in_view() -> None:
    augment = dataclasses.replace(NONE, min_scale=0.7)
    black = Image.new("RGB", (128, 128))
    shares = [(view < 128).mean() for view in views(augment, black, 60)]
    assert 0.66 < min(shares) < 0.8
    assert max(shares) == 1
    across = np.tile(np.linspace(0, 255, 128).astype(np.uint8)[None, :, None], (128, 1, 3))
    for view in views(augment, Image.fromarray(across), 60):
        shown = view[32, :, 0][view[32, :, 0] < 255].astype(int)
        assert shown.max() - shown.min() > 255 * 0.7**0.5 - 12


def test_flips_come_with_their_chance() -> None:
    image = shoe((64, 64))
    plain_view = tagging_view(image, Transform(size=64))
    always = views(dataclasses.replace(NONE, flip=1.0), image, 4)
    assert all((view == plain_view[:, ::-1]).all() for view in always)
    half = views(dataclasses.replace(NONE, flip=0.5), image, 100)
    assert 30 < sum((view != plain_view).any() for view in half) < 70


def test_tones_stay_within_their_strength() -> None:
    grey = Image.new("RGB", (64, 64), (100, 100, 100))
    for view in views(dataclasses.replace(NONE, brightness=0.2), grey):
        assert 79 <= view.min() <= view.max() <= 121
    red = Image.new("RGB", (64, 64), (200, 50, 50))
    for view in views(dataclasses.replace(NONE, saturation=0.5), red):
        assert view[0, 0, 0] > view[0, 0, 1] == view[0, 0, 2]
    for view in views(dataclasses.replace(NONE, hue=0.5), grey):
        assert np.abs(view.astype(int) - 100).max() <= 1


def test_turned_corners_are_filled() -> None:
    black = Image.new("RGB", (64, 64))
    turned = views(dataclasses.replace(NONE, rotate=30.0), black)
    assert any((view[0, 0] == 255).all() for view in turned)
    assert all((view[32, 32] == 0).all() for view in turned)


def test_erasing_paints_a_rectangle() -> None:
    for view in views(dataclasses.replace(NONE, erase=1.0), Image.new("RGB", (64, 64))):
        assert 0.015 < (view != 0).any(axis=2).mean() < 0.25


def test_a_plain_background_is_replaced_and_the_shoe_kept() -> None:
    studio = np.full((64, 64, 3), 250, dtype=np.uint8)
    studio[20:44, 16:48] = (160, 30, 30)
    studio[28:36, 24:40] = 250  # a white stripe within the shoe is no background
    for view in views(dataclasses.replace(NONE, background=1.0), Image.fromarray(studio)):
        assert np.abs(view[22:42, 18:46].astype(int) - studio[22:42, 18:46]).max() <= 2
        assert (np.abs(view.astype(int) - 250).max(axis=2) > 4)[:12].mean() > 0.5


def test_a_background_that_is_not_plain_is_left() -> None:
    rng = np.random.default_rng(3)
    floor = Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    blank = Image.new("RGB", (64, 64), "white")
    for image in (floor, blank):
        wanted = tagging_view(image, Transform(size=64))
        drawn = views(dataclasses.replace(NONE, background=1.0), image, 5)
        assert all((view == wanted).all() for view in drawn)


@pytest.mark.parametrize("size", [32, 224])
def test_backgrounds_differ(size: int) -> None:
    drawn = [draw_background(size, np.random.default_rng(number)) for number in range(30)]
    assert all(ground.shape == (size, size, 3) for ground in drawn)
    assert len({ground.tobytes() for ground in drawn}) == 30


# --- the Dataset ---


def files(folder: Path, count: int = 3) -> list[Path]:
    paths = [folder / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(shoe((90 + number, 60)), "JPEG"))
    return paths


def test_a_view_depends_on_picture_seed_and_number_alone(tmp_path: Path) -> None:
    paths = files(tmp_path)
    dataset = ImageDataset(paths, Transform(size=64), LIMITS, augment=ALL, seed=7)
    again = ImageDataset(paths, Transform(size=64), LIMITS, augment=ALL, seed=7)
    alone = ImageDataset([paths[2]], Transform(size=64), LIMITS, augment=ALL, seed=7)
    assert len(dataset) == 3
    drawn = {(row, number): dataset.view(row, number) for row in range(3) for number in range(4)}
    for row, number in ((2, 3), (0, 0), (1, 1), (1, 2)):
        assert (again.view(row, number) == drawn[row, number]).all()
    assert (alone.view(0, 3) == drawn[2, 3]).all()
    assert len({view.tobytes() for view in drawn.values()}) == 12
    other = ImageDataset(paths, Transform(size=64), LIMITS, augment=ALL, seed=8)
    assert (other.view(0, 0) != drawn[0, 0]).any()


def test_the_plain_view_is_the_tagging_view(tmp_path: Path) -> None:
    paths = files(tmp_path)
    dataset = ImageDataset(paths, Transform(size=64), LIMITS)
    for row, path in enumerate(paths):
        image = open_image(path.read_bytes(), LIMITS, longest=64)
        assert (dataset.plain(row) == tagging_view(image, Transform(size=64))).all()
    with pytest.raises(ValueError, match="no augment"):
        dataset.view(0, 0)


def test_a_file_that_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a shoe.jpg").write_bytes(b"<html>")
    dataset = ImageDataset([tmp_path / "a shoe.jpg"], Transform(), LIMITS)
    with pytest.raises(Rejected, match=r"a shoe\.jpg: not a picture, but a web page"):
        dataset.plain(0)


def test_pillow_reads_what_open_image_reads() -> None:
    for form in FORMATS:
        wanted = Image.open(io.BytesIO(plain(form))).convert("RGB")
        assert (pixels(plain(form)) == np.asarray(wanted)).all()


def test_unreadable_says_why_or_nothing(tmp_path: Path) -> None:
    (good,) = files(tmp_path, 1)
    (tmp_path / "cut.jpg").write_bytes(plain("JPEG")[:900])
    assert unreadable(good, LIMITS) is None
    assert "truncated JPEG" in (unreadable(tmp_path / "cut.jpg", LIMITS) or "")
    assert "No such file" in (unreadable(tmp_path / "none.jpg", LIMITS) or "")
