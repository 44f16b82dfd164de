"""Slots of nameless shared memory that views travel through."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np

from ..images.views import Transform

# --- shared memory --------------------------------------------------------------------------
READING, DECODING = 1, 2


class Slots:
    """Places for the views of pictures in work, and a byte each that says how far the work is."""

    def __init__(self, file: int, transforms: tuple[Transform, ...], slots: int) -> None:
        memory = mmap.mmap(file, self.room(transforms, slots))
        self.phase = np.frombuffer(memory, np.uint8, slots)
        self.views: list[np.ndarray] = []  # a (slots, S, S, 3) uint8 array a transform
        offset = slots
        for transform in transforms:
            shape = (slots, transform.size, transform.size, 3)
            self.views.append(
                np.frombuffer(memory, np.uint8, math.prod(shape), offset).reshape(shape)
            )
            offset += math.prod(shape)

    @staticmethod
    def room(transforms: tuple[Transform, ...], slots: int) -> int:
        return slots * (1 + sum(3 * transform.size**2 for transform in transforms))

    def copy(self, slot: int) -> tuple[np.ndarray, ...]:
        return tuple(views[slot].copy() for views in self.views)


def nameless_file(size: int) -> int:
    """Return the descriptor of memory that vanishes with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("shoetagger-views")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file
