"""Bytes to safe RGB images: limits, formats, orientation, colour profiles."""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from ..errors import ShoetaggerError
from .iso_media import is_cut, is_iso_media, picture_format

if TYPE_CHECKING:
    from ..config.recipe import Images


class Rejected(ShoetaggerError):  # noqa: N818 - a verdict on a file, not a fault of the program
    """The bytes cannot be tagged; the message is the reason, for the person who sent the file.

    `unfinished` means that more bytes could mend it: the file may still be arriving.
    """

    def __init__(self, reason: str, *, unfinished: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.unfinished = unfinished


@dataclass(frozen=True)
class Limits:
    """The limits above which a file is refused before it is decoded."""

    max_bytes: int
    max_pixels: int

    @classmethod
    def of(cls, images: Images) -> Limits:
        """Return the limits that params.yaml sets."""
        return cls(images.max_bytes, images.max_pixels)


def image_id(data: bytes) -> str:
    """Return the sha256 of a file's bytes in hex, the identity of a picture everywhere."""
    return hashlib.sha256(data).hexdigest()


Plugin = Callable[[io.BytesIO], ImageFile.ImageFile]


def _avif(data: io.BytesIO) -> ImageFile.ImageFile:
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # processes decode side by side, each in bounded memory
    return AvifImagePlugin.AvifImageFile(data)


def _heic(data: io.BytesIO) -> ImageFile.ImageFile:
    # Its libraries come with an encoder of 23 MB, and most processes meet no HEIC.
    import pillow_heif

    pillow_heif.options.DECODE_THREADS = 1
    # Beside the picture, phones store some that nobody looks at here.
    pillow_heif.options.THUMBNAILS = False
    pillow_heif.options.DEPTH_IMAGES = False
    pillow_heif.options.AUX_IMAGES = False
    return pillow_heif.HeifImageFile(data)  # type: ignore[no-untyped-call]


# Plugins are called directly, never through Image.open: no bytes can reach a format that is not
# listed here, and Pillow's process-wide pixel limit does not interfere with ours.
_FORMATS: tuple[tuple[str, tuple[bytes, ...], Plugin], ...] = (
    ("JPEG", (b"\xff\xd8\xff",), JpegImagePlugin.JpegImageFile),
    ("PNG", (b"\x89PNG\r\n\x1a\n",), PngImagePlugin.PngImageFile),
    ("GIF", (b"GIF87a", b"GIF89a"), GifImagePlugin.GifImageFile),
    ("WebP", (b"RIFF",), WebPImagePlugin.WebPImageFile),
    ("TIFF", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImagePlugin.TiffImageFile),
    ("BMP", (b"BM",), BmpImagePlugin.BmpImageFile),
)
# Formats that are recognised by more than their first bytes.
_ISO_MEDIA: dict[str, Plugin] = {"AVIF": _avif, "HEIC": _heic}

READABLE = ", ".join([*(name for name, _, _ in _FORMATS), *_ISO_MEDIA])

# What people send by mistake, so that the reason can name it.
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

# A reduced JPEG keeps at least this many times the pixels per side that the view needs. On shop
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
    """A decoded picture, RGB, upright and on white, with the full upright (width, height)."""

    image: Image.Image
    size: tuple[int, int]


def open_image(data: bytes, limits: Limits, *, longest: int | None = None) -> Image.Image:
    """Decode a file's bytes to an RGB picture: upright, transparency on white, first frame, sRGB.

    With `longest`, a JPEG may come back reduced, its longer side at least 1.5 times `longest`.
    Raises Rejected for every content that is not such a picture, and MemoryError.
    """
    return open_with_size(data, limits, longest=longest).image


def open_with_size(data: bytes, limits: Limits, *, longest: int | None = None) -> Opened:
    """Decode like `open_image`, and return the full size with the picture, which may be reduced.

    Raises Rejected and MemoryError.
    """
    if len(data) > limits.max_bytes:
        raise Rejected(f"too large a file ({len(data)} bytes, limit {limits.max_bytes} bytes)")
    name, plugin = _recognise(data)
    # Setting the filter again is cheap; warnings.catch_warnings is not safe in threads.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        return _decode(data, name, plugin, limits, longest)
    except (Rejected, MemoryError, ImportError):  # the last: a library is not installed
        raise
    except Image.DecompressionBombError:
        raise Rejected(f"too many pixels (limit {limits.max_pixels})") from None
    # Pillow's decoders raise nearly every kind of exception for bad bytes.
    except Exception as error:
        raise Rejected(_why(name, data, error), unfinished=True) from error


def _recognise(data: bytes) -> tuple[str, Plugin]:
    if not data:
        raise Rejected("an empty file", unfinished=True)
    for name, starts, plugin in _FORMATS:
        if data.startswith(starts) and (name != "WebP" or data[8:12] == b"WEBP"):
            return name, plugin
    if is_iso_media(data) and (form := picture_format(data)) is not None:
        return form, _ISO_MEDIA[form]
    if not data[:64].strip(b"\0"):
        raise Rejected("not a picture (the file begins with zeros)", unfinished=True)
    cut = is_iso_media(data) and is_cut(data)
    if cut or any(start.startswith(data) for _, starts, _ in _FORMATS for start in starts):
        raise Rejected(f"truncated: the file has only {len(data)} bytes", unfinished=True)
    head = data[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    kind = next((kind for start, kind in _OTHERS if head.startswith(start)), None)
    if is_iso_media(data):
        kind = "a video, or a kind of photograph that nothing here decodes"
    raise Rejected(f"not a picture{f', but {kind}' if kind else ''} (it must be {READABLE})")


def _decode(
    data: bytes,
    name: str,
    plugin: Plugin,
    limits: Limits,
    longest: int | None,
) -> Opened:
    if name == "WebP":
        # Its decoder allocates the whole canvas as soon as it is opened.
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
    if not reduced:
        _refuse_pixels(image.size, limits)  # HEIC states its size once more inside
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
    """Return the canvas (width, height) declared in a WebP's first chunk."""
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
    reason = detail[0][:120] if detail else type(error).__name__
    cut = {
        "PNG": b"IEND" not in data[-64:],
        "WebP": len(data) < int.from_bytes(data[4:8], "little") + 8,
        "AVIF": is_cut(data),
        "HEIC": is_cut(data),
    }
    if "truncated" in reason.lower() or isinstance(error, EOFError) or cut.get(name):
        return f"truncated {name}: the file ends before the picture does, send it again"
    return f"damaged {name}: send it again ({reason})"


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    # A picture is not refused for its metadata, however broken.
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
    """Convert 16-bit, 32-bit and float greys to 0..255; a range that is not stated is guessed."""
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
    """Apply an embedded colour profile; ignore it if invalid or for another colour mode."""
    transform = _srgb_transform(profile, image.mode)
    if transform is None:
        return image
    converted = ImageCms.applyTransform(image, transform)
    return image if converted is None else converted


@lru_cache(maxsize=16)
def _srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    spaces = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if source.profile.xcolor_space.strip() != spaces.get(mode):
            return None
        if "srgb" in (source.profile.profile_description or "").lower():
            return None
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def unreadable(path: Path, limits: Limits) -> str | None:
    """Return why a picture file cannot be used, None where it can."""
    try:
        open_image(path.read_bytes(), limits, longest=1)
    except Rejected as rejected:
        return rejected.reason
    except OSError as error:
        return error.strerror or str(error)
    return None
