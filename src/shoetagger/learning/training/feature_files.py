"""Runs all views of all pictures through the frozen prefix, and writes what training reads.

Each core of a CPU draws the views of a picture and runs the prefix on them, so that none waits for
another; a GPU gets the views that all cores draw. The views of a picture always pass through
the prefix together and alone: the last bits of a result depend on what else is in a batch.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from ...network.backbone import State, TagModel
from ...network.devices import cores
from ...network.layers import frozen_layers
from .features import INDEX_FILE, Index, Live, file_of
from .images import ImageDataset
from .view_cache import States, ViewCache, key_of

# Pictures per core: under way or waiting to be written, and timed before the others.
_AHEAD, _TRIAL = 2, 2


@dataclass(frozen=True)
class Work:
    """How many views there are of how many pictures, `kept` of them by earlier runs.

    `seconds` is how long the others will take, judged by the first ones.
    """

    pictures: int
    views: int
    kept: int
    seconds: float


def views_that_fit(count: int, bytes_per_view: int, views: int, max_gb: float) -> int:
    """Return how many augmented views of `count` images fit beside the plain one; 0 means live."""
    room = int(max_gb * 1e9 // max(count * bytes_per_view, 1)) - 1
    return max(0, min(views, room))


def compute(
    model: TagModel,
    dataset: ImageDataset,
    image_ids: Sequence[str],
    *,
    freeze: str,
    views: int,
    max_gb: float,
    prefix: str | None,
    directory: Path,
    cache: Path | None,
    device: torch.device,
    on_work: Callable[[Work], None],
    on_batch: Callable[[int, int], None],
) -> Index:
    """Write the states after the layer `freeze` of all views of all pictures, as half floats.

    Writes `map.npy` (unless the whole backbone is frozen) and a `pooled_<name>.npy` for each name
    that `model` pools up to there, all of shape (views + 1, N, ...) with the plain view last; then
    `index.json`. Writes the index alone where nothing is frozen or nothing fits `max_gb`.

    States that a folder `cache` has from earlier runs are read from there, and new ones are added;
    it takes no more than `max_gb` either. `on_work` is called once, when the first few pictures
    are done; `on_batch` gets the number of pictures done, and of all.
    """
    directory.mkdir(parents=True, exist_ok=True)
    layers = frozen_layers(model.layers, freeze)
    shapes = _shapes(model, layers, dataset) if layers and len(dataset) else {}
    bytes_per_view = sum(2 * int(np.prod(shape)) for shape in shapes.values())
    fitting = views_that_fit(len(dataset), bytes_per_view, views, max_gb) if shapes else 0
    if fitting:
        kept = None
        if cache is not None and prefix is not None:
            key = key_of(prefix, shapes, fitting, dataset, device)
            kept = ViewCache(cache, key, int(max_gb * 1e9))
            kept.make_room(image_ids, (fitting + 1) * bytes_per_view)
        live = Live(model, dataset, freeze, fitting, device)
        files = _open_files(directory, (fitting + 1, len(dataset)), shapes)
        whole = layers == model.layers
        _Writer(live, dataset, image_ids, kept, whole=whole).write(files, on_work, on_batch)
    index = Index(freeze, fitting, tuple(image_ids), prefix)
    (directory / INDEX_FILE).write_text(json.dumps(asdict(index), indent=1) + "\n")
    return index


def _shapes(
    model: TagModel, layers: Sequence[str], dataset: ImageDataset
) -> dict[str, tuple[int, ...]]:
    state = Live(model, dataset, layers[-1], 1, torch.device("cpu")).plain(np.arange(1))
    arrays = _arrays(state, whole=tuple(layers) == model.layers)
    return {name: array.shape[1:] for name, array in arrays.items()}


def _arrays(state: State, *, whole: bool) -> dict[str, np.ndarray]:
    """Return what is kept of a state: after the whole backbone, only the head runs."""
    tensors = {f"pooled_{k}": v for k, v in state.pooled.items()}
    if not whole:
        tensors["map"] = state.output
    return {name: tensor.half().cpu().numpy() for name, tensor in tensors.items()}


def _open_files(
    directory: Path, planes: tuple[int, int], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.memmap]:
    return {
        name: np.lib.format.open_memmap(
            file_of(directory, name), mode="w+", dtype=np.float16, shape=(*planes, *shape)
        )
        for name, shape in shapes.items()
    }


class _Writer:
    """Writes the states of all pictures: those that are not kept are computed."""

    def __init__(
        self,
        live: Live,
        dataset: ImageDataset,
        image_ids: Sequence[str],
        kept: ViewCache | None,
        *,
        whole: bool,
    ) -> None:
        self._live, self._dataset, self._ids = live, dataset, image_ids
        self._kept, self._whole = kept, whole
        self._threads = torch.get_num_threads()

    def write(
        self,
        files: Mapping[str, np.memmap],
        on_work: Callable[[Work], None],
        on_batch: Callable[[int, int], None],
    ) -> None:
        has = [self._kept is not None and self._kept.has(image_id) for image_id in self._ids]
        new, old = (np.flatnonzero(np.array(has) == kept) for kept in (False, True))
        # The first pictures of each core tell how long the others take.
        trial, rest = np.split(new, [min(len(new), _TRIAL * self._threads)])
        views, started = self._live.views + 1, time.monotonic()
        for rows in (trial, np.concatenate([rest, old])):
            for number, (row, states) in enumerate(self._in_order(rows), start=1):
                for name, planes in states.items():
                    files[name][:, row] = planes
                on_batch(number if rows is trial else number + len(trial), len(has))
            if rows is trial:
                seconds = (time.monotonic() - started) / max(1, len(trial)) * len(rest)
                on_work(Work(len(has), views * len(has), views * len(old), seconds))
        for file in files.values():
            file.flush()

    def _in_order(self, rows: np.ndarray) -> Iterator[tuple[int, States]]:
        """Yield the states of some rows, a few of which are under way at a time."""
        waiting: deque[tuple[int, Future[States]]] = deque()
        with cores(self._threads, "features") as pool:
            for row in rows.tolist():
                waiting.append((row, pool.submit(self._states, row)))
                if len(waiting) > _AHEAD * self._threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()

    def _states(self, row: int) -> States:
        if self._kept is not None and (states := self._kept.read(self._ids[row])):
            return states
        drawn = self._dataset.views(row, range(self._live.views))
        states = _arrays(self._live.state([*drawn, self._dataset.plain(row)]), whole=self._whole)
        if self._kept is not None:
            self._kept.write(self._ids[row], states)
        return states
