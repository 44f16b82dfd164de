"""Trunk, head and bundle: build, save, load, and the digest of each prefix of a trunk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .errors import ShoetaggerError
from .images import Transform
from .pooling import BINS, channel_moments, color_histogram
from .replacing import replacing

STAGES = ("stem", "layer1", "layer2", "layer3", "layer4")
HISTOGRAM = "histogram"
_CONTRAST = "_contrast"
# What a head can see: colours, each stage as a whole, what stands out from its border.
POOLED = (HISTOGRAM, *STAGES, *(stage + _CONTRAST for stage in STAGES))
WEIGHTS_FILE = "weights.safetensors"
BUNDLE_FILE = "bundle.json"
_FORMAT = 1


class ModelError(ShoetaggerError):
    """Weights that cannot be had, or a bundle that is not what it says it is."""


class State(NamedTuple):
    """What flows from stage to stage: the activation map and what heads see of earlier ones."""

    map: Tensor  # (B, channels, height, width)
    pooled: Mapping[str, Tensor]  # name among POOLED -> (B, values), where a head asks for it


class TagModel(nn.Module):
    """A ResNet trunk in five stages and a linear head with one logit a tag.

    The head sees what `pooled` names, side by side: the spatial means and standard deviations of a
    stage's channels (colours are plain in early stages and gone in late ones, shapes the other way
    round); with `_contrast`, those of what stands out from the stage's border, of the shoe rather
    than the ground; and the histogram of the colours of what stands out.
    """

    def __init__(
        self, arch: str, tags: int, pooled: tuple[str, ...] = ("layer4",), dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.arch, self.pooled = arch, pooled
        resnet = torchvision.models.get_model(arch, weights=None)
        self.stem = nn.Sequential(
            OrderedDict(
                conv1=resnet.conv1, bn1=resnet.bn1, relu=resnet.relu, maxpool=resnet.maxpool
            )
        )
        self.layer1, self.layer2 = resnet.layer1, resnet.layer2
        self.layer3, self.layer4 = resnet.layer3, resnet.layer4
        self.widths = tuple(self._width(name) for name in pooled)
        # Standardised inputs: those of early stages are an order smaller than those of late ones.
        self.norm = nn.BatchNorm1d(sum(self.widths), affine=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(sum(self.widths), tags)

    def forward(self, state: State) -> Tensor:
        """Return the logits (B, tags) of pictures, as `begin` gives them."""
        return self.finish(self.run(state, STAGES))

    def run(self, state: State, stages: tuple[str, ...]) -> State:
        """Run the named stages, in order, on the state that the stage before them left."""
        for stage in stages:
            state = advance(getattr(self, stage), stage, state, self.pooled)
        return state

    def seen(self, state: State) -> Tensor:
        """Return what the head sees, (B, sum of `widths`), of the state after the last stage."""
        return torch.cat([state.pooled[name] for name in self.pooled], dim=1)

    def finish(self, state: State) -> Tensor:
        """Return the logits (B, tags) of the state after the last stage."""
        logits: Tensor = self.head(self.dropout(self.norm(self.seen(state))))
        return logits

    def _width(self, pooled: str) -> int:
        return BINS if pooled == HISTOGRAM else 2 * stage_channels(self, stage_of(pooled))


def begin(
    views: Tensor,
    transform: Transform,
    pooled: Collection[str],
    dtype: torch.dtype = torch.float32,
) -> State:
    """Return the state of uint8 pictures (B, S, S, 3) before the first stage of a trunk."""
    colors = {HISTOGRAM: color_histogram(views)} if HISTOGRAM in pooled else {}
    return State(normalise(views, transform).to(dtype), colors)


def advance(stage: nn.Module, name: str, state: State, pooled: Collection[str]) -> State:
    """Run one stage of a trunk, and keep what `pooled` names of it."""
    x = stage(state.map)
    kept = {
        seen: channel_moments(x, contrast=seen.endswith(_CONTRAST))
        for seen in pooled
        if stage_of(seen) == name
    }
    return State(x, {**state.pooled, **kept})


def stage_of(pooled: str) -> str:
    """Return the stage that a name among POOLED is about."""
    return pooled.removesuffix(_CONTRAST)


def is_seen_by(pooled: str, stages: Collection[str]) -> bool:
    """Return whether a name among POOLED is known once these first stages have run."""
    return pooled == HISTOGRAM or stage_of(pooled) in stages


def stage_channels(model: TagModel, stage: str) -> int:
    """Return how many channels a stage of the trunk gives."""
    convolutions = [m for m in getattr(model, stage).modules() if isinstance(m, nn.Conv2d)]
    # A block's downsampling convolution comes after its main path and has as many channels.
    return convolutions[-1].out_channels


def frozen_stages(freeze: str) -> tuple[str, ...]:
    """Return the stages that `train.freeze` names: all up to and including it."""
    return () if freeze == "none" else STAGES[: STAGES.index(freeze) + 1]


def trained_stages(freeze: str) -> tuple[str, ...]:
    """Return the stages after the one that `train.freeze` names."""
    return STAGES[len(frozen_stages(freeze)) :]


def build(
    arch: str, tags: int, weights: str, pooled: tuple[str, ...], dropout: float
) -> tuple[TagModel, str | None]:
    """Make a model to train, and the digest of the pretrained trunk it starts from, if any.

    `weights` is "imagenet" (through torchvision's own download and cache) or "none" (random).
    """
    model = TagModel(arch, tags, pooled, dropout)
    if weights == "none":
        return model, None
    pretrained = _imagenet(arch)
    trunk = {k: v for k, v in pretrained.items() if not k.startswith("fc.")}
    own = model.state_dict()
    for name, tensor in trunk.items():
        own[name if name.startswith("layer") else f"stem.{name}"].copy_(tensor)
    return model, _digest_of_tensors(trunk).hexdigest()


def _imagenet(arch: str) -> Mapping[str, Tensor]:
    weights = torchvision.models.get_model_weights(arch)["IMAGENET1K_V1"]
    try:
        # Pinned to V1: `DEFAULT` moves with torchvision's releases, and a digest would with it.
        state: Mapping[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
        return state
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        damaged = f"remove the damaged {cache} and" if cache.exists() else "connect this machine or"
        raise ModelError(
            f"the ImageNet weights of {arch} cannot be had ({reason}): {damaged} copy the file "
            f"there ({cache}; TORCH_HOME moves that folder), or train without them: "
            "train.weights=none with train.freeze=none"
        ) from None


def normalise(views: Tensor, transform: Transform) -> Tensor:
    """Turn uint8 pictures (B, S, S, 3) into normalised floats (B, 3, S, S), channels last."""
    mean = torch.tensor(transform.mean, device=views.device)
    std = torch.tensor(transform.std, device=views.device)
    # By whole lines of pixels: steps of three numbers are slow.
    scale, shift = (line.repeat(views.shape[2]) for line in (1 / (255 * std), -mean / std))
    x = views.flatten(2).float().mul_(scale).add_(shift)
    return x.view(views.shape).permute(0, 3, 1, 2)


def pick_device(name: str) -> torch.device:
    """Return the device named, or for "auto" the GPU where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} asked for, but torch sees no GPU: use auto or cpu")
    return torch.device(name)


def pick_dtype(device: torch.device) -> torch.dtype:
    """Return the type for trunks: bfloat16 where the device multiplies it natively."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def prefix_digests(model: TagModel, transform: Transform) -> dict[str, str]:
    """Return for each stage a digest of all that its output depends on: transform and weights.

    Two models whose digest of a stage is equal give equal outputs up to that stage, so that it
    needs to run once for both.
    """
    chain = hashlib.sha256(_canonical({"transform": transform.as_dict()}))
    digests = {}
    for stage in STAGES:
        chain.update(_digest_of_tensors(getattr(model, stage).state_dict()).digest())
        digests[stage] = chain.hexdigest()
    return digests


def _digest_of_tensors(tensors: Mapping[str, Tensor]) -> hashlib._Hash:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        array = np.ascontiguousarray(tensor.detach().cpu().numpy())
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest


@dataclass(frozen=True)
class Bundle:
    """All that is needed to tag with one group, apart from the weights, whose digest it holds."""

    group: str
    tags: tuple[str, ...]
    arch: str
    pooled: tuple[str, ...]
    transform: Transform
    thresholds: tuple[float, ...]
    support: tuple[int, ...]  # positives that each threshold was calibrated on
    prefixes: Mapping[str, str]  # stage -> digest
    pretrained: str | None  # digest of the pretrained trunk
    weights_sha256: str

    @property
    def digest(self) -> str:
        """The name of this bundle: equal for equal inputs, wherever and whenever it was made."""
        return hashlib.sha256(_canonical(self.as_dict())).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"format": _FORMAT, **plain, "transform": self.transform.as_dict()}


def _canonical(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def save_weights(model: TagModel, path: Path, pretrained: str | None) -> str:
    """Write the weights as safetensors, beside and renamed, and return their sha256.

    The digest of the pretrained trunk they come from travels in the file's header.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    with replacing(path) as file:
        file.write(save(tensors, metadata={"pretrained": pretrained or ""}))
    return file_sha256(path)


def save_bundle(bundle: Bundle, path: Path) -> None:
    """Write bundle.json, beside and renamed."""
    with replacing(path) as file:
        file.write(json.dumps(bundle.as_dict(), indent=1, sort_keys=True).encode() + b"\n")


def load_bundle(directory: Path) -> Bundle:
    """Read `bundle.json` strictly; raises ModelError that names the folder and the fault."""
    path = directory / BUNDLE_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{directory} holds no {BUNDLE_FILE}: name a folder such as models/color, "
            "made by `dvc repro`"
        ) from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from None
    try:
        return _parse_bundle(document)
    except (KeyError, TypeError, ValueError, ShoetaggerError) as error:
        raise ModelError(f"{path} is not a bundle of format {_FORMAT}: {error}") from None


def _parse_bundle(document: Any) -> Bundle:
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise ValueError("unknown format")
    names = {f.name for f in dataclasses.fields(Bundle)}
    if set(document) != names | {"format"}:
        raise ValueError(f"keys differ: {', '.join(sorted(set(document) ^ (names | {'format'})))}")
    tags = tuple(str(tag) for tag in document["tags"])
    thresholds = tuple(float(t) for t in document["thresholds"])
    support = tuple(int(n) for n in document["support"])
    pooled = tuple(document["pooled"])
    if not tags or not len(tags) == len(set(tags)) == len(thresholds) == len(support):
        raise ValueError("tags, thresholds and support must be lists of one length")
    if not all(0.0 < t <= 1.0 for t in thresholds):
        raise ValueError("thresholds must lie above 0 and up to 1")
    if set(document["prefixes"]) != set(STAGES) or not pooled or not set(pooled) <= set(POOLED):
        raise ValueError(f"pooled must be among {', '.join(POOLED)}")
    if not torchvision.models.list_models(include=document["arch"]):
        raise ValueError(f"unknown architecture {document['arch']!r}")
    return Bundle(
        group=str(document["group"]),
        tags=tags,
        arch=str(document["arch"]),
        pooled=pooled,
        transform=Transform.from_dict(document["transform"]),
        thresholds=thresholds,
        support=support,
        prefixes={str(k): str(v) for k, v in document["prefixes"].items()},
        pretrained=document["pretrained"],
        weights_sha256=str(document["weights_sha256"]),
    )


def load_weights(model: TagModel, path: Path) -> TagModel:
    """Fill a model with saved weights, strictly; raises ModelError where they do not fit."""
    try:
        model.load_state_dict(load_file(path), assign=True)
    except FileNotFoundError:
        raise ModelError(
            f"{path} is missing: restore it with `dvc checkout` or `dvc repro`"
        ) from None
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"{path} does not hold the weights of this model: {error}") from None
    return model


def pretrained_of(path: Path) -> str | None:
    """Return the digest of the pretrained trunk that a weights file was trained from."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("pretrained") or None


def load_model(directory: Path, bundle: Bundle) -> TagModel:
    """Load a bundle's model, ready to tag (eval mode, CPU); the weights' digest is checked."""
    path = directory / WEIGHTS_FILE
    if path.is_file() and file_sha256(path) != bundle.weights_sha256:
        raise ModelError(
            f"{path} is not the file that {BUNDLE_FILE} beside it describes: its digest differs; "
            "restore both with `dvc checkout`, or fetch the version again"
        )
    with torch.device("meta"):  # no random start for weights that come from the file
        model = TagModel(bundle.arch, len(bundle.tags), bundle.pooled)
    return load_weights(model, path).eval()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
