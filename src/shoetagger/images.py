"""Bytes to safe RGB pictures, and pictures to the squares that models see.

What training sees and what the night sees stand side by side: `training_view`, `tagging_view`.
This module runs in small worker processes and in the registered model: no torch here.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    ImageFilter,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from .errors import ShoetaggerError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .params import Augment, Images

    Square = NDArray[np.uint8]  # (S, S, 3)


class Rejected(ShoetaggerError):  # noqa: N818 - a verdict on a file, not a fault of the program
    """The bytes cannot be tagged; the message is the reason, for the person who sent the file.

    `unfinished` says that more bytes could mend it: the file may still have been arriving.
    """

    def __init__(self, reason: str, *, unfinished: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unfinished = unfinished


class TransformError(ShoetaggerError):
    """A stored tagging transform has unknown, missing or wrong values."""


@dataclass(frozen=True)
class Limits:
    """What is refused before anything is decoded."""

    max_bytes: int
    max_pixels: int

    @classmethod
    def of(cls, images: Images) -> Limits:
        """Return the limits that params.yaml sets."""
        return cls(images.max_bytes, images.max_pixels)


@dataclass(frozen=True)
class Transform:
    """The tagging transform: the whole picture fitted into a padded square of `size` pixels.

    `fill` (0..255) is the padding; `mean` and `std` are for pixels in 0..1 and belong to the
    model, which normalises. It is part of the bundle and of the digest of every prefix.
    """

    size: int = 224
    fill: int = 255
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values that `from_dict` takes back."""
        return asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Transform:
        """Check and take back what `as_dict` gave; raises TransformError that names the key."""
        names = [field.name for field in fields(cls)]
        if set(values) != set(names):
            raise TransformError(
                f"transform: the keys are {', '.join(names)}, not {', '.join(map(str, values))}"
            )
        if type(values["size"]) is not int or not 1 <= values["size"] <= 4096:
            raise TransformError(f"transform.size: {values['size']!r} is not in 1..4096")
        if type(values["fill"]) is not int or not 0 <= values["fill"] <= 255:
            raise TransformError(f"transform.fill: {values['fill']!r} is not in 0..255")
        return cls(
            size=values["size"],
            fill=values["fill"],
            mean=_three_numbers(values["mean"], "mean", least=-math.inf),
            std=_three_numbers(values["std"], "std", least=1e-6),
        )


def _three_numbers(value: object, key: str, *, least: float) -> tuple[float, float, float]:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(type(x) in (int, float) and math.isfinite(x) and x >= least for x in value)
    ):
        raise TransformError(f"transform.{key}: {value!r} is not three numbers that make sense")
    return float(value[0]), float(value[1]), float(value[2])


def image_id(data: bytes) -> str:
    """Return the sha256 of a file's bytes, in hex: what names a picture everywhere."""
    return hashlib.sha256(data).hexdigest()


# --- bytes to picture -----------------------------------------------------------------------

# Each plugin is called by itself, never through Image.open: what is not listed here cannot be
# reached by any bytes, and Pillow's process-wide pixel limit does not mix with ours.
_FORMATS: tuple[tuple[str, tuple[bytes, ...], Callable[[io.BytesIO], ImageFile.ImageFile]], ...] = (
    ("JPEG", (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    ("PNG", (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ("GIF", (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ("WebP", (b"RIFF",), WebPImagePlugin.WebPImageFile),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    ("BMP", (b"BM",), BmpImagePlugin.BmpImageFile),
)
READABLE = ", ".join(name for name, _, _ in _FORMATS)

# What people send by mistake, to tell them what they sent.
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"%pdf", "a PDF document"),
    (b"pk\x03\x04", "a zip archive or office document"),
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an XML or SVG document"),
    (b"%!ps", "a PostScript document"),
    (b"8bps", "a Photoshop document"),
)

# A reduced JPEG keeps at least this many times the pixels a side that the view needs. On shop
# photographs a view then differs by 0.5 levels of 255 on average (1.1 at most), 99 % of its pixels
# by no more than 10.
_HEADROOM = 1.5

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Opened:
    """A decoded picture: RGB, upright, on white; and its full (width, height), upright too."""

    image: Image.Image
    size: tuple[int, int]


def open_picture(data: bytes, limits: Limits, *, longest: int | None = None) -> Image.Image:
    """Decode a file's bytes to an RGB picture: upright, transparency on white, first frame, sRGB.

    With `longest`, a JPEG may come back reduced, its longer side at least 1.5 times `longest`.
    Raises Rejected for every content that is not such a picture, and MemoryError.
    """
    return open_with_size(data, limits, longest=longest).image


def open_with_size(data: bytes, limits: Limits, *, longest: int | None = None) -> Opened:
    """Do what `open_picture` does, and return the full size beside a picture that may be reduced.

    Raises Rejected and MemoryError.
    """
    if len(data) > limits.max_bytes:
        raise Rejected(f"too large a file ({len(data)} bytes, limit {limits.max_bytes} bytes)")
    name, plugin = _recognise(data)
    # Every filter is cheap to set again; warnings.catch_warnings is not safe in threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return _decode(data, name, plugin, limits, longest)
    except (Rejected, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise Rejected(f"too many pixels (limit {limits.max_pixels})") from None
    # Pillow's decoders answer bad bytes with nearly every exception there is.
    except Exception as error:
        raise Rejected(_why(name, data, error), unfinished=True) from error


def _recognise(data: bytes) -> tuple[str, Callable[[io.BytesIO], ImageFile.ImageFile]]:
    if not data:
        raise Rejected("an empty file", unfinished=True)
    for name, starts, plugin in _FORMATS:
        if data.startswith(starts) and (name != "WebP" or data[8:12] == b"WEBP"):
            return name, plugin
    if not data[:64].strip(b"\0"):
        raise Rejected("not a picture (the file begins with zeros)", unfinished=True)
    if any(start.startswith(data) for _, starts, _ in _FORMATS for start in starts):
        raise Rejected(f"truncated: the file has only {len(data)} bytes", unfinished=True)
    head = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kind = next((kind for start, kind in _OTHERS if head.startswith(start)), None)
    if data[4:12] in (b"ftypavif", b"ftypheic", b"ftypmif1", b"ftypheix"):
        kind = "an AVIF or HEIC photograph"
    raise Rejected(f"not a picture{f', but {kind}' if kind else ''} (it must be {READABLE})")


def _decode(
    data: bytes,
    name: str,
    plugin: Callable[[io.BytesIO], ImageFile.ImageFile],
    limits: Limits,
    longest: int | None,
) -> Opened:
    if name == "WebP":
        # Its decoder takes memory for the whole canvas as soon as it is opened.
        _refuse_pixels(_webp_size(data), limits)
    image = plugin(io.BytesIO(data))
    size = image.size
    _refuse_pixels(size, limits)
    reduced = False
    if longest is not None and name == "JPEG":
        share = longest * _HEADROOM / max(size)
        if share < 1:
            image.draft(None, (max(1, round(size[0] * share)), max(1, round(size[1] * share))))
            reduced = image.size != size
    image.load()
    upright = _upright(_to_rgb(image, name), _orientation(image))
    if not reduced:
        size = upright.size
    elif (size[0] > size[1]) != (upright.width > upright.height):
        size = size[1], size[0]
    return Opened(upright, size)


def _refuse_pixels(size: tuple[int, int], limits: Limits) -> None:
    pixels = size[0] * size[1]
    if pixels > limits.max_pixels:
        raise Rejected(f"too many pixels ({pixels}, limit {limits.max_pixels})")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return the canvas (width, height) that a WebP's first chunk announces."""
    kind = data[12:16]
    if kind == b"VP8X":
        canvas = data[24:30]
        return 1 + int.from_bytes(canvas[:3], "little"), 1 + int.from_bytes(canvas[3:], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = data[26:28], data[28:30]
    return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF


def _why(name: str, data: bytes, error: Exception) -> str:
    detail = str(error).strip().splitlines()
    said = detail[0][:120] if detail else type(error).__name__
    cut = {
        "PNG": b"IEND" not in data[-64:],
        "WebP": len(data) < int.from_bytes(data[4:8], "little") + 8,
    }
    if "truncated" in said.lower() or isinstance(error, EOFError) or cut.get(name):
        return f"truncated {name}: the file ends before the picture does, send it again"
    return f"damaged {name}: send it again ({said})"


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    # A picture is not refused for what is written beside it, however broken that is.
    except Exception:
        return 1
    return orientation if type(orientation) is int else 1


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode == "F" or image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.new("RGB", image.size, (255, 255, 255))
        image.paste(coloured, mask=coloured.getchannel("A"))
    elif image.mode in ("P", "1", "YCbCr", "RGBX"):
        image = image.convert("RGB")
    if profile:
        image = _to_srgb(image, profile)
    if image.mode == "RGB":
        return image
    try:
        return image.convert("RGB")
    except ValueError:
        raise Rejected(
            f"a {name} whose colours are stored as {image.mode}, which is not read: "
            "save it as JPEG or PNG"
        ) from None


def _eight_bits(image: Image.Image) -> Image.Image:
    """Bring 16-bit, 32-bit and float greys to 0..255; what has no stated range is guessed."""
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        return Image.fromarray((values >> 8).astype(np.uint8))
    if values.dtype.kind == "f":
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    peak = float(values.max())
    top = next((top for top in (1.0, 255.0, 65535.0) if peak <= top), peak)
    if values.dtype.kind != "f":
        top = max(top, 255.0)
    return Image.fromarray((np.clip(values / top, 0, 1) * 255 + 0.5).astype(np.uint8))


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply an embedded colour profile; one that is invalid or of other colours is ignored."""
    transform = _srgb_transform(profile, image.mode)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    spaces = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space.strip() != spaces.get(mode):
            return None
        if "srgb" in (given.profile.profile_description or "").lower():
            return None
        return ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


# --- picture to square ----------------------------------------------------------------------


def tagging_view(picture: Image.Image, transform: Transform) -> Square:
    """Fit the whole picture, antialiased, into the middle of a square padded with `fill`.

    Takes an RGB picture; returns (size, size, 3) uint8.
    """
    size = transform.size
    fitted = _fit(picture, size)
    view = np.full((size, size, 3), transform.fill, dtype=np.uint8)
    top, left = (size - fitted.height) // 2, (size - fitted.width) // 2
    view[top : top + fitted.height, left : left + fitted.width] = np.asarray(fitted)
    return view


def training_view(
    picture: Image.Image, transform: Transform, augment: Augment, rng: np.random.Generator
) -> Square:
    """Draw a random change of what `tagging_view` shows; `augment` says how strong each may be.

    The same picture and the same state of `rng` give the same (size, size, 3) uint8.
    A picture whose longer side is about twice the size is quickest.
    """
    size = transform.size
    # Every number is drawn in every view: a changed strength leaves the other draws alone.
    zoom, shift_x, shift_y, turn, *tone = rng.uniform(-1, 1, size=9)
    flip, erase, replace = rng.uniform(size=3) < (augment.flip, augment.erase, augment.background)

    fitted = _fit(picture, max(1, round(size * augment.min_scale ** (zoom / 2))))
    shoe = _shoe_mask(fitted) if replace else None
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


def _fit(picture: Image.Image, longest: int) -> Image.Image:
    scale = longest / max(picture.size)
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


def _place(
    fitted: Image.Image, size: int, shift: tuple[float, float], degrees: float, *, flip: bool
) -> Image.Image:
    """Turn about the middle and shift by a share (-1..1) of the room there is, in a square."""
    if flip:
        fitted = fitted.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # A picture smaller than the square moves within it, a larger one shows another part.
    x = (size - fitted.width) / 2 + shift[0] * abs(size - fitted.width) / 2
    y = (size - fitted.height) / 2 + shift[1] * abs(size - fitted.height) / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    middle_x, middle_y = x + fitted.width / 2, y + fitted.height / 2
    # From a pixel of the square back to a pixel of the picture.
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


def _tones(picture: Image.Image, augment: Augment, tone: Sequence[float]) -> tuple[float, ...]:
    """Return the 3 x 4 colour matrix of one brightness, contrast, saturation and hue shift."""
    brightness = 1 + tone[0] * augment.brightness
    contrast = 1 + tone[1] * augment.contrast
    saturation = 1 + tone[2] * augment.saturation
    angle = tone[3] * augment.hue * 2 * math.pi  # hue 0.5 = half the colour circle, as elsewhere
    grey = np.tile(_LUMA, (3, 1))
    turned = (
        grey
        + math.cos(angle) * (np.eye(3) - grey)
        + math.sin(angle)
        * np.array([[0.168, 0.330, -0.497], [-0.328, 0.035, 0.292], [1.250, -1.050, -0.203]])
    )
    matrix = brightness * contrast * (saturation * turned + (1 - saturation) * grey)
    mean = float(_LUMA @ np.asarray(picture.resize((16, 16), Image.Resampling.BOX)).mean((0, 1)))
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


# --- backgrounds ----------------------------------------------------------------------------

_PLAIN = 12  # levels a channel that a studio background may differ from its border's colour
_SOFTEN = ImageFilter.BoxBlur(1)
_STEEPER = [max(0, min(255, (level - 96) * 255 // 144)) for level in range(256)]


def _shoe_mask(picture: Image.Image) -> Square | None:
    """Return the shoe's opacity, (H, W) uint8, or None where the background is not plain.

    Background is what differs little from the border's colour and hangs together with the border.
    """
    pixels = np.asarray(picture).astype(np.int16)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    colour = np.median(border, axis=0).astype(np.int16)
    if (np.abs(border - colour).max(axis=1) <= _PLAIN).mean() < 0.8:
        return None
    # A wider step would take the light parts of white shoes along.
    background = _joined_to_border(np.abs(pixels - colour).max(axis=2) <= _PLAIN)
    if not 0.1 < background.mean() < 0.97:
        return None
    # The blur makes the edge soft; the steeper scale keeps it on the shoe, off the old ground.
    opacity = Image.fromarray(np.where(background, np.uint8(0), np.uint8(255)))
    return np.asarray(opacity.filter(_SOFTEN).point(_STEEPER))


def _joined_to_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of `mask` that can be reached from the border by steps within `mask`."""
    rows, columns = _runs(mask), _runs(mask.T)
    reached = np.zeros_like(mask)
    reached[[0, -1]], reached[:, [0, -1]] = mask[[0, -1]], mask[:, [0, -1]]
    count = -1
    while count != (count := int(reached.sum())):
        # A run that is touched anywhere is reached as a whole: few rounds, not one a pixel.
        reached = _spread(reached, rows) & mask
        reached = _spread(reached.T, columns).T & mask
    return reached


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Number the horizontal runs of equal pixels: (H, W)."""
    starts = np.ones(mask.shape, dtype=bool)
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    return np.cumsum(starts).reshape(mask.shape) - 1


def _spread(reached: NDArray[np.bool_], runs: NDArray[np.int64]) -> NDArray[np.bool_]:
    touched = np.zeros(int(runs[-1, -1]) + 1, dtype=bool)
    touched[runs[reached]] = True
    return touched[runs]


def draw_background(size: int, rng: np.random.Generator) -> Square:
    """Draw a ground to put a shoe on: noise, gradient, boards, carpet or tiles; (size, size, 3)."""
    kinds = (_noise, _gradient, _boards, _carpet, _tiles)
    ground = kinds[rng.integers(len(kinds))](size, rng)  # (S, S, 3) or (S, S, 1), around 0..1
    return (np.clip(ground, 0, 1) * 255).astype(np.uint8)


def _clouds(size: int, cells: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return smooth noise in 0..1 with about `cells` (down, across) bumps, (S, S, 1)."""
    coarse = rng.random(cells, dtype=np.float32)
    smooth = Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(smooth)[..., None]


def _colour(rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a muted colour, from near black to near white; shoes are the colourful things."""
    grey = rng.uniform(0.1, 0.95)
    return np.clip(grey + rng.normal(0, 0.08, size=3), 0, 1).astype(np.float32)


def _wood(rng: np.random.Generator) -> NDArray[np.float32]:
    light = rng.uniform(0.25, 0.9)
    return (light * np.array([1.0, rng.uniform(0.7, 0.9), rng.uniform(0.4, 0.75)])).astype(
        np.float32
    )


def _noise(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    cells = int(rng.integers(2, 24))
    blend = _clouds(size, (cells, cells), rng)
    return _colour(rng) * blend + _colour(rng) * (1 - blend)


def _gradient(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    angle = rng.uniform(0, 2 * math.pi)
    line = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    across, down = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    slope = across * line[None, :, None] + down * line[:, None, None] + np.float32(0.5)
    return _colour(rng) * slope + _colour(rng) * (1 - slope)


def _boards(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    board = int(rng.integers(max(2, size // 12), max(3, size // 4)))
    row = (np.arange(size) + rng.integers(board)) // board
    shade = rng.normal(1, 0.08, size=row[-1] + 1).astype(np.float32)[row][:, None, None]
    grain = 1 + 0.2 * (_clouds(size, (min(size, 96), 4), rng) - 0.5)
    seam = np.where(np.diff(row, prepend=row[0]) > 0, 0.55, 1).astype(np.float32)[:, None, None]
    floor = _wood(rng) * shade * grain * seam
    return np.asarray(floor.transpose(1, 0, 2) if rng.random() < 0.5 else floor)


def _carpet(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    tuft = rng.normal(0, rng.uniform(0.04, 0.12), size=(size, size, 1)).astype(np.float32)
    worn = 0.2 * (_clouds(size, (4, 4), rng) - 0.5)
    return _colour(rng) + tuft + worn


def _tiles(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    tile = int(rng.integers(max(3, size // 8), max(4, size // 2)))
    down = (np.arange(size) + rng.integers(tile)) // tile
    across = (np.arange(size) + rng.integers(tile)) // tile
    shade = rng.normal(1, 0.05, size=(down[-1] + 1, across[-1] + 1)).astype(np.float32)
    floor: NDArray[np.float32] = _colour(rng) * shade[down][:, across][..., None]
    floor = floor + 0.08 * (_clouds(size, (8, 8), rng) - 0.5)
    joint = _colour(rng)
    floor[np.diff(down, prepend=down[0]) > 0] = joint
    floor[:, np.diff(across, prepend=across[0]) > 0] = joint
    return floor


# --- the Dataset ----------------------------------------------------------------------------


class Pictures:
    """Map-style Dataset of (S, S, 3) uint8 views of picture files; torch's DataLoader takes it.

    Item k is view `views[k % len(views)]` of picture `k // len(views)`. Without `augment` every
    view is the tagging view. A view depends on the seed, the picture's bytes and the view's
    number only: neither on the order nor on the process that draws it. Raises Rejected, with the
    file's name in front, for a file that is no picture.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        transform: Transform,
        limits: Limits,
        *,
        augment: Augment | None = None,
        seed: int = 0,
        views: Sequence[int] = (0,),
    ) -> None:
        self.paths = tuple(paths)
        self.transform = transform
        self.limits = limits
        self.augment = augment
        self.seed = seed
        self.views = tuple(views)
        self._last: tuple[Path, str, Image.Image] | None = None

    def __len__(self) -> int:
        return len(self.paths) * len(self.views)

    def __getitem__(self, item: int) -> Square:
        if not 0 <= item < len(self):
            raise IndexError(item)
        index, turn = divmod(item, len(self.views))
        return self.plain(index) if self.augment is None else self.view(index, self.views[turn])

    def plain(self, index: int) -> Square:
        """Return the tagging view of a picture, exactly as the night sees it."""
        picture = _open_file(self.paths[index], self.limits, self.transform.size)[1]
        return tagging_view(picture, self.transform)

    def view(self, index: int, number: int) -> Square:
        """Return one augmented view of a picture; `augment` must be given."""
        if self.augment is None:
            raise ValueError("these pictures have no augment: only their plain view can be drawn")
        identity, picture = self._picture(self.paths[index])
        rng = np.random.default_rng([self.seed, number, int(identity, 16)])
        return training_view(picture, self.transform, self.augment, rng)

    def _picture(self, path: Path) -> tuple[str, Image.Image]:
        # Views of one picture are mostly asked for in a row: decode it once for them.
        if self._last is None or self._last[0] != path:
            longest = 2 * self.transform.size
            identity, picture = _open_file(path, self.limits, longest)
            if max(picture.size) > longest:
                picture = _fit(picture, longest)
            self._last = path, identity, picture
        return self._last[1], self._last[2]


def _open_file(path: Path, limits: Limits, longest: int) -> tuple[str, Image.Image]:
    data = path.read_bytes()
    try:
        return image_id(data), open_picture(data, limits, longest=longest)
    except Rejected as error:
        raise Rejected(f"{path}: {error.reason}", unfinished=error.unfinished) from None


def unreadable(path: Path, limits: Limits) -> str | None:
    """Return why a picture file cannot be used, None where it can."""
    try:
        open_picture(path.read_bytes(), limits, longest=1)
    except Rejected as rejected:
        return rejected.reason
    except OSError as error:
        return error.strerror or str(error)
    return None
