"""Cuts a library's network into layers that run one after another, and so can be shared and frozen.

What a network's parts are, and in which order it runs them, is seen by running it once on the meta
device, which computes shapes alone. A layer of a convolutional network has one resolution, and its
name tells which: up to a half of the picture's side is `stem`, a quarter is `layer1`, an eighth
`layer2` and so on. The blocks of a vision transformer are cut into quarters, after a `stem`. A
network that does not run its parts in a line, each on the output of the one before it, is one
layer.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .layers import RESNETS, STEM, ModelError
from .libraries import library
from .library import Tokens
from .reading import Layer, Reading

# Their stem ends after the pooling: as it was before other backbones were there, by which the
# digests of their bundles stay as they are.
_RESNET = {
    STEM: ("conv1", "bn1", "relu", "maxpool"),
    **{f"layer{number}": (f"layer{number}",) for number in (1, 2, 3, 4)},
}
_LAST = "layer4"
_QUARTERS = 4
_BATCHES = "num_batches_tracked"
_ANOTHER = (
    "choose another backbone, such as resnet18, timm:convnext_tiny or timm:vit_small_patch14_dinov2"
)


@dataclass(frozen=True)
class Cut:
    """Which parts of a network make its layers, in their order.

    `layers` are by name the names of parts; of one that has none, it is all that is left of the
    network. `unused` are parts that no layer needs. `tensors` are the names, in the library's
    network, of the weights that the layers have. `read` has each layer's reading, and its pairs of
    convolution and batch normalisation.
    """

    layers: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...]
    tensors: frozenset[str]
    read: Mapping[str, tuple[Reading, tuple[tuple[str, str], ...]]]


class _Call(NamedTuple):
    """A part that ran: on one tensor, or None if not on one alone, and what it returned."""

    part: str
    module: nn.Module
    given: Tensor | None
    output: Tensor | None


class _Run(NamedTuple):
    """A run of a network: the picture, its parts up to the head, and its last map or tokens."""

    picture: Tensor
    calls: Sequence[_Call]
    output: Tensor | None


@functools.cache
def cut_of(arch: str) -> Cut:
    """Return how a backbone is cut; raises ModelError where it has no map of places at its end."""
    source, _ = library(arch)
    network = _skeleton(arch)
    if arch in RESNETS:
        layers: Mapping[str, tuple[str, ...]] = _RESNET
        unused: tuple[str, ...] = ("avgpool", "fc")
    else:
        run = _trace(arch, network)
        layers = _layers(run, source.tokens(network))
        unused = _head(network, run)
    names = {id(tensor): name for name, tensor in network.state_dict(keep_vars=True).items()}
    modules = _divide(source.features(network), network, layers, unused)
    kept = (t for module in modules.values() for t in module.state_dict(keep_vars=True).values())
    tensors = frozenset(names[id(tensor)] for tensor in kept)
    return Cut(layers, unused, tensors, _read(arch, modules, source.tokens(network)))


def layers_of(arch: str, size: int, weights: Mapping[str, Tensor] | None = None) -> list[Layer]:
    """Return the layers of a new backbone for pictures of `size` pixels, in order.

    Its weights are random, or those of the library's network by their names there, of which it has
    to have all; raises ModelError where they do not fit.
    """
    cut, (source, name) = cut_of(arch), library(arch)
    _check_size(arch, size)
    network = source.create(name)
    if weights is not None:
        _fill(arch, network, weights, cut.tensors)
    source.resize(network, size)
    modules = _divide(source.features(network), network, cut.layers, cut.unused)
    return [Layer(name, module, *cut.read[name]) for name, module in modules.items()]


@functools.cache
def _check_size(arch: str, size: int) -> None:
    """Raise ModelError where a backbone does not take pictures of a size."""
    source, name = library(arch)
    if size == source.side(name) or arch in RESNETS:
        return
    network = _skeleton(arch)
    try:
        source.resize(network, size)
        with torch.no_grad():
            source.features(network)(_picture(size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ModelError(
            f"images.size: {arch} takes no pictures of {size} pixels ({error}); it is made for "
            f"{source.side(name)}"
        ) from None


def _skeleton(arch: str) -> nn.Module:
    """Return a network on the meta device, without weights."""
    source, name = library(arch)
    try:
        with torch.device("meta"):
            return source.create(name).eval()
    except NotImplementedError:  # it computes something from numbers while it is made
        with torch.device("cpu"):
            return source.create(name).to("meta").eval()


def _parts(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Yield the parts of a network by name: its children, or theirs where one is only a list."""
    for name, child in module.named_children():
        plain = isinstance(child, nn.Sequential) and type(child).forward is nn.Sequential.forward
        if plain or isinstance(child, nn.ModuleList) or _is_encoder(child):
            yield from _parts(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", child


def _is_encoder(module: nn.Module) -> bool:
    """Tell whether a part is the whole of torchvision's vision transformer but for its ends."""
    return type(module).__name__ == "Encoder" and hasattr(module, "pos_embedding")


def _trace(arch: str, network: nn.Module) -> _Run:
    """Run a network on a picture of the size that it is made for."""
    source, name = library(arch)
    calls: list[_Call] = []

    def watch(part: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            alone = given[0] if len(given) == 1 else None
            calls.append(_Call(part, module, alone, output if isinstance(output, Tensor) else None))

        return note

    hooks = [
        module.register_forward_hook(watch(part), with_kwargs=True)
        for part, module in _parts(network)
    ]
    picture = _picture(source.side(name))
    with torch.no_grad():
        output = source.features(network)(picture)
    for hook in hooks:
        hook.remove()
    for number, call in enumerate(calls):
        if source.is_head(call.part, call.module):
            return _Run(picture, calls[:number], calls[number - 1].output if number else None)
    return _Run(picture, calls, output)


def _picture(size: int) -> Tensor:
    return torch.empty(1, 3, size, size, device="meta")


def _layers(run: _Run, tokens: Tokens | None) -> Mapping[str, tuple[str, ...]]:
    """Return the names of the parts that make each layer."""
    line = _line(run)
    if line and line[0].given is run.picture and all(_side(call.output) for call in line):
        return _by_resolution(line, run.picture.shape[-1])
    if tokens is not None and (blocks := _blocks(line)):
        return _quarters(line, blocks)
    return {_LAST: ()}


def _head(network: nn.Module, run: _Run) -> tuple[str, ...]:
    """Return the parts that are defined after all that ran."""
    parts, ran = [part for part, _ in _parts(network)], {call.part for call in run.calls}
    last = max(number for number, part in enumerate(parts) if part in ran)
    return tuple(parts[last + 1 :])


def _line(run: _Run) -> list[_Call]:
    """Return the last calls, as many as each ran on what the one before it returned."""
    line: list[_Call] = []
    awaited = run.output
    for call in reversed(run.calls):
        if call.given is None or call.output is not awaited:
            break
        line.insert(0, call)
        awaited = call.given
    return line


def _by_resolution(line: Sequence[_Call], size: int) -> Mapping[str, tuple[str, ...]]:
    layers: dict[str, tuple[str, ...]] = {}
    halvings = 0
    for call in line:
        side = _side(call.output)
        assert side
        halvings = max(halvings, round(math.log2(size / side)))
        layer = STEM if halvings < 2 else f"layer{halvings - 1}"
        layers[layer] = (*layers.get(layer, ()), call.part)
    return layers


def _blocks(line: Sequence[_Call]) -> list[int]:
    """Return where in a line the parts of the kind that it has most of are, two at least."""
    kinds = Counter(type(call.module) for call in line if [*call.module.parameters()])
    kind, count = max(kinds.items(), key=lambda item: item[1], default=(None, 0))
    return [i for i, call in enumerate(line) if type(call.module) is kind] if count > 1 else []


def _quarters(line: Sequence[_Call], blocks: Sequence[int]) -> Mapping[str, tuple[str, ...]]:
    """Cut the blocks of a line into quarters; what comes after them belongs to the last one."""
    starts = [blocks[len(blocks) * quarter // _QUARTERS] for quarter in range(_QUARTERS)]
    layers: dict[str, tuple[str, ...]] = {STEM: ()}
    for number, (start, end) in enumerate(itertools.pairwise([*starts, len(line)]), start=1):
        if start < end:
            layers[f"layer{number}"] = tuple(call.part for call in line[start:end])
    return layers


def _side(output: object) -> int | None:
    """Return the places per side of a square map, whichever way it is laid; None of others."""
    if not isinstance(output, Tensor) or output.ndim != 4:
        return None
    _, first, second, third = output.shape
    return second if second == third else first if first == second else None


def _divide(
    features: nn.Module,
    network: nn.Module,
    layers: Mapping[str, tuple[str, ...]],
    unused: Sequence[str],
) -> dict[str, nn.Module]:
    """Take a network apart into its layers."""
    modules: dict[str, nn.Module] = {}
    for layer, parts in layers.items():
        found = [(part, network.get_submodule(part)) for part in parts]
        named = OrderedDict((part.replace(".", "_"), module) for part, module in found)
        modules[layer] = found[0][1] if len(found) == 1 else nn.Sequential(named)
    for part in (*unused, *itertools.chain.from_iterable(layers.values())):
        network.set_submodule(part, _Skipped())
    return {name: module if layers[name] else features for name, module in modules.items()}


class _Skipped(nn.Module):
    """Stands in a network for a part that became a layer elsewhere."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return x


def _read(
    arch: str, modules: Mapping[str, nn.Module], tokens: Tokens | None
) -> dict[str, tuple[Reading, tuple[tuple[str, str], ...]]]:
    """Run the layers one after another, to see what they output and which norms they have."""
    source, name = library(arch)
    output = _picture(source.side(name))
    found = {}
    for layer, module in modules.items():
        with torch.no_grad(), _norms(module.eval()) as norms:
            output = module(output)
        found[layer] = _reading(arch, output, tokens), tuple(norms)
    return found


def _reading(arch: str, output: Tensor, tokens: Tokens | None) -> Reading:
    if not isinstance(output, Tensor):
        raise ModelError(f"train.arch: {arch} outputs several maps or tokens: {_ANOTHER}")
    if _side(output):
        first = output.shape[2] == output.shape[3]
        return Reading(
            "channels first" if first else "channels last", output.shape[1 if first else 3]
        )
    count = output.shape[1] if output.ndim == 3 else None
    if tokens is not None and count == tokens.extra + tokens.side**2:
        return Reading("tokens", output.shape[2], tokens.extra, tokens.has_class_token)
    raise ModelError(
        f"train.arch: {arch} outputs {tuple(output.shape)}, which is no square map of places: "
        f"{_ANOTHER}"
    )


@contextlib.contextmanager
def _norms(layer: nn.Module) -> Iterator[list[tuple[str, str]]]:
    """Collect, while a layer runs, its batch normalisations that alone use a convolution's output.

    The list is complete when the context ends.
    """
    outputs: dict[int, tuple[str, Tensor]] = {}  # kept, so that no other tensor gets its id
    pairs: dict[int, tuple[str, str]] = {}
    uses = _Uses()

    def watch(name: str) -> Callable[..., None]:
        def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                outputs[id(output)] = name, output
                uses.counts[id(output)] = 0
            elif id(given[0]) in outputs:
                pairs[id(given[0])] = outputs[id(given[0])][0], name

        return note

    hooks = [
        module.register_forward_hook(watch(name))
        for name, module in layer.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    norms: list[tuple[str, str]] = []
    with uses:
        yield norms
    norms += [pair for tensor, pair in pairs.items() if uses.counts[tensor] == 1]
    for hook in hooks:
        hook.remove()


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts how many operations each tensor goes into."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        self.counts.update(id(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
        return func(*args, **kwargs)


def _fill(
    arch: str, network: nn.Module, weights: Mapping[str, Tensor], needed: AbstractSet[str]
) -> None:
    """Copy weights into a network, but for those of its head."""
    own = network.state_dict()
    # Files of before batch normalisation counted its batches lack the count.
    missing = [n for n in sorted(needed) if n not in weights and not n.endswith(_BATCHES)]
    if missing:
        raise ModelError(
            f"train.weights: they lack {len(missing)} of the {len(needed)} tensors of {arch}, such "
            f"as {missing[0]}: they are of another backbone, or not named as its library does"
        )
    for name in sorted(needed & weights.keys()):
        if own[name].shape != weights[name].shape:
            raise ModelError(
                f"train.weights: {name} is {tuple(weights[name].shape)}, and that of {arch} "
                f"{tuple(own[name].shape)}: they are of another backbone"
            )
        own[name].copy_(weights[name])
