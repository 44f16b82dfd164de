"""What models are made of: the sections of params.yaml that DVC stages depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field
from pydantic import Tag as Named
from pydantic.dataclasses import dataclass

from .fields import (
    SECTION,
    Count,
    CountOrZero,
    Listed,
    NonNegative,
    Number,
    Positive,
    PositiveShare,
    PositiveShareOrNone,
    Seed,
    Share,
    ShareBelowOne,
    Text,
    Whole,
    must,
    must_match,
)


@dataclass(frozen=True, config=SECTION)
class NoneBelow:
    """A group may say "none of these": no tag passes, and the best has a lower probability."""

    none_below: PositiveShare


def _kind_of_rule(value: object) -> str:
    return "section" if isinstance(value, dict | NoneBelow) else "word"


Decide = Annotated[
    Annotated[Literal["best"], Named("word")] | Annotated[NoneBelow, Named("section")],
    Discriminator(_kind_of_rule),
]


@dataclass(frozen=True, config=SECTION)
class Group:
    """A named set of tags that one model learns, and what `train` says differently for it.

    `decide` says what a picture gets of which no score passes its threshold.
    """

    tags: Listed[Text]
    train: Mapping[Text, Any] = field(default_factory=dict)
    decide: Decide = "best"

    @property
    def none_below(self) -> float | None:
        """The probability below which the best tag is not given; None: it always is."""
        return self.decide.none_below if isinstance(self.decide, NoneBelow) else None


@dataclass(frozen=True, config=SECTION)
class Split:
    seed: Seed
    validation: Annotated[Number, Field(gt=0, lt=1)]
    folds: Annotated[Whole, must(lambda n: n == 0 or n >= 2, "be 0 (none) or at least 2")]
    repeats: Count = 1  # older commits lack this key


@dataclass(frozen=True, config=SECTION)
class Augment:
    """Strength of each random change to a training view; chances lie in 0..1."""

    min_scale: PositiveShare
    flip: Share
    rotate: Annotated[Number, Field(ge=0, le=180)]
    brightness: Share
    contrast: Share
    saturation: Share
    hue: Share
    erase: Share
    background: Share
    # Older commits lack this key, and zoom out as far as in.
    zoom_out: PositiveShareOrNone = None


_IN_DATA = r"data/(?!.*\.\.).+"  # a file below data/, which DVC keeps
DetectorFile = Annotated[
    Text,
    must_match(
        rf"none|{_IN_DATA}\.tflite",
        "be none, or a .tflite file in data/, which DVC keeps",
    ),
]


@dataclass(frozen=True, config=SECTION)
class Images:
    size: Annotated[Whole, Field(ge=32, le=1024)]
    max_bytes: Count
    max_pixels: Count
    augment: Augment
    # Older commits lack these keys.
    framing: Literal["whole", "shoe"] = "whole"
    detector: DetectorFile = "none"


@dataclass(frozen=True, config=SECTION)
class Features:
    views: Count
    max_gb: NonNegative


# Which layers there are depends on the backbone: its network says so when it is made.
_LAYER = "(stem|layer[1-9])"
Arch = Annotated[
    Text,
    must_match(
        r"(timm:)?[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?",
        "be a backbone of torchvision, such as resnet18, or of timm, such as timm:convnext_tiny",
    ),
]
Freeze = Annotated[Text, must_match(rf"none|{_LAYER}", "be none, stem, layer1, layer2 ...")]
Pooled = Annotated[
    Text,
    must_match(
        rf"histogram|{_LAYER}(_contrast|_token)?",
        "be histogram, or a layer such as stem or layer4, alone or with _contrast or _token",
    ),
]
Weights = Annotated[
    Text,
    must_match(
        rf"imagenet|pretrained|none|{_IN_DATA}\.safetensors",
        "be imagenet, pretrained, none, or a .safetensors file in data/, which DVC keeps",
    ),
]


@dataclass(frozen=True, config=SECTION)
class Train:
    arch: Arch
    weights: Weights
    freeze: Freeze
    seed: Seed
    pooled: Annotated[Listed[Pooled], must(len, "name at least one")]
    head_l2: NonNegative
    positive_weight: Annotated[Number, Field(ge=1)]
    label_smoothing: ShareBelowOne
    epochs: Count
    batch_size: Annotated[Whole, must(lambda n: n >= 2, "be at least 2, for batch norm")]
    head_lr: Positive
    backbone_lr: NonNegative
    weight_decay: NonNegative
    dropout: ShareBelowOne
    ema: ShareBelowOne


# One backbone serves all groups, so a group cannot set these.
SHARED_BY_GROUPS = ("arch", "weights", "freeze")


@dataclass(frozen=True, config=SECTION)
class Evaluate:
    min_positives: Count
    shrink: NonNegative
    bootstrap: CountOrZero
    # The share of the training side that counts as near; None: no picture is unsure.
    unsure_quantile: Annotated[
        Number | None, must(lambda q: q is None or 0.5 <= q < 1, "be null or lie in [0.5, 1)")
    ] = None
