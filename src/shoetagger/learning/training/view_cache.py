"""States of pictures that earlier runs computed: a later run computes those of new ones alone."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from ...atomic import atomic_write
from ...network.digests import canonical
from .images import ImageDataset

# The code that states depend on, besides what is in the digest of the prefix.
_PACKAGE = Path(__file__).parents[2]
_CODE = (
    _PACKAGE / "images",
    _PACKAGE / "network",
    _PACKAGE / "learning" / "training" / "features.py",
    _PACKAGE / "learning" / "training" / "feature_files.py",
    _PACKAGE / "learning" / "training" / "images.py",
)
_LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow")
_HEADER = 2048  # bytes of a file, at most, besides its arrays

# Of one picture, by name as the files of the stage: (views + 1, ...) float16, the plain view last.
States = Mapping[str, np.ndarray]


def key_of(
    prefix: str, names: Collection[str], views: int, dataset: ImageDataset, device: torch.device
) -> str:
    """Return a digest of all that the states of a picture depend on, besides its bytes.

    So of the frozen layers by the digest `prefix`, and of how views are drawn. Of the number of
    views, since they are computed together, and the last bits depend on how many are. Of code,
    libraries and processor, for the same reason.
    """
    described = {
        "prefix": prefix,
        "names": sorted(names),
        "views": views,
        "augment": dataset.augment and asdict(dataset.augment),
        "seed": dataset.seed,
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "device": [platform.machine(), _processor(device)],
    }
    digest = hashlib.sha256(canonical(described))
    for file in _sources():
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:  # timm, which few backbones need
        return None


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def _sources() -> Iterator[Path]:
    for place in _CODE:
        yield from sorted(place.rglob("*.py")) if place.is_dir() else [place]


class ViewCache:
    """A folder with a file per picture, within a folder per key, `max_bytes` large at most.

    What was not used for longest goes first. Several runs may use a folder at the same time: files
    are written whole, and one that is missing or damaged is one that was never kept.
    """

    def __init__(self, root: Path, key: str, max_bytes: int) -> None:
        self._root, self._folder, self._max_bytes = root, root / key, max_bytes
        self._room, self._lock = 0, threading.Lock()

    def has(self, image_id: str) -> bool:
        """Return whether there is a file for a picture; it may still prove to be damaged."""
        return self._file(image_id).exists()

    def read(self, image_id: str) -> States | None:
        """Return the states of a picture; None where they were not kept, or are damaged."""
        path = self._file(image_id)
        try:
            states: States = load_file(path)
            path.touch()  # used just now
        except (OSError, SafetensorError):
            return None
        return states

    def make_room(self, image_ids: Sequence[str], bytes_per_picture: int) -> None:
        """Delete what was not used for longest, until the states of some pictures fit as well."""
        files, needed = dict(self._stats()), {self._file(image_id) for image_id in image_ids}
        more = len(needed - files.keys()) * (bytes_per_picture + _HEADER)
        self._room = self._max_bytes - sum(stat.st_size for stat in files.values())
        for path, stat in sorted(files.items(), key=lambda item: item[1].st_mtime_ns):
            if self._room >= more:
                break
            if path not in needed:
                path.unlink(missing_ok=True)
                self._room += stat.st_size

    def write(self, image_id: str, states: States) -> None:
        """Keep the states of a picture, unless the room that was made is used up."""
        content = save({k: np.ascontiguousarray(planes) for k, planes in states.items()})
        with self._lock:
            if len(content) > self._room:
                return
            self._room -= len(content)
        self._folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self._file(image_id), flushed=False) as file:
            file.write(content)

    def _file(self, image_id: str) -> Path:
        return self._folder / f"{image_id}.safetensors"

    def _stats(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Yield the files of all keys; another run may delete some meanwhile."""
        for path in self._root.glob("*/*"):
            with suppress(FileNotFoundError):
                yield path, path.stat()
