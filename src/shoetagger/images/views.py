"""Pictures to the squares that models see: `training_view` in training, `tagging_view` in tagging.

This module runs in small decoding processes and in the registered model: it imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from ..errors import ShoetaggerError
from .backgrounds import draw_background, plain_colour, shoe_mask
from .detector import Detector
from .framing import find_frame

if TYPE_CHECKING:
    from ..config.recipe import Augment, Images
    from .backgrounds import Square
    from .box import Box


Framing = Literal["whole", "shoe"]

# Of ImageNet's pixels in 0..1: what nearly all pretrained networks are normalised by.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_SHA256 = re.compile("[0-9a-f]{64}")


class TransformError(ShoetaggerError):
    """A stored tagging transform has unknown, missing or wrong values."""


@dataclass(frozen=True)
class Transform:
    """The tagging transform: the picture fitted into a padded square of `size` pixels.

    `fill` (0..255) is the padding; `mean` and `std`, of pixels in 0..1, are applied by the model.
    With `framing` "shoe", the picture is first cropped to the shoe where its border is plain, or
    where the `detector` finds one. The transform is part of the bundle and of the digest of every
    prefix.
    """

    size: int = 224
    fill: int = 255
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    framing: Framing = "whole"
    detector: Detector | None = None

    @classmethod
    def of(cls, images: Images) -> Transform:
        """Return the transform that params.yaml sets, normalised as ImageNet is.

        Raises DetectorError where the file of `images.detector` cannot be read.
        """
        file = images.detector
        detector = None if file == "none" else Detector.at(Path(file))
        return cls(size=images.size, framing=images.framing, detector=detector)

    @property
    def longest(self) -> int:
        """The longer side, in pixels, that a picture needs to be decoded to."""
        if self.framing == "whole":
            return self.size
        # Shoes that a detector finds may be small, as of a person who is seen whole.
        return 3 * self.size if self.detector else 3 * self.size // 2

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values for `from_dict`.

        The detector is its digest. The framing is left out where it is "whole", and the detector
        where there is none: transforms of before there were others, and the digests of their
        bundles, stay as they are.
        """
        values = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        if self.framing == "whole":
            del values["framing"]
        del values["detector"]
        return values if self.detector is None else values | {"detector": self.detector.sha256}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], weights: Path) -> Transform:
        """Read and check what `as_dict` returned; raises TransformError that names the key.

        `weights` is the file that carries the detector, if there is one.
        """
        names = [field.name for field in fields(cls)]
        if set(values) | {"framing", "detector"} != set(names):
            raise TransformError(
                f"transform: the keys are {', '.join(names)}, not {', '.join(map(str, values))}"
            )
        if type(values["size"]) is not int or not 1 <= values["size"] <= 4096:
            raise TransformError(f"transform.size: {values['size']!r} is not in 1..4096")
        if type(values["fill"]) is not int or not 0 <= values["fill"] <= 255:
            raise TransformError(f"transform.fill: {values['fill']!r} is not in 0..255")
        if values.get("framing", "whole") not in get_args(Framing):
            raise TransformError(
                f"transform.framing: {values['framing']!r} is not one of "
                f"{', '.join(get_args(Framing))}"
            )
        detector = values.get("detector")
        if detector is not None and not (isinstance(detector, str) and _SHA256.fullmatch(detector)):
            raise TransformError(f"transform.detector: {detector!r} is no SHA-256 in hex")
        return cls(
            size=values["size"],
            fill=values["fill"],
            framing=values.get("framing", "whole"),
            mean=_three_numbers(values["mean"], "mean", least=-math.inf),
            std=_three_numbers(values["std"], "std", least=1e-6),
            detector=None if detector is None else Detector(detector, weights),
        )


def _three_numbers(value: object, key: str, *, least: float) -> tuple[float, float, float]:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(type(x) in (int, float) and math.isfinite(x) and x >= least for x in value)
    ):
        raise TransformError(f"transform.{key}: {value!r} is not three numbers that make sense")
    return float(value[0]), float(value[1]), float(value[2])


def frame_of(image: Image.Image, transform: Transform) -> Box | None:
    """Return the box that a transform crops a picture to, None for all of it."""
    return find_frame(image, transform.detector) if transform.framing == "shoe" else None


def tagging_view(image: Image.Image, transform: Transform) -> Square:
    """Fit the picture, antialiased, into the middle of a square padded with `fill`.

    Takes an RGB picture; returns (size, size, 3) uint8.
    """
    size = transform.size
    fitted = fit_longest(_crop(image, frame_of(image, transform)), size)
    view = np.full((size, size, 3), transform.fill, dtype=np.uint8)
    top, left = (size - fitted.height) // 2, (size - fitted.width) // 2
    view[top : top + fitted.height, left : left + fitted.width] = np.asarray(fitted)
    return view


def training_view(
    image: Image.Image,
    frame: Box | None,
    transform: Transform,
    augment: Augment,
    rng: np.random.Generator,
) -> Square:
    """Return a random variation of the tagging view, (size, size, 3) uint8.

    `frame` is what `frame_of` returns, for many views of a picture found once. `augment` bounds
    each change. The same picture and the same state of `rng` give the same view. Pictures whose
    longer side is about twice the size are fastest.
    """
    size = transform.size
    # Every number is drawn for every view, so that changing one bound leaves the other draws alone.
    zoom, shift_x, shift_y, turn, *tone = rng.uniform(-1, 1, size=9)
    flip, erase, replace = rng.uniform(size=3) < (augment.flip, augment.erase, augment.background)

    if not replace:  # on another background, the picture would not be cropped
        image = _crop(image, frame)
    share = _share_of_side(augment, zoom)
    fitted = fit_longest(image, max(1, round(size * share)))
    shoe = shoe_mask(fitted) if replace else None
    if shoe is None and share < 1 and augment.zoom_out:
        fitted = _from_farther_away(fitted, size, (shift_x, shift_y))
    if shoe is not None:
        fitted.putalpha(Image.fromarray(shoe))
    elif augment.rotate:
        fitted.putalpha(255)
    placed = _place(fitted, size, (shift_x, shift_y), turn * augment.rotate, flip=bool(flip))
    if shoe is not None:
        ground = Image.fromarray(draw_background(size, rng))
    else:
        ground = Image.new("RGB", (size, size), (transform.fill,) * 3)
    ground.paste(placed, mask=placed.getchannel("A") if placed.mode == "RGBA" else None)
    view = np.array(ground.convert("RGB", _tones(ground, augment, tone)))
    if erase:
        _erase(view, rng)
    return view


def _crop(image: Image.Image, frame: Box | None) -> Image.Image:
    return image if frame is None else image.crop(frame)


def _share_of_side(augment: Augment, zoom: float) -> float:
    """Return how long the picture's longer side is in the square, for a zoom of -1 (in) to 1."""
    if zoom > 0 and augment.zoom_out:
        return float(augment.zoom_out**zoom)
    return float(augment.min_scale ** (zoom / 2))


def _from_farther_away(image: Image.Image, longest: int, shift: tuple[float, float]) -> Image.Image:
    """Surround a picture by its ground, where that is plain, to `longest` pixels.

    `shift` (-1..1) moves it within the ground, by shares of the room there is.
    """
    colour = plain_colour(image)
    if colour is None:
        return image
    red, green, blue = (int(value) for value in colour)
    scale = longest / max(image.size)
    size = round(image.width * scale), round(image.height * scale)
    ground = Image.new("RGB", size, (red, green, blue))
    left, top = (
        round((outer - inner) / 2 * (1 + by))
        for outer, inner, by in zip(size, image.size, shift, strict=True)
    )
    ground.paste(image, (left, top))
    return ground


def fit_longest(image: Image.Image, longest: int) -> Image.Image:
    """Resize a picture, antialiased, so that its longer side is `longest` pixels."""
    scale = longest / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _place(
    fitted: Image.Image, size: int, shift: tuple[float, float], degrees: float, *, flip: bool
) -> Image.Image:
    """Rotate about the centre, and shift within the square by shares (-1..1) of the room left."""
    if flip:
        fitted = fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # A picture smaller than the square moves within it; a larger one is cropped elsewhere.
    x = (size - fitted.width) / 2 + shift[0] * abs(size - fitted.width) / 2
    y = (size - fitted.height) / 2 + shift[1] * abs(size - fitted.height) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle_x, middle_y = x + fitted.width / 2, y + fitted.height / 2
    # Maps a pixel of the square to a pixel of the picture.
    back = (
        cos,
        sin,
        fitted.width / 2 - cos * middle_x - sin * middle_y,
        -sin,
        cos,
        fitted.height / 2 + sin * middle_x - cos * middle_y,
    )
    if fitted.mode == "RGB":
        fitted.putalpha(255)
    square = (size, size)
    return fitted.transform(square, Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)


_LUMA = np.array([0.299, 0.587, 0.114])


def _tones(image: Image.Image, augment: Augment, tone: Sequence[float]) -> tuple[float, ...]:
    """Return the 3 x 4 colour matrix for a shift of brightness, contrast, saturation and hue."""
    brightness = 1 + tone[0] * augment.brightness
    contrast = 1 + tone[1] * augment.contrast
    saturation = 1 + tone[2] * augment.saturation
    angle = tone[3] * augment.hue * 2 * math.pi  # 0.5 is half the colour circle, as in torchvision
    grey = np.tile(_LUMA, (3, 1))
    turned = (
        grey
        + math.cos(angle) * (np.eye(3) - grey)
        + math.sin(angle)
        * np.array([[0.168, 0.330, -0.497], [-0.328, 0.035, 0.292], [1.250, -1.050, -0.203]])
    )
    matrix = brightness * contrast * (saturation * turned + (1 - saturation) * grey)
    mean = float(_LUMA @ np.asarray(image.resize((16, 16), Image.Resampling.BOX)).mean((0, 1)))
    offset = brightness * (1 - contrast) * mean
    rows = np.column_stack([matrix, np.full(3, offset)])
    return tuple(float(x) for x in rows.ravel())


def _erase(view: Square, rng: np.random.Generator) -> None:
    """Paint one rectangle of 2 to 20 % of the view in a random colour, in place."""
    size = view.shape[0]
    area, shape = rng.uniform(0.02, 0.2), math.exp(rng.uniform(-1, 1))
    height = min(size, max(1, round(size * math.sqrt(area * shape))))
    width = min(size, max(1, round(size * math.sqrt(area / shape))))
    top, left = rng.integers(size - height + 1), rng.integers(size - width + 1)
    view[top : top + height, left : left + width] = rng.integers(0, 256, size=3)
