"""Slots in nameless shared memory, through which views reach the parent process."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np

from ..images.views import Transform

READING, DECODING = 1, 2


class Slots:
    """Places for the views of pictures in work, each with a byte for the phase of its work."""

    def __init__(self, file: int, transforms: tuple[Transform, ...], slots: int) -> None:
        memory = mmap.mmap(file, self.room(transforms, slots))
        self.phase = np.frombuffer(memory, np.uint8, slots)
        self.views: list[np.ndarray] = []  # a (slots, S, S, 3) uint8 array per transform
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
