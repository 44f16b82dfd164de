"""The outer boxes of AVIF, HEIC and video files (ISO base media files), read without a decoder."""

from __future__ import annotations

import struct

# Brands (ISO/IEC 23000-22) of still pictures and their bursts, by the format that decodes them.
_FORMATS = {
    "AVIF": (b"avif", b"avis"),
    "HEIC": (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
}
_BRANDS_READ = 64  # a file of a camera names fewer than ten


def is_iso_media(data: bytes) -> bool:
    """Tell whether a file, or the 5 to 8 bytes that there are of one, begins as these do."""
    return len(data) > 4 and b"ftyp".startswith(data[4:8])


def picture_format(data: bytes) -> str | None:
    """Return "AVIF" or "HEIC", by the brands that a file names; None for videos and others."""
    size = min(struct.unpack(">I", data[:4].rjust(4, b"\0"))[0], 16 + 4 * _BRANDS_READ)
    brands = [data[8:12], *(data[at : at + 4] for at in range(16, size, 4))]
    return next((name for b in brands for name, of in _FORMATS.items() if b in of), None)


def is_cut(data: bytes) -> bool:
    """Tell whether a file ends before its last box does."""
    at = 0
    while at < len(data):
        header = data[at : at + 16]
        if len(header) < 8:
            return True
        size = int.from_bytes(header[:4], "big")
        if size == 1:  # a larger number follows
            size = int.from_bytes(header[8:16], "big") if len(header) == 16 else 16
        if size == 0:  # to the end of the file
            return False
        if size < 8:  # no box: damaged, which is another matter
            return False
        at += size
    return at > len(data)
