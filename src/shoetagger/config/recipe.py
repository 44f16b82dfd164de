"""What models are made of: the sections of params.yaml that DVC stages depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .strict import check_rules


@dataclass(frozen=True)
class Group:
    """A named set of tags that one model learns, and what `train` says differently for it."""

    tags: tuple[str, ...]
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Split:
    seed: int
    validation: float
    folds: int


@dataclass(frozen=True)
class Augment:
    """Strength of each random change to a training view; chances lie in 0..1."""

    min_scale: float
    flip: float
    rotate: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    erase: float
    background: float


@dataclass(frozen=True)
class Images:
    size: int
    max_bytes: int
    max_pixels: int
    augment: Augment


@dataclass(frozen=True)
class Features:
    views: int
    max_gb: float


Pooled = Literal[
    "histogram",
    "stem", "layer1", "layer2", "layer3", "layer4",
    "stem_contrast", "layer1_contrast", "layer2_contrast", "layer3_contrast", "layer4_contrast",
]  # fmt: skip


@dataclass(frozen=True)
class Train:
    arch: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
    weights: Literal["imagenet", "none"]
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4"]
    seed: int
    pooled: tuple[Pooled, ...]
    head_l2: float
    positive_weight: float
    label_smoothing: float
    epochs: int
    batch_size: int
    head_lr: float
    backbone_lr: float
    weight_decay: float
    dropout: float
    ema: float


# One backbone serves all groups, so a group cannot have its own.
SHARED_BY_GROUPS = ("arch", "weights", "freeze")


@dataclass(frozen=True)
class Evaluate:
    min_positives: int
    shrink: float
    bootstrap: int


def check_train(train: Train, key: str) -> None:
    check_rules(
        [
            (f"{key}.pooled", len(train.pooled) >= 1, "must name at least one"),
            (f"{key}.head_l2", train.head_l2 >= 0, "must be at least 0"),
            (f"{key}.epochs", train.epochs >= 1, "must be at least 1"),
            (f"{key}.batch_size", train.batch_size >= 2, "must be at least 2, for batch norm"),
            (f"{key}.head_lr", train.head_lr > 0, "must be above 0"),
            (f"{key}.backbone_lr", train.backbone_lr >= 0, "must be at least 0"),
            (f"{key}.weight_decay", train.weight_decay >= 0, "must be at least 0"),
            (f"{key}.ema", 0 <= train.ema < 1, "must lie in [0, 1)"),
            (f"{key}.dropout", 0 <= train.dropout < 1, "must lie in [0, 1)"),
            (f"{key}.label_smoothing", 0 <= train.label_smoothing < 1, "must lie in [0, 1)"),
            (f"{key}.positive_weight", train.positive_weight >= 1, "must be at least 1"),
            (
                f"{key}.freeze",
                train.weights == "imagenet" or train.freeze == "none",
                "freezing layers of a network with random weights (train.weights: none) would "
                "keep them random: set train.freeze to none, or train.weights to imagenet",
            ),
        ]
    )
