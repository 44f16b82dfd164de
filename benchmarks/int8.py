"""The frozen backbone in int8, by each of three runtimes: quantised into a file, and opened again.

    torch         FX graph mode on oneDNN's kernels, with the packages of the lock alone
    onnxruntime   static quantisation, as QDQ: needs onnxruntime, and onnx and onnxscript for export
    openvino      the same file: needs openvino besides

Weights are quantised by channel, maps by the ranges that pictures show. From layer to layer maps
stay in int8; what is returned of them is float32. Packages that are not in the lock are imported
where they are used.
"""

from __future__ import annotations

import copy
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.backend_config import get_onednn_backend_config
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import Bundle, load_bundle
from shoetagger.inference.engine import Engine, _folded, _Heads, for_inference
from shoetagger.inference.loading import load_model
from shoetagger.network.backbone import State, normalise, pool
from shoetagger.network.layers import HISTOGRAM, layer_of
from shoetagger.network.reading import Layer

AT_ONCE = 16  # pictures per core, as in the engine

# Normalised pictures (B, 3, S, S) float32 -> the maps of the wanted layers, in their order.
Network = Callable[[Tensor], Sequence[Tensor]]


class Maps(nn.Module):
    """The layers of a backbone, one after another: returns the maps of the wanted ones.

    Batch normalisations are folded into the convolutions before them.
    """

    def __init__(self, layers: Sequence[Layer], wanted: Collection[str]) -> None:
        super().__init__()
        folded = (for_inference(copy.deepcopy(layer)) for layer in layers)
        self.layers = nn.ModuleList(layer.module for layer in folded)
        self._wanted = [layer.name in wanted for layer in layers]
        self.eval()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = []
        for layer, wanted in zip(self.layers, self._wanted, strict=True):
            x = layer(x)
            if wanted:
                maps.append(x)
        return tuple(maps)


@dataclass(frozen=True)
class Runtime:
    """What runs a network in int8.

    `quantise` writes a file of maps, by the ranges that batches of normalised pictures show; `open`
    returns the network in that file, for so many threads, each of which computes on one core; it
    gets the maps in float32 and a batch as well. `tagging` are the packages that it needs for that
    besides the lock's, `quantising` those that it needs for the other.
    """

    title: str
    quantise: Callable[[Maps, Sequence[Tensor], Path], None]
    open: Callable[[Path, Maps, Tensor, int], Network]
    tagging: tuple[str, ...] = ()
    quantising: tuple[str, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """The packages that are not installed here."""
        needed = dict.fromkeys((*self.tagging, *self.quantising))
        return tuple(name for name in needed if find_spec(name) is None)

    @property
    def megabytes(self) -> float:
        """What tagging needs on disk besides the packages of the lock."""
        found = (file.locate() for name in self.tagging for file in files(name) or ())
        return sum(Path(path).stat().st_size for path in found if Path(path).is_file()) / 1e6


@dataclass(frozen=True)
class Backbone:
    """A frozen backbone as a network, and what heads see of it, by the names of `train.pooled`."""

    network: Network
    layers: tuple[Layer, ...]  # for their readings alone
    pooled: tuple[str, ...]

    def run(self, state: State) -> State:
        """Return the state after the last layer of the one that `begin` returns."""
        maps, seen = iter(self.network(state.output)), dict(state.pooled)
        for layer in self.layers:
            names = [name for name in self.pooled if layer_of(name) == layer.name]
            if names:
                output = next(maps)
                seen |= {name: pool(layer.reading, output, name) for name in names}
        return State(state.output, seen)


def maps_of(layers: Sequence[Layer], pooled: Collection[str]) -> Maps:
    """Return the layers as a network that returns the maps that names of `train.pooled` need."""
    return Maps(layers, {layer_of(name) for name in pooled if name != HISTOGRAM})


def batches_of(views: np.ndarray, transform: Transform) -> list[Tensor]:
    """Return views (N, S, S, 3) uint8 as normalised batches (B, 3, S, S)."""
    parts = (views[start : start + AT_ONCE] for start in range(0, len(views), AT_ONCE))
    return [normalise(torch.from_numpy(part), transform) for part in parts]


def pooled_by(bundles: Sequence[Bundle]) -> tuple[str, ...]:
    """Return all that the heads of bundles see, each name once."""
    return tuple(dict.fromkeys(name for bundle in bundles for name in bundle.pooled))


class Int8Engine(Engine):
    """An engine that runs in int8 the one backbone, frozen as a whole, that all its bundles share.

    `file` is what the runtime has quantised it into.
    """

    def __init__(self, directories: Sequence[Path], runtime: Runtime, file: Path) -> None:
        super().__init__(directories, "cpu", "float32")
        if len({bundle.prefixes[bundle.layers[-1]] for bundle in self.bundles}) != 1:
            raise ValueError(f"{file} has one backbone: these bundles have not all the same")
        layers = layers_of(directories[0])
        pooled, transform = pooled_by(self.bundles), self.bundles[0].transform
        batch = torch.zeros(1, 3, transform.size, transform.size)
        network = runtime.open(file, maps_of(layers, pooled), batch, self._threads)
        self._backbone = Backbone(network, layers, pooled)

    def _load(self, directory: Path, bundle: Bundle) -> _Heads:
        return _folded(bundle, load_model(directory, bundle), self.device)

    def _descend(
        self, heads: Sequence[_Heads], done: int, state: State, scores: dict[str, np.ndarray]
    ) -> None:
        del done  # all layers run at once
        after = self._backbone.run(state)
        for merged in heads:
            scores |= merged.scores(after)


def layers_of(directory: Path) -> tuple[Layer, ...]:
    """Return the layers of a bundle's backbone, in float32."""
    model = load_model(directory, load_bundle(directory))
    return tuple(model.layer(name) for name in model.layers)


def _prepared(maps: Maps, batch: Tensor) -> nn.Module:
    """Return a network that notes the ranges of its maps."""
    torch.backends.quantized.engine = "onednn"
    mapping, backend = get_default_qconfig_mapping("onednn"), get_onednn_backend_config()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecation, and of defaults in torch itself
        prepared: nn.Module = prepare_fx(maps, mapping, (batch,), backend_config=backend)
    return prepared


def _quantise_by_torch(maps: Maps, batches: Sequence[Tensor], file: Path) -> None:
    """Write the ranges alone: a network that torch has quantised this way cannot be loaded."""
    prepared = _prepared(maps, batches[0])
    with torch.no_grad():
        for batch in batches:
            prepared(batch)
    weights = maps.state_dict()
    torch.save({k: v for k, v in prepared.state_dict().items() if k not in weights}, file)


def _open_by_torch(file: Path, maps: Maps, batch: Tensor, threads: int) -> Network:
    del threads
    prepared = _prepared(maps, batch)
    prepared.load_state_dict(torch.load(file), strict=False)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        network: Network = convert_fx(prepared, backend_config=get_onednn_backend_config())
    return network


class _ChannelsLast(nn.Module):
    """Maps with the channels last at both ends, as pictures and pooling have them."""

    def __init__(self, maps: Maps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(y.permute(0, 2, 3, 1) for y in self.maps(x.permute(0, 3, 1, 2)))


def _numpy(batch: Tensor) -> np.ndarray:
    array: np.ndarray = batch.permute(0, 2, 3, 1).contiguous().numpy()
    return array


def _tensors(maps: Sequence[np.ndarray]) -> list[Tensor]:
    return [torch.from_numpy(each).permute(0, 3, 1, 2) for each in maps]


def _quantise_to_onnx(maps: Maps, batches: Sequence[Tensor], file: Path) -> None:
    from onnxruntime import quantization as onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    whole, prepared = file.with_suffix(".whole"), file.with_suffix(".prepared")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _ChannelsLast(maps).eval(),
            (batches[0].permute(0, 2, 3, 1).contiguous(),),
            whole,
            input_names=["pictures"],
            dynamic_shapes=({0: torch.export.Dim("pictures", min=1)},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    quant_pre_process(str(whole), str(prepared))
    onnx.quantize_static(
        str(prepared),
        str(file),
        _Batches(batches),
        quant_format=onnx.QuantFormat.QDQ,
        per_channel=True,
        activation_type=onnx.QuantType.QUInt8,
        weight_type=onnx.QuantType.QInt8,
    )


class _Batches:
    """Batches, as ONNX Runtime draws them."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches: Iterator[Tensor] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"pictures": _numpy(batch)}


def _open_by_onnxruntime(file: Path, maps: Maps, batch: Tensor, threads: int) -> Network:
    del maps, batch, threads  # those that call compute
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    return lambda x: _tensors(session.run(None, {"pictures": _numpy(x)}))


def _open_by_openvino(file: Path, maps: Maps, batch: Tensor, threads: int) -> Network:
    del maps, batch
    import openvino

    hints: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads}
    model = openvino.Core().read_model(file)
    compiled = openvino.Core().compile_model(model, "CPU", hints)
    own = threading.local()

    def run(x: Tensor) -> Sequence[Tensor]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        # Not copied: they are pooled before this thread runs its next batch.
        found = own.request.infer({0: _numpy(x)}, share_inputs=True, share_outputs=True)
        return _tensors([found[output] for output in compiled.outputs])

    return run


_FOR_EXPORT = ("onnx", "onnxscript", "onnxruntime")
RUNTIMES: Mapping[str, Runtime] = {
    "torch": Runtime("torch", _quantise_by_torch, _open_by_torch),
    "onnxruntime": Runtime(
        "ONNX Runtime", _quantise_to_onnx, _open_by_onnxruntime, ("onnxruntime",), _FOR_EXPORT
    ),
    "openvino": Runtime(
        "OpenVINO", _quantise_to_onnx, _open_by_openvino, ("openvino",), _FOR_EXPORT
    ),
}
