"""Slots in nameless shared memory, through which views and previews reach the parent process."""

from __future__ import annotations

import math
import mmap
import os
import tempfile

import numpy as np

from ..images.views import Transform
from .preview import MOST_BYTES

READING, DECODING = 1, 2


class Slots:
    """Places for the views of pictures in work, each with a byte for the phase of its work.

    With `previews`, each has room for a preview, too; memory is taken as far as it is written to.
    """

    def __init__(
        self, file: int, transforms: tuple[Transform, ...], slots: int, *, previews: bool
    ) -> None:
        memory = mmap.mmap(file, self.room(transforms, slots, previews=previews))
        self.phase = np.frombuffer(memory, np.uint8, slots)
        self.views: list[np.ndarray] = []  # a (slots, S, S, 3) uint8 array per transform
        offset = slots
        for transform in transforms:
            shape = (slots, transform.size, transform.size, 3)
            self.views.append(
                np.frombuffer(memory, np.uint8, math.prod(shape), offset).reshape(shape)
            )
            offset += math.prod(shape)
        most = MOST_BYTES if previews else 0
        self._previews = np.frombuffer(memory, np.uint8, slots * most, offset).reshape(slots, most)

    @staticmethod
    def room(transforms: tuple[Transform, ...], slots: int, *, previews: bool) -> int:
        views = sum(3 * transform.size**2 for transform in transforms)
        return slots * (1 + views + (MOST_BYTES if previews else 0))

    def copy(self, slot: int) -> tuple[np.ndarray, ...]:
        return tuple(views[slot].copy() for views in self.views)

    def put_preview(self, slot: int, jpeg: bytes) -> int:
        """Write a preview into a slot; return its length."""
        self._previews[slot, : len(jpeg)] = np.frombuffer(jpeg, np.uint8)
        return len(jpeg)

    def preview(self, slot: int, length: int) -> bytes | None:
        """Return a copy of the preview in a slot; None for a length that no preview has."""
        if not 0 < length <= self._previews.shape[1]:
            return None
        return self._previews[slot, :length].tobytes()


def nameless_file(size: int, of: str = "views") -> int:
    """Return the descriptor of memory that vanishes with the last process that has it open.

    `of` is what it holds, for whoever looks at the descriptors of a process.
    """
    if hasattr(os, "memfd_create"):
        file = os.memfd_create(f"shoetagger-{of}")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, size)
    return file
