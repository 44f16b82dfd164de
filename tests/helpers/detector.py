"""A shoe detector of some kilobytes that finds what is red, as a real TFLite network."""

from __future__ import annotations

from pathlib import Path

import ai_edge_litert.schema_py_generated as schema
import flatbuffers
import numpy as np

_STRIDE, _PER_CELL, _CLASSES, _ANCHORS = 16, 3, 24, 1917
_FOOTWEAR = 19


def write_detector(path: Path, *, seen: int = _FOOTWEAR, side: int = 300) -> Path:
    """Write a network in which the smallest anchors of the first grid show class `seen` in red."""
    network = _Network()
    picture = network.tensor((1, side, side, 3))
    red = np.zeros((_PER_CELL * _CLASSES, _STRIDE, _STRIDE, 3), np.float32)
    red[seen] = np.array([20, -10, -10]) / _STRIDE**2
    bias = np.full(len(red), -10, np.float32)
    cells = -(-side // _STRIDE)
    grid = network.tensor((1, cells, cells, len(red)))
    network.run(
        "CONV_2D", schema.Conv2DOptionsT(), picture, network.constant(red), network.constant(bias),
        out=grid, padding=schema.Padding.SAME, strideW=_STRIDE, strideH=_STRIDE,
    )  # fmt: skip
    first = cells * cells * _PER_CELL
    rows = network.tensor((1, first, _CLASSES))
    network.run(
        "RESHAPE", schema.ReshapeOptionsT(), grid,
        network.constant(np.array([1, first, _CLASSES], np.int32)), out=rows,
    )  # fmt: skip
    others = network.constant(np.full((1, max(1, _ANCHORS - first), _CLASSES), -10, np.float32))
    logits = network.tensor((1, first + max(1, _ANCHORS - first), _CLASSES))
    network.run("CONCATENATION", schema.ConcatenationOptionsT(), rows, others, out=logits, axis=1)
    boxes = network.tensor((1, _ANCHORS, 4))
    network.run(
        "RESHAPE", schema.ReshapeOptionsT(), network.constant(np.zeros((_ANCHORS, 4), np.float32)),
        network.constant(np.array([1, _ANCHORS, 4], np.int32)), out=boxes,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(network.packed([picture], [boxes, logits]))
    return path


class _Network:
    def __init__(self) -> None:
        self._graph, self._model = schema.SubGraphT(), schema.ModelT()
        self._graph.tensors, self._graph.operators = [], []
        self._model.version, self._model.subgraphs = 3, [self._graph]
        self._model.buffers, self._model.operatorCodes = [schema.BufferT()], []

    def tensor(
        self, shape: tuple[int, ...], kind: int = schema.TensorType.FLOAT32, buffer: int = 0
    ) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
        tensor.name = f"t{len(self._graph.tensors)}".encode()
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def constant(self, values: np.ndarray) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        whole = values.dtype == np.int32
        kind = schema.TensorType.INT32 if whole else schema.TensorType.FLOAT32
        return self.tensor(values.shape, kind, len(self._model.buffers) - 1)

    def run(self, name: str, options: object, *inputs: int, out: int, **settings: int) -> None:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        self._model.operatorCodes.append(code)
        for key, value in settings.items():
            setattr(options, key, value)
        operator.opcodeIndex = len(self._model.operatorCodes) - 1
        operator.inputs, operator.outputs = list(inputs), [out]
        operator.builtinOptions = options
        kind = type(options).__name__.removesuffix("T")
        operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
        self._graph.operators.append(operator)

    def packed(self, inputs: list[int], outputs: list[int]) -> bytes:
        self._graph.inputs, self._graph.outputs = inputs, outputs
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self._model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())
