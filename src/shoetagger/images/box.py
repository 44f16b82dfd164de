"""Boxes in pictures."""

from __future__ import annotations

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels


def within(left: float, top: float, right: float, bottom: float, size: tuple[int, int]) -> Box:
    """Return a box in whole pixels, cut off where a picture of `size` (width, height) ends."""
    width, height = size
    return (
        max(0, round(left)),
        max(0, round(top)),
        min(width, round(right)),
        min(height, round(bottom)),
    )
