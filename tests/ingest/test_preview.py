"""Previews: how large they are, and that nothing but the picture is in them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from shoetagger.images.decode import Limits, open_with_size
from shoetagger.ingest.preview import MOST_BYTES, preview

LIMITS = Limits(max_bytes=10**7, max_pixels=10**8)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def made(data: bytes, pixels: int = 64) -> Image.Image | None:
    """The preview of what a worker has decoded for a model that sees 22 pixels."""
    jpeg = preview(data, open_with_size(data, LIMITS, longest=22), LIMITS, pixels)
    return None if jpeg is None else Image.open(io.BytesIO(jpeg), formats=["JPEG"])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((30, 40), (30, 40)),
        ((90, 60), (90, 60)),
        ((91, 60), (46, 30)),
        ((128, 96), (64, 48)),
        ((300, 400), (38, 50)),
        ((1001, 10), (63, 1)),
    ],
)
def test_a_preview_is_the_picture_halved_to_about_the_size(
    kind: str, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    found = made(encoded(Image.new("RGB", size, "teal"), kind))
    assert found is not None
    assert found.size == expected
    assert max(found.size) <= 1.42 * 64
    assert max(found.size) >= min(max(size), 0.7 * 64)


def test_a_preview_shows_the_picture_upright_and_without_what_else_its_file_said() -> None:
    shoe = Image.new("RGB", (200, 100), "red")
    shoe.paste("blue", (0, 0, 100, 100))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "her name"  # turned by 90 degrees; a description
    data = encoded(shoe, exif=exif, comment=b"her address", quality=95)
    jpeg = preview(data, open_with_size(data, LIMITS), LIMITS, 64)
    assert jpeg is not None
    assert b"her " not in jpeg
    found = Image.open(io.BytesIO(jpeg))
    assert found.size == (25, 50)
    assert found.getpixel((12, 5))[2] > 200, "the left half is above after the turn"


def test_a_preview_that_would_be_too_large_is_none() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "BMP")
    assert preview(data, open_with_size(data, LIMITS), LIMITS, 1200) is None
    half = preview(data, open_with_size(data, LIMITS), LIMITS, 600)
    assert half is not None
    assert len(half) <= MOST_BYTES
