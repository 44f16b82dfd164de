"""Finds the shoe in a picture, so that it fills the square that models see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image

from .backgrounds import plain_ground
from .box import Box, within
from .detector import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LONGEST = 160  # pixels of the picture in which the shoe is looked for
_MARGIN = 0.06  # of the box's longer side, left on each side of the shoe
_LEAST = 0.1  # of the picture's longer side; what is smaller is dirt or writing


def find_frame(image: Image.Image, detector: Detector | None = None) -> Box | None:
    """Return the box of the shoe, where the border is plain or where a detector finds one.

    None where neither finds any: the picture stays whole. Raises DetectorError.
    """
    box = shoe_box(image)
    if box is None and detector is not None:
        box = detector.area(image)
    return box


def shoe_box(image: Image.Image) -> Box | None:
    """Return the box of what stands out from a plain border, with a margin.

    None where the border is not plain, or where nothing of some size stands out.
    """
    small = image.copy()
    small.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BILINEAR)
    ground = plain_ground(small)
    if ground is None:
        return None
    # An opening: dust, and the noise of JPEG, are thinner than the shoe.
    found = Image.fromarray(_grown(~_grown(ground))).getbbox()
    if found is None:
        return None
    longer = max(found[2] - found[0], found[3] - found[1])
    if longer < _LEAST * max(small.size):
        return None
    margin, across, down = _MARGIN * longer, image.width / small.width, image.height / small.height
    return within(
        (found[0] - margin) * across,
        (found[1] - margin) * down,
        (found[2] + margin) * across,
        (found[3] + margin) * down,
        image.size,
    )


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask with all neighbours of its places, diagonal ones as well."""
    wide = mask.copy()
    wide[:, 1:] |= mask[:, :-1]
    wide[:, :-1] |= mask[:, 1:]
    grown = wide.copy()
    grown[1:] |= wide[:-1]
    grown[:-1] |= wide[1:]
    return grown
