"""A preview of a picture, by which people judge its tags: a JPEG made while it is decoded."""

from __future__ import annotations

import io
import math

from PIL import Image

from ..images.decode import Limits, Opened, open_with_size

MOST_BYTES = 256 * 1024  # of one preview; a usual one has a sixth of that
_QUALITIES = (80, 50)

# What a JPEG's decoder is asked for, as a share of what is wanted: it rounds up generously.
_ASKED = 1 / 1.6


def preview(data: bytes, opened: Opened, limits: Limits, pixels: int) -> bytes | None:
    """Return a JPEG of a picture, its longer side `pixels` or a little more or less.

    The picture is halved as often as brings it nearest to `pixels`, and never enlarged: so the
    longer side lies between 0.7 and 1.4 times `pixels`, or is the picture's own if that is smaller.
    Halving costs a tenth of resizing to a size. `opened`, decoded from `data` before, is used where
    it is large enough. Metadata is left out. None for a picture of which no JPEG is small enough.
    Raises Rejected and MemoryError.
    """
    longest = max(opened.size)
    divisor = 2 ** max(0, round(math.log2(longest / pixels)))
    image = opened.image
    if _divided(image, longest) > divisor:
        asked = max(1, int(longest / divisor * _ASKED))
        image = open_with_size(data, limits, longest=asked).image
    image = image.reduce(max(1, divisor // _divided(image, longest)))
    for quality in _QUALITIES:
        jpeg = io.BytesIO()
        image.save(jpeg, "JPEG", quality=quality, comment=b"")
        if jpeg.tell() <= MOST_BYTES:
            return jpeg.getvalue()
    return None


def _divided(image: Image.Image, longest: int) -> int:
    """Return by what a decoder divided the sides of a picture: 1, 2, 4 or 8."""
    return round(longest / max(image.size))
