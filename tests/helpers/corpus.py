"""Makes hostile and odd files, each with what must become of it; the same for the same seed."""

from __future__ import annotations

import functools
import io
import os
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pillow_heif
from PIL import Image, ImageCms, ImageDraw, PngImagePlugin

from shoetagger.images.decode import Limits

LIMITS = Limits(max_bytes=4_000_000, max_pixels=1_000_000)

Outcome = Literal["tagged", "rejected", "either"]
FORMATS = ("JPEG", "PNG", "GIF", "WebP", "TIFF", "BMP")
SUFFIX = {"JPEG": "jpg", "PNG": "png", "GIF": "gif", "WebP": "webp", "TIFF": "tif", "BMP": "bmp"}
# Slow to write, so fewer cases are made of them.
ISO_MEDIA = {"AVIF": "avif", "HEIC": "heic"}


@dataclass(frozen=True)
class Case:
    """One file; `reason` is a part of the reason that it must be rejected with.

    `either` is for random damage, which some decoders can see and others cannot.
    """

    name: str
    data: bytes
    outcome: Outcome
    reason: str = ""


def corpus(seed: int = 1) -> list[Case]:
    """Return all cases, named uniquely."""
    cases = [*_good(), *_misnamed(), *_not_pictures(), *_cut(), *_bombs(), *_damaged(seed)]
    cases += _iso_media(seed)
    assert len({case.name for case in cases}) == len(cases)
    return cases


def write(folder: Path, cases: list[Case]) -> dict[bytes, Case]:
    """Write the cases below `folder`, some under odd names; returns path to case."""
    written = {}
    for number, case in enumerate(cases):
        path = os.fsencode(folder) + b"/" + _odd_name(number, os.fsencode(case.name))
        with Path(os.fsdecode(path)).open("wb") as file:
            file.write(case.data)
        written[path] = case
    return written


def _odd_name(number: int, name: bytes) -> bytes:
    return {
        3: b"new\nline-" + name,
        5: b"invalid-utf8-\xff\xfe-" + name,
        7: b"x" * (255 - len(name)) + name,
        9: "Schuhe für Ödön – 靴 👟 ".encode() + name,
        11: b"'quoted', \"twice\"; $(id) " + name,
        13: b"<script>alert(1)<" + name,
        15: b"-rf " + name,
        17: b" leading and trailing  " + name + b" ",
        19: b"percent%41%00" + name,
        21: b"=HYPERLINK(" + name,
    }.get(number, name)


# --- ingredients ----------------------------------------------------------------------------


def shoe(size: tuple[int, int] = (120, 80)) -> Image.Image:
    """Draw something with a left, a right, an upside and colours, on white."""
    width, height = size
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((width * 0.1, height * 0.6, width * 0.9, height * 0.8), fill=(150, 20, 30))
    draw.ellipse((width * 0.55, height * 0.35, width * 0.9, height * 0.8), fill=(30, 60, 170))
    draw.rectangle((width * 0.1, height * 0.15, width * 0.3, height * 0.7), fill=(20, 120, 40))
    return picture


def encode(picture: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if form == "HEIC":
        burst = pillow_heif.from_pillow(picture)
        for another in options.pop("append_images", ()):
            burst.add_from_pillow(another)
        burst.save(file, **options)
    else:
        picture.save(file, form, **options)
    return file.getvalue()


@functools.cache
def plain(form: str) -> bytes:
    """Return the shoe in one of the FORMATS, or of ISO_MEDIA, without surprises."""
    return encode(_noisy(), form)


def _noisy() -> Image.Image:
    """Return a shoe that no encoder can press into a few bytes: cuts at any place hurt."""
    pixels = np.asarray(shoe()).astype(int)
    noise = np.random.default_rng(0).integers(-20, 20, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def turned(orientation: int, picture: Image.Image) -> Image.Image:
    """Return the pixels that, shown with this EXIF orientation, look like `picture`."""
    back = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    return picture if back is None else picture.transpose(back)


def oriented(orientation: int, form: str, picture: Image.Image, **options: Any) -> bytes:
    return encode(turned(orientation, picture), form, exif=exif(orientation), **options)


def ycck(picture: Image.Image) -> bytes:
    """Return a JPEG as Photoshop writes it: inverted CMYK, stored as luma, chroma and black."""
    # Pillow writes the four channels inverted and untouched, so they may as well be YCC and K.
    ink = 255 - np.asarray(picture)
    luma = np.asarray(Image.fromarray(ink).convert("YCbCr"))
    channels = np.concatenate([255 - luma, np.zeros_like(luma[..., :1])], axis=2)
    data = encode(Image.fromarray(channels, "CMYK"), "JPEG", quality=95, subsampling=0)
    at = data.index(b"Adobe")
    assert data[at + 11] == 0
    return data[: at + 11] + b"\x02" + data[at + 12 :]


def swapped_profile() -> bytes:
    """Return a valid profile in which red is green and green is red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    entries = {bytes(profile[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, chunks: bytes = b""
) -> bytes:
    """Return a PNG with the given header, whatever its rows (filter bytes included) are."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunks
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(picture: Image.Image) -> bytes:
    """Return the picture with 16 bits a channel."""
    wide = np.asarray(picture).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    return png(picture.width, picture.height, 16, 2, rows)


# --- what must be tagged --------------------------------------------------------------------


def _good() -> Iterator[Case]:
    picture = shoe()

    def good(name: str, data: bytes) -> Case:
        return Case(f"good-{name}", data, "tagged")

    for form in FORMATS:
        end = SUFFIX[form]
        yield good(f"plain.{end}", plain(form))
        for width, height in ((1, 1), (1, 2), (3, 2), (30, 30), (640, 480), (1000, 1000)):
            yield good(f"{width}x{height}.{end}", encode(shoe((width, height)), form))
        if form != "WebP":  # which has no sides longer than 16,383
            yield good(f"20000x2.{end}", encode(shoe((20000, 2)), form))
            yield good(f"2x20000.{end}", encode(shoe((2, 20000)), form))
        yield good(f"followed-by-a-zip.{end}", plain(form) + _zip())
        if form in ("JPEG", "PNG", "WebP", "TIFF"):
            for orientation in range(1, 9):
                yield good(f"exif-{orientation}.{end}", oriented(orientation, form, picture))
            for orientation in (0, 9, 65535):
                data = encode(picture, form, exif=exif(orientation))
                yield good(f"exif-{orientation}.{end}", data)
        if form in ("JPEG", "PNG", "WebP"):
            yield good(
                f"exif-broken.{end}", encode(picture, form, exif=b"Exif\0\0II*\0" + b"\xff" * 40)
            )
        if form != "BMP" and form != "GIF":
            lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
            srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            swapped = swapped_profile()
            yield good(f"profile-srgb.{end}", encode(picture, form, icc_profile=srgb))
            yield good(f"profile-swapped.{end}", encode(picture, form, icc_profile=swapped))
            yield good(f"profile-cut.{end}", encode(picture, form, icc_profile=swapped[:200]))
            yield good(f"profile-garbage.{end}", encode(picture, form, icc_profile=b"\xff" * 500))
            yield good(f"profile-of-lab.{end}", encode(picture, form, icc_profile=lab))

    for mode in ("L", "CMYK"):
        yield good(f"{mode}.jpg", encode(picture.convert(mode), "JPEG"))
        swapped = swapped_profile()
        data = encode(picture.convert(mode), "JPEG", icc_profile=swapped)
        yield good(f"{mode}-with-a-profile-of-rgb.jpg", data)
    yield good("ycck.jpg", ycck(picture))
    yield good("progressive.jpg", encode(picture, "JPEG", progressive=True))
    yield good("poor.jpg", encode(picture, "JPEG", quality=1, subsampling=2))
    yield good("mpo.jpg", encode(picture, "MPO", save_all=True, append_images=[picture]))
    yield good("restart-markers.jpg", encode(picture, "JPEG", restart_marker_blocks=1))

    alpha = _see_through()
    for mode in ("1", "L", "P"):
        yield good(f"{mode}.png", encode(picture.convert(mode), "PNG"))
        yield good(f"{mode}.bmp", encode(picture.convert(mode), "BMP"))
        yield good(f"{mode}.gif", encode(picture.convert(mode), "GIF"))
    for mode in ("LA", "RGBA"):
        yield good(f"{mode}.png", encode(alpha.convert(mode), "PNG"))
        yield good(f"{mode}.tif", encode(alpha.convert(mode), "TIFF"))
    palette = alpha.convert("P")
    yield good("palette-one-transparent.png", encode(palette, "PNG", transparency=0))
    some = bytes(range(256))
    yield good("palette-half-transparent.png", encode(palette, "PNG", transparency=some))
    yield good("palette-transparent.gif", encode(palette, "GIF", transparency=0))
    yield good("grey-transparent.png", encode(picture.convert("L"), "PNG", transparency=255))
    yield good("rgb-transparent.png", encode(picture, "PNG", transparency=(255, 255, 255)))
    yield good("16-bit-rgb.png", deep_png(picture))
    for form in ("PNG", "TIFF"):
        yield good(f"16-bit-grey.{SUFFIX[form]}", encode(_deep_grey(), form))
    yield good("alpha.webp", encode(alpha, "WebP"))
    yield good("lossless.webp", encode(alpha, "WebP", lossless=True))
    yield good("alpha.bmp", encode(alpha, "BMP"))

    second = picture.transpose(Image.Transpose.ROTATE_180)
    for form in ("GIF", "PNG", "WebP", "TIFF"):
        data = encode(picture, form, save_all=True, append_images=[second] * 3)
        yield good(f"animated.{SUFFIX[form]}", data)
    many = [Image.new("L", (4, 4), number % 256) for number in range(300)]
    yield good("300-frames.gif", encode(many[0], "GIF", save_all=True, append_images=many[1:]))

    for way in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield good(f"{way}.tif", encode(picture, "TIFF", compression=way))
    yield good("group4.tif", encode(picture.convert("1"), "TIFF", compression="group4"))
    for mode in ("L", "CMYK", "YCbCr", "F", "I"):
        yield good(f"{mode}.tif", encode(picture.convert(mode), "TIFF"))
    yield good("big.tif", encode(picture, "TIFF", big_tiff=True))
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 10_000, zip=True)
    yield good("with-text.png", encode(picture, "PNG", pnginfo=text))


def _see_through() -> Image.Image:
    alpha = shoe().convert("RGBA")
    alpha.putalpha(Image.linear_gradient("L").resize(alpha.size))
    return alpha


def _deep_grey() -> Image.Image:
    return Image.fromarray(np.asarray(shoe().convert("L")).astype(np.uint16) * 257)


def _misnamed() -> Iterator[Case]:
    for form in FORMATS:
        others = [SUFFIX[other] for other in FORMATS if other != form]
        for end in (f".{others[0]}", f".{others[-1]}", ".txt", "", ".JPG.exe"):
            yield Case(f"misnamed-{form}{end}", plain(form), "tagged")


# --- what must be rejected ------------------------------------------------------------------


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("shoe.txt", "no shoe")
    return file.getvalue()


def _not_pictures() -> Iterator[Case]:
    picture = shoe()
    kinds = {
        "empty": (b"", "empty"),
        "one-byte": (b"\xff", "truncated"),
        "one-letter": (b"x", "not a picture"),
        "zeros": (bytes(5000), "zeros"),
        "spaces": (b" " * 5000, "not a picture"),
        "text": (b"Dear team, please find the shoes attached.\n", "not a picture"),
        "text-in-utf16": ("Liebes Team".encode("utf-16"), "not a picture"),
        "csv": (b"image_name,black\na.jpg,1\n", "not a picture"),
        "json": (b'{"error": "not found"}', "not a picture"),
        "html": (b"\n <!DOCTYPE html><html><body>404</body></html>", "a web page"),
        "html-with-mark": (b"\xef\xbb\xbf<html><body>404</body></html>", "a web page"),
        "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>', "SVG"),
        "svg-xml": (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG"),
        "pdf": (encode(picture, "PDF"), "PDF"),
        "zip": (_zip(), "zip"),
        "eps": (encode(picture, "EPS"), "PostScript"),
        "psd": (b"8BPS\0\1" + bytes(100), "Photoshop"),
        "heic-header-alone": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50), "HEIC"),
        "mp4": (b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(50), "a video"),
        "live-photo": (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(50), "a video"),
        "still-of-no-known-kind": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1jxl " + bytes(50), "a video"),
        "icon": (encode(picture, "ICO"), "not a picture"),
        "ppm": (encode(picture, "PPM"), "not a picture"),
        "pcx": (encode(picture, "PCX"), "not a picture"),
        "tga": (encode(picture, "TGA"), "not a picture"),
        "jpeg2000": (encode(picture, "JPEG2000"), "not a picture"),
        "wav": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "not a picture"),
        "elf": (b"\x7fELF\2\1\1" + bytes(100), "not a picture"),
        "gzip": (b"\x1f\x8b\x08" + bytes(30), "not a picture"),
        "pickle": (b"\x80\x04\x95" + bytes(30), "not a picture"),
        "random": (random.Random(5).randbytes(5000), "not a picture"),
    }
    for name, (data, reason) in kinds.items():
        yield Case(f"{name}.jpg", data, "rejected", reason)


def _cut() -> Iterator[Case]:
    starts = {"JPEG": 3, "PNG": 8, "GIF": 6, "WebP": 12, "TIFF": 4, "BMP": 2}
    for form in FORMATS:
        data, end = plain(form), SUFFIX[form]
        for length in (starts[form] - 1, starts[form], starts[form] + 4, 20, 30):
            yield Case(f"cut-to-{length}-bytes.{end}", data[:length], "rejected")
        for percent in (10, 25, 40, 50, 60, 75, 90, 97):
            cut = data[: len(data) * percent // 100]
            yield Case(f"cut-to-{percent}-percent.{end}", cut, "rejected")
        filled = data[: len(data) // 3] + bytes(len(data) - len(data) // 3)
        yield Case(f"rest-is-zeros.{end}", filled, "either")  # as a stopped download leaves it
    for number in range(5):
        data = encode(_noisy(), "JPEG", progressive=True)
        length = len(data) * (number + 1) // 6
        yield Case(f"cut-progressive-{number}.jpg", data[:length], "rejected", "truncated")


def _bombs() -> Iterator[Case]:
    side = 60_000
    rows = (b"\0" + bytes(side // 8)) * 200

    def bomb(name: str, data: bytes, reason: str = "too many pixels") -> Case:
        return Case(f"bomb-{name}", data, "rejected", reason)

    for depth, colour, kind in ((1, 0, "bits"), (8, 2, "rgb"), (16, 6, "rgba16")):
        yield bomb(f"{kind}.png", png(side, side, depth, colour, rows))
    yield bomb("largest.png", png(2**31 - 1, 2**31 - 1, 8, 2, rows))
    yield bomb("one-too-many.png", encode(Image.new("1", (1001, 1000)), "PNG"))
    for form in FORMATS:
        data = encode(Image.new("L", (1001, 1000)), form)
        yield bomb(f"just-over.{SUFFIX[form]}", data)
    yield bomb("giant.gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + plain("GIF")[10:])
    jpeg = plain("JPEG")
    frame = jpeg.index(b"\xff\xc0")
    for width, height in ((65500, 65500), (65535, 65535), (40000, 30)):
        sized = jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]
        yield bomb(f"{width}x{height}.jpg", sized)
    bmp = plain("BMP")
    for width, height in ((side, side), (side, -side), (2**31 - 1, 2**31 - 1)):
        sized = bmp[:18] + struct.pack("<ii", width, height) + bmp[26:]
        yield bomb(f"{width}x{height}.bmp", sized)
    huge = b"\0" * 4 + (16382).to_bytes(3, "little") * 2
    yield bomb("canvas.webp", b"RIFF\xff\0\0\0WEBPVP8X\x0a\0\0\0" + huge + bytes(40))
    bits = (16382 | 16382 << 14).to_bytes(4, "little")
    yield bomb("lossless.webp", b"RIFF\xff\0\0\0WEBPVP8L\x20\0\0\0\x2f" + bits + bytes(40))
    tiff = bytearray(plain("TIFF"))
    yield bomb("giant.tif", _with_tiff_size(tiff, side, side))
    yield bomb("text.png", png(9, 9, 8, 0, bytes(90), _text_bomb(b"zTXt")), "damaged PNG")
    yield bomb("many-bytes.jpg", plain("JPEG") + bytes(LIMITS.max_bytes), "too large")
    yield Case("bomb-profile.png", png(9, 9, 8, 0, bytes(90), _text_bomb(b"iCCP")), "either")
    frame_beyond = plain("GIF").replace(struct.pack("<HHHH", 0, 0, 120, 80), b"\xff" * 8, 1)
    yield Case("bomb-frame.gif", frame_beyond, "rejected")


def _text_bomb(kind: bytes) -> bytes:
    return chunk(kind, b"comment\0\0" + zlib.compress(bytes(20_000_000), 9))


def _with_tiff_size(data: bytearray, width: int, height: int) -> bytes:
    at = struct.unpack("<I", data[4:8])[0]
    for entry in range(struct.unpack("<H", data[at : at + 2])[0]):
        place = at + 2 + 12 * entry
        tag = struct.unpack("<H", data[place : place + 2])[0]
        if tag in (256, 257):
            value = width if tag == 256 else height
            data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


# --- random damage --------------------------------------------------------------------------


def _damaged(seed: int) -> Iterator[Case]:
    dice = random.Random(seed)
    for form in FORMATS:
        end = SUFFIX[form]
        for number in range(12):
            data = bytearray(plain(form))
            for _ in range(dice.choice((1, 3, 30))):
                data[dice.randrange(2, len(data))] = dice.randrange(256)
            yield Case(f"flipped-{number}.{end}", bytes(data), "either")
        for number in range(4):
            data = bytearray(plain(form))
            at = dice.randrange(len(data))
            del data[at : at + dice.randrange(1, 200)]
            yield Case(f"holes-{number}.{end}", bytes(data), "either")
        for number in range(4):
            other = plain(dice.choice([f for f in FORMATS if f != form]))
            data = plain(form)
            at = dice.randrange(12, len(data))
            yield Case(f"spliced-{number}.{end}", data[:at] + other[at:], "either")


# --- AVIF and HEIC --------------------------------------------------------------------------


def _iso_media(seed: int) -> Iterator[Case]:
    dice = random.Random(seed)
    for form, end in ISO_MEDIA.items():
        data = plain(form)
        yield Case(f"good-plain.{end}", data, "tagged")
        yield Case(f"good-alpha.{end}", encode(_see_through(), form), "tagged")
        yield Case(f"good-64x3.{end}", encode(shoe((64, 3)), form), "tagged")
        yield Case(f"good-exif-6.{end}", oriented(6, form, shoe()), "tagged")
        yield Case(f"good-{form}-named.jpg", data, "tagged")
        over = encode(Image.new("L", (1001, 1000)), form)
        yield Case(f"bomb-just-over.{end}", over, "rejected", "too many pixels")
        for length in (5, 7, 8, 11, 20, 40):
            yield Case(f"cut-to-{length}-bytes.{end}", data[:length], "rejected", "truncated")
        for percent in (25, 60, 97):
            cut = data[: len(data) * percent // 100]
            yield Case(f"cut-to-{percent}-percent.{end}", cut, "rejected", "truncated")
        for number in range(12):
            flipped = bytearray(data)
            for _ in range(dice.choice((1, 3, 30))):
                flipped[dice.randrange(12, len(flipped))] = dice.randrange(256)
            yield Case(f"flipped-{number}.{end}", bytes(flipped), "either")
        size = data.index(b"ispe") + 8  # what the file says, before any picture is decoded
        for side in (60_000, 2**31 - 1):
            giant = data[:size] + struct.pack(">II", side, side) + data[size + 8 :]
            yield Case(f"bomb-{side}.{end}", giant, "rejected")
