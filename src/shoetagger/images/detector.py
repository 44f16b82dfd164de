"""Finds shoes by a detection network, where the ground is too uneven for colour to tell them.

The network is the first part of MediaPipe's Objectron: an SSD with MobileNetV2, trained on Open
Images, which has boots, high heels and other footwear among its classes. Its boxes and anchors are
decoded as in "SSD: Single Shot MultiBox Detector" (Liu et al., 2016). This module imports no torch.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..errors import ShoetaggerError
from .box import Box, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

TENSOR = "detector"  # the name of a detector's bytes among the weights of a bundle

_SIDE = 300  # pixels of the square that the network sees
_STRIDES = (16, 32, 64, 128, 256, 512)
_SHAPES = (1.0, 2.0, 0.5, 3.0, 0.3333)  # width by height
_SMALLEST, _LARGEST = 0.2, 0.95  # of the picture's side: anchors of the first and the last grid
_CLASSES = 24
_SHOES = (2, 17, 19)  # boot, high heels, footwear
_ANCHORS = 1917
# What boxes are coded by: centres by a tenth of the anchor, sides by a fifth, as logarithms.
_CENTRE, _LENGTH = 10.0, 5.0

_LEAST_SCORE = 0.3
# Of a picture's best box: others are shoes as well, of a pair or on another foot.
_LEAST_SHARE = 0.5
_SAME = 0.5  # boxes that overlap by more (intersection over union) show the same
_MOST = 60  # boxes that are looked at
_MARGIN = 0.1  # of the area's longer side, left on each side


class DetectorError(ShoetaggerError):
    """A detector is missing, damaged or of another kind."""


@dataclass(frozen=True)
class Detector:
    """A detection network, known by the sha256 of its file.

    On this machine it lies at `path`: a TFLite file, or the weights of a bundle, which carry it.
    """

    sha256: str
    path: Path = field(compare=False)

    @classmethod
    def at(cls, path: Path) -> Detector:
        """Return the detector in a TFLite file; raises DetectorError where that cannot be read.

        Whether the file is such a network, `check` tells.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DetectorError(
                f"images.detector: {path} cannot be read ({error.strerror}): put the file there "
                "and run `dvc add data`, or set images.detector to none"
            ) from None
        return cls(hashlib.sha256(data).hexdigest(), path)

    def read(self) -> bytes:
        """Return the bytes of the TFLite file; raises DetectorError where they are others."""
        try:
            carried = self.path.suffix == ".safetensors"
            data = _tensor(self.path) if carried else self.path.read_bytes()
        except FileNotFoundError:
            raise DetectorError(f"{self.path}, which has the shoe detector, is missing") from None
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DetectorError(
                f"{self.path} has not the shoe detector {self.sha256[:12]} that its bundle names: "
                "restore both with `dvc checkout`, or fetch the version again"
            )
        return data

    def area(self, image: Image.Image) -> Box | None:
        """Return the area of an RGB picture that has all its shoes, with a margin.

        None where no shoe is found. Raises DetectorError as `read` does.
        """
        found = _network(self).shoes(image)
        if not len(found):
            return None
        left, top = found[:, :2].min(axis=0) * image.size
        right, bottom = found[:, 2:].max(axis=0) * image.size
        margin = _MARGIN * max(right - left, bottom - top)
        area = within(left - margin, top - margin, right + margin, bottom + margin, image.size)
        return area if area[0] < area[2] and area[1] < area[3] else None

    def check(self) -> None:
        """Raise DetectorError where the file is no network of this kind."""
        _network(self)


def _tensor(path: Path) -> bytes:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            data: bytes = file.get_tensor(TENSOR).tobytes()
    except SafetensorError:
        raise DetectorError(
            f"{path} has no shoe detector, which the bundle beside it names: fetch the version "
            "again"
        ) from None
    return data


# A network's interpreter serves one thread at a time.
_of_thread = threading.local()


def _network(detector: Detector) -> _Network:
    networks: dict[str, _Network] = _of_thread.__dict__.setdefault("networks", {})
    if detector.sha256 not in networks:
        networks[detector.sha256] = _Network(detector.read(), detector.path)
    return networks[detector.sha256]


class _Network:
    def __init__(self, data: bytes, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise DetectorError(
                f"images.detector needs the package ai-edge-litert ({error}): "
                "pip install 'shoetagger[detector]'"
            ) from None
        try:
            self._interpreter = Interpreter(model_content=data, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DetectorError(f"{path} is no TFLite file that can be run: {error}") from None
        entry, *more = self._interpreter.get_input_details()
        outputs = self._interpreter.get_output_details()
        shapes = {tuple(map(int, output["shape"])): output["index"] for output in outputs}
        expected = {(1, _ANCHORS, 4), (1, _ANCHORS, _CLASSES)}
        if more or tuple(entry["shape"]) != (1, _SIDE, _SIDE, 3) or set(shapes) != expected:
            raise DetectorError(
                f"{path} makes {', '.join(map(str, shapes)) or 'nothing'} of "
                f"{tuple(map(int, entry['shape']))}: images.detector is a network that makes "
                f"{', '.join(map(str, sorted(expected)))} of {(1, _SIDE, _SIDE, 3)}, such as "
                "object_detection_ssd_mobilenetv2_oidv4_fp16.tflite"
            )
        self._input = entry["index"]
        self._boxes, self._classes = shapes[1, _ANCHORS, 4], shapes[1, _ANCHORS, _CLASSES]

    def shoes(self, image: Image.Image) -> NDArray[np.float64]:
        """Return the boxes of shoes (N, 4): left, top, right, bottom by the picture's sides."""
        square = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
        seen = np.asarray(square, np.float32)[None] / 127.5 - 1
        self._interpreter.set_tensor(self._input, seen)
        self._interpreter.invoke()
        coded = self._interpreter.get_tensor(self._boxes)[0].astype(np.float64)
        logits = self._interpreter.get_tensor(self._classes)[0].astype(np.float64)
        scores = 1 / (1 + np.exp(-logits[:, _SHOES].max(axis=1)))
        best = np.argsort(-scores, kind="stable")[:_MOST]
        best = best[scores[best] >= max(_LEAST_SCORE, _LEAST_SHARE * scores[best[0]])]
        return _different(_decoded(coded[best], _anchors()[best]))


@lru_cache(maxsize=1)
def _anchors() -> NDArray[np.float64]:
    """Return the anchors (1917, 4): centre x and y, width and height by the picture's sides."""
    scales = np.linspace(_SMALLEST, _LARGEST, len(_STRIDES))
    anchors = []
    for scale, larger, stride in zip(scales, [*scales[1:], 1.0], _STRIDES, strict=True):
        kinds = [(scale, shape) for shape in _SHAPES] + [(float(np.sqrt(scale * larger)), 1.0)]
        if stride == _STRIDES[0]:
            kinds = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        cells = -(-_SIDE // stride)
        anchors += [
            ((x + 0.5) / cells, (y + 0.5) / cells, side * shape**0.5, side / shape**0.5)
            for y in range(cells)
            for x in range(cells)
            for side, shape in kinds
        ]
    return np.array(anchors)


def _decoded(coded: NDArray[np.float64], anchors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return boxes (N, 4), coded (N, 4) as y, x, height, width against their anchors."""
    centre = anchors[:, :2] + coded[:, 1::-1] / _CENTRE * anchors[:, 2:]
    half = np.exp(coded[:, :1:-1] / _LENGTH) * anchors[:, 2:] / 2
    return np.hstack([centre - half, centre + half])


def _different(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out of boxes, best first, those that show the same as a better one."""
    kept: list[NDArray[np.float64]] = []
    for box in boxes:
        if all(_overlap(box, other) <= _SAME for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 4)


def _overlap(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the intersection of two boxes over their union."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = float(np.prod(np.maximum(sides, 0)))
    return common / float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common)
