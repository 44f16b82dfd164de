"""The pieces of tagging, each alone: which of them bounds the whole."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from more_itertools import chunked
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torchvision.io import ImageReadMode, decode_jpeg

from shoetagger.config.params import Params
from shoetagger.images.decode import Limits, image_id, open_with_size
from shoetagger.images.views import Transform, frame_of, tagging_view
from shoetagger.inference.bundle import load_bundle
from shoetagger.inference.decision import tags_of
from shoetagger.inference.engine import Engine, for_inference
from shoetagger.inference.loading import load_model
from shoetagger.ingest import folder
from shoetagger.ingest.batches import decode_pool
from shoetagger.network.backbone import State, begin, pool
from shoetagger.network.layers import HISTOGRAM, layer_of
from shoetagger.network.pooling import color_histogram
from shoetagger.store.rows import Prediction, Tagged, file_id_of
from shoetagger.store.store import Store
from shoetagger.tagging.run import TaggingRun

from .machine import wait_for

Rates = dict[str, float]  # name of a piece -> pictures per second
_WARM = 64  # pictures, by which every decoding process has started
_DECODED_AT_ONCE = 256  # by the GPU


def rate(work: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Return the pictures per second of `work`, which returns how many it did."""
    work()  # the first call chooses kernels and takes memory
    wait_for(device)
    done, started = 0, time.perf_counter()
    while done == 0 or time.perf_counter() - started < seconds:
        done += work()
        wait_for(device)
    return done / (time.perf_counter() - started)


def files(paths: Sequence[Path], options: Params, transform: Transform) -> Rates:
    """Read and decode files: by one core, by all of them, and as the decoding processes do."""
    limits, cores = Limits.of(options.images), options.tag.decode_workers
    rates = {}
    for path in paths:
        _forget(path)
    started = time.perf_counter()
    with ThreadPoolExecutor(cores) as readers:
        contents = list(readers.map(lambda path: _read(path, limits), paths))
    rates["read, from disk, by all cores"] = len(paths) / (time.perf_counter() - started)

    some = paths[: max(1, len(paths) // 4)]
    started = time.perf_counter()
    for path in some:
        image_id(_read(path, limits))
    rates["read and hash, from memory, one core"] = len(some) / (time.perf_counter() - started)

    started = time.perf_counter()
    for data in contents[: len(some)]:
        tagging_view(open_with_size(data, limits, longest=transform.longest).image, transform)
    rates["decode to the square, one core"] = len(some) / (time.perf_counter() - started)

    locators = [folder.locator_of(path) for path in paths]
    root = Path(os.path.commonpath(paths))
    with decode_pool(options, [transform], root, settle_seconds=0.0, batch=512) as pool:
        list(pool.run(locators[:_WARM]))
        started = time.perf_counter()
        decoded = sum(d.views is not None for d in pool.run(locators))
        rates[f"read and decode, {cores} processes"] = decoded / (time.perf_counter() - started)
    if decoded != len(paths):
        raise RuntimeError(f"{len(paths) - decoded} of {len(paths)} copies could not be decoded")
    return rates


def decoding_on(
    device: torch.device, jpegs: Sequence[bytes], transform: Transform, seconds: float
) -> Rates:
    """Decode JPEGs by torchvision on a device (nvJPEG on a GPU), and fit them into squares."""
    batches = cycle(chunked(encoded(jpegs), _DECODED_AT_ONCE))

    def decode() -> int:
        return len(decoded_on(device, next(batches)))

    def squares() -> int:
        images = decoded_on(device, next(batches))
        return len(torch.stack([square(image, transform) for image in images]))

    return {
        "decode": rate(decode, device, seconds),
        "decode to the square": rate(squares, device, seconds),
    }


def encoded(jpegs: Sequence[bytes]) -> list[Tensor]:
    return [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in jpegs]


def decoded_on(device: torch.device, batch: list[Tensor]) -> list[Tensor]:
    """Return the pictures (3, height, width) uint8 of encoded JPEGs, on the device."""
    images: list[Tensor] = decode_jpeg(batch, mode=ImageReadMode.RGB, device=device)
    return images


def square(image: Tensor, transform: Transform) -> Tensor:
    """Fit a picture (3, height, width) uint8 into a square (S, S, 3), much as `tagging_view`."""
    fitted = _fitted(_cropped(image, transform), transform.size)
    height, width = fitted.shape[1:]
    left, top = (transform.size - width) // 2, (transform.size - height) // 2
    right, bottom = transform.size - width - left, transform.size - height - top
    padded = F.pad(fitted, (left, right, top, bottom), value=transform.fill)
    return _pixels(padded)


def _cropped(image: Tensor, transform: Transform) -> Tensor:
    """Crop a picture as `tagging_view` does; the CPU looks for the shoe in a reduced one."""
    if transform.framing == "whole":
        return image
    longest = max(image.shape[1:])
    reduced = min(longest, transform.longest)
    frame = frame_of(Image.fromarray(_pixels(_fitted(image, reduced)).cpu().numpy()), transform)
    if frame is None:
        return image
    left, top, right, bottom = (round(edge * longest / reduced) for edge in frame)
    return image[:, top:bottom, left:right]


def _fitted(image: Tensor, longest: int) -> Tensor:
    """Resize a picture (3, height, width), antialiased, to `longest` pixels on its longer side."""
    scale = longest / max(image.shape[1:])
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    return F.interpolate(
        image[None].float(), size, mode="bicubic", antialias=True, align_corners=False
    )[0]


def _pixels(image: Tensor) -> Tensor:
    """Return a picture (3, height, width) as (height, width, 3) uint8."""
    return image.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)


@torch.inference_mode()
def models(
    folders: Sequence[Path], views: np.ndarray, device: torch.device, seconds: float
) -> Rates:
    """Run the bundles' shared backbone, their heads, and the engine with both."""
    bundles = [load_bundle(folder) for folder in folders]
    heads = [load_model(f, b).to(device) for f, b in zip(folders, bundles, strict=True)]
    engine = Engine(folders, str(device))
    backbone = load_model(folders[0], bundles[0])
    layers = {
        name: for_inference(backbone.layer(name))
        .module.to(device, engine.dtype)
        .to(memory_format=torch.channels_last)
        for name in backbone.layers
    }
    transform, images = bundles[0].transform, torch.from_numpy(views).to(device)
    seen = {name for bundle in bundles for name in bundle.pooled}
    maps: dict[str, Tensor] = {}

    def trunk() -> int:
        x = begin(images, transform, (), engine.dtype).output
        for name, layer in layers.items():
            x = maps[name] = layer(x)
        return len(x)

    def pool_and_score() -> int:
        colors = {HISTOGRAM: color_histogram(images)} if HISTOGRAM in seen else {}
        of_layers = ((name, layer_of(name)) for name in seen - {HISTOGRAM})
        pooled = {n: pool(backbone.layer(of).reading, maps[of], n) for n, of in of_layers}
        state = State(maps[backbone.layers[-1]], colors | pooled)
        for head in heads:
            torch.sigmoid(head.finish(state)).cpu()
        return len(images)

    trunk()
    return {
        "copy to the device": _copying(views, device, seconds),
        "trunk": rate(trunk, device, seconds),
        "pooling and heads": rate(pool_and_score, device, seconds),
        **_engine(engine, views, seconds),
    }


def _copying(views: np.ndarray, device: torch.device, seconds: float) -> float:
    def copy() -> int:
        host = torch.from_numpy(views)
        if device.type == "cuda":
            host = host.pin_memory()
        return len(host.to(device, non_blocking=True, copy=True))

    return rate(copy, device, seconds)


def _engine(engine: Engine, views: np.ndarray, seconds: float) -> Rates:
    batch = {engine.transforms[0]: views}

    def score() -> int:
        engine.score(batch)
        return len(views)

    def predict_all() -> int:
        engine.predict(batch)
        return len(views)

    return {
        "engine, scores": rate(score, engine.device, seconds),
        "engine, tags": rate(predict_all, engine.device, seconds),
    }


def writing(store: Store, run: TaggingRun, engine: Engine, batch: int) -> float:
    """Write predictions of all files that wait in a store; return the pictures per second."""
    rng, written, started = np.random.default_rng(0), 0, time.perf_counter()
    while rows := store.files.hand_out(run.run_id, limit=batch):
        tagged = [Tagged(r.file_id, r.token, file_id_of(r.file_id), 600, 400) for r in rows]
        predictions = []
        for bundle in engine.bundles:
            scores = rng.random((len(rows), len(bundle.tags)))
            tags = tags_of(bundle.predict(scores), bundle.tags)
            predictions += [
                Prediction(one.image_id, bundle.digest, tuple(row), names)
                for one, row, names in zip(tagged, scores.round(4).tolist(), tags, strict=True)
            ]
        now = datetime.now(UTC)
        store.predictions.record(tagged=tagged, predictions=predictions, run_id=run.run_id, now=now)
        written += len(rows)
    return written / (time.perf_counter() - started)


def tiled(views: np.ndarray, count: int) -> np.ndarray:
    """Repeat pictures until there are `count` of them."""
    return np.stack(list(islice(cycle(views), count)))


def _read(path: Path, limits: Limits) -> bytes:
    return folder.read(folder.locator_of(path), limits.max_bytes).data


def _forget(path: Path) -> None:
    """Let the kernel drop a file's bytes from memory, so that they are read from the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # only what is on the disk can be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
