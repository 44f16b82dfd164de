"""Poses of shoes: from the units of outlines to pixels of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .shapes import Array


@dataclass(frozen=True)
class Pose:
    """The pose of one shoe: maps outline units to pixels of the enlarged canvas."""

    shaft: float  # length of a shaft
    bend: float  # a soft bend of all outlines, so that no two shoes are equal
    depth: float  # of perspective: how far the toe points to the viewer
    rotation: float  # radians
    mirrored: bool
    offset: tuple[float, float] = (0.0, 0.0)  # of the second shoe of a pair, in units
    size: float = 1.0
    scale: float = 1.0  # pixels per unit
    origin: tuple[float, float] = (0.0, 0.0)

    def place(self, points: Array) -> Array:
        x, y = points[:, 0].copy(), points[:, 1].copy()
        y = np.where(y < 560, 560 - (560 - y) * self.shaft, y)
        y = y + self.bend * np.sin(x / 1000 * np.pi * 2) * np.clip((800 - y) / 300, 0, 1)
        enlarged = self.depth * (500 - x) / 1000
        x = 500 + (x - 500) * (1 + enlarged) * (1 - 0.35 * abs(self.depth))
        y = 800 + (y - 800) * (1 + enlarged) + 180 * enlarged
        x = (x - 500) * self.size + 500 + self.offset[0]
        y = (y - 800) * self.size + 800 + self.offset[1]
        if self.mirrored:
            x = 1000 - x
        cos, sin = np.cos(self.rotation), np.sin(self.rotation)
        x, y = 500 + (x - 500) * cos - (y - 800) * sin, 800 + (x - 500) * sin + (y - 800) * cos
        return np.stack([x * self.scale + self.origin[0], y * self.scale + self.origin[1]], axis=1)


def fit_poses(poses: Sequence[Pose], outline: Array, width: int, height: int) -> list[Pose]:
    """Scale and move the shoes of a picture together, so that they fill it up to a margin."""
    placed = np.concatenate([pose.place(outline) for pose in poses])
    low, high = placed.min(axis=0), placed.max(axis=0)
    space = np.array([width, height]) * np.array([0.90, 0.84])
    scale = float((space / (high - low)).min())
    middle = np.array([width, height]) * np.array([0.5, 0.49]) - (low + high) / 2 * scale
    return [
        replace(pose, scale=scale, origin=(float(middle[0]), float(middle[1]))) for pose in poses
    ]
