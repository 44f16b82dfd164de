"""params.yaml as frozen, typed objects; an unknown key or a wrong type is refused by name."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from .errors import ShoetaggerError


class ParamsError(ShoetaggerError):
    """A key of params.yaml is unknown, missing or of the wrong type."""


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
    trunk_lr: float
    weight_decay: float
    dropout: float
    ema: float


# One trunk serves all groups, so a group cannot have its own.
SHARED_BY_GROUPS = ("arch", "weights", "freeze")


@dataclass(frozen=True)
class Evaluate:
    min_positives: int
    shrink: float
    bootstrap: int


@dataclass(frozen=True)
class Audit:
    per_tag: int
    shown: int
    exclusive: tuple[tuple[str, ...], ...]
    copy_correlation: float


@dataclass(frozen=True)
class Rule:
    """What a challenger has to hold against the champion."""

    macro_f1_margin: float
    tag_f1_margin: float
    tag_min_positives: int
    min_support: int


@dataclass(frozen=True)
class WhenTagsChange:
    """Ask a person where more than this share of the sampled arrivals gets other tags."""

    when_tags_change_over: float


@dataclass(frozen=True)
class Promote:
    min_positives: int
    bootstrap: int
    sample: int
    rule: Rule
    approval: Literal["never", "always"] | WhenTagsChange
    approval_hours: float


@dataclass(frozen=True)
class Drift:
    """When the rate of a tag is out of its usual range."""

    nights: int
    min_nights: int
    deviations: float
    least: float


@dataclass(frozen=True)
class Tag:
    schedule: str
    shards: int
    batch_size: int
    precision: Literal["auto", "float32"]
    budget_minutes: float
    decode_workers: int
    decode_seconds: float
    decode_memory_mb: int
    settle_seconds: float
    judge_from: int
    max_rejected: float
    drift: Drift


@dataclass(frozen=True)
class Publish:
    page_size: int
    max_pages: int
    thumbnail: int


@dataclass(frozen=True)
class Keep:
    checkouts: int
    page_days: int
    outbox_mb: float


@dataclass(frozen=True)
class Params:
    groups: Mapping[str, Group]
    split: Split
    images: Images
    features: Features
    train: Train
    evaluate: Evaluate
    audit: Audit
    promote: Promote
    tag: Tag
    publish: Publish
    keep: Keep

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags of all groups, in the order of the groups."""
        return tuple(tag for group in self.groups.values() for tag in group.tags)

    def group(self, name: str) -> Group:
        """Return one group; raises ParamsError that lists the groups there are."""
        if name not in self.groups:
            raise ParamsError(
                f"no group {name!r} in params.yaml: the groups are {', '.join(self.groups)}"
            )
        return self.groups[name]

    def train_of(self, name: str) -> Train:
        """Return the training parameters of one group: `train`, with the group's own on top."""
        own = self.group(name).train
        merged = dataclasses.asdict(self.train) | {"pooled": list(self.train.pooled)} | dict(own)
        trained: Train = _build(Train, merged, f"groups.{name}.train")
        return trained


def load(path: Path) -> Params:
    """Read and check params.yaml; raises ParamsError that names the file, the key and the fault."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing: restore it with `git checkout params.yaml`"
        ) from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    try:
        return parse(document)
    except ParamsError as error:
        raise ParamsError(f"{path.name}: {error}") from None


def parse(document: object) -> Params:
    """Check a parsed params.yaml and return it typed."""
    params: Params = _build(Params, document, "")
    _check_groups(params)
    _check_ranges(params)
    return params


# `split` and `summary` write files of these names beside those of the groups.
_RESERVED_GROUPS = frozenset({"images", "overall"})
# Columns of the tables that a group's tags stand beside.
_RESERVED_TAGS = frozenset({"image_name", "image_id", "side", "fold", "tags", "rejected"})


def _check_groups(params: Params) -> None:
    if not params.groups:
        raise ParamsError("groups: name at least one group of tags")
    owner: dict[str, str] = {}
    for name, group in params.groups.items():
        if not name.isidentifier() or name in _RESERVED_GROUPS:
            raise ParamsError(
                f"groups.{name}: a group's name is made of letters, digits and underscores, and "
                "is neither `images` nor `overall`: it becomes part of stage, file and model names"
            )
        if not group.tags:
            raise ParamsError(f"groups.{name}.tags: name at least one tag")
        for tag in group.tags:
            if tag != tag.strip() or not tag or tag in _RESERVED_TAGS:
                raise ParamsError(
                    f"groups.{name}.tags: {tag!r} cannot be a tag: no spaces around it, and none "
                    f"of {', '.join(sorted(_RESERVED_TAGS))}"
                )
            if tag.casefold() in owner:
                raise ParamsError(
                    f"groups.{name}.tags: {tag!r} is also a tag of {owner[tag.casefold()]}"
                )
            owner[tag.casefold()] = name
        for key in SHARED_BY_GROUPS:
            if key in group.train:
                raise ParamsError(
                    f"groups.{name}.train.{key}: all groups share one trunk; set train.{key}"
                )
        if group.train:
            _check_train(params.train_of(name), f"groups.{name}.train")


def _check_ranges(params: Params) -> None:
    split, images, tag, publish = params.split, params.images, params.tag, params.publish
    evaluate = params.evaluate
    _check_train(params.train, "train")
    rules = [
        ("split.validation", 0 < split.validation < 1, "must lie between 0 and 1"),
        ("split.folds", split.folds == 0 or split.folds >= 2, "must be 0 (none) or at least 2"),
        ("images.size", 32 <= images.size <= 1024, "must lie in 32..1024"),
        ("images.max_bytes", images.max_bytes >= 1, "must be at least 1"),
        ("images.max_pixels", images.max_pixels >= 1, "must be at least 1"),
        ("images.augment.min_scale", 0 < images.augment.min_scale <= 1, "must lie in (0, 1]"),
        ("images.augment.rotate", 0 <= images.augment.rotate <= 180, "must lie in 0..180"),
        *(
            (f"images.augment.{key}", 0 <= getattr(images.augment, key) <= 1, "must lie in 0..1")
            for key in (
                "flip", "brightness", "contrast", "saturation", "hue", "erase", "background",
            )
        ),
        ("features.views", params.features.views >= 1, "must be at least 1"),
        ("features.max_gb", params.features.max_gb >= 0, "must be at least 0"),
        ("evaluate.min_positives", evaluate.min_positives >= 1, "must be at least 1"),
        ("evaluate.shrink", evaluate.shrink >= 0, "must be at least 0"),
        ("evaluate.bootstrap", evaluate.bootstrap >= 0, "must be at least 0"),
        ("audit.per_tag", params.audit.per_tag >= 1, "must be at least 1"),
        ("audit.shown", params.audit.shown >= 1, "must be at least 1"),
        ("audit.copy_correlation", 0 < params.audit.copy_correlation <= 1, "must lie in (0, 1]"),
        *_promote_rules(params.promote),
        ("tag.schedule", len(tag.schedule.split()) == 5, "must be a cron line of five fields"),
        ("tag.shards", 1 <= tag.shards <= 256, "must lie in 1..256"),
        ("tag.batch_size", tag.batch_size >= 1, "must be at least 1"),
        ("tag.budget_minutes", tag.budget_minutes > 0, "must be above 0"),
        ("tag.decode_workers", tag.decode_workers >= 1, "must be at least 1"),
        ("tag.decode_seconds", tag.decode_seconds > 0, "must be above 0"),
        ("tag.decode_memory_mb", tag.decode_memory_mb >= 100, "must be at least 100"),
        ("tag.settle_seconds", tag.settle_seconds >= 0, "must be at least 0"),
        ("tag.judge_from", tag.judge_from >= 1, "must be at least 1"),
        ("tag.max_rejected", 0 <= tag.max_rejected <= 1, "must lie in 0..1"),
        ("tag.drift.nights", tag.drift.nights >= 1, "must be at least 1"),
        ("tag.drift.min_nights", tag.drift.min_nights >= 1, "must be at least 1"),
        ("tag.drift.deviations", tag.drift.deviations > 0, "must be above 0"),
        ("tag.drift.least", 0 <= tag.drift.least <= 1, "must lie in 0..1"),
        ("publish.page_size", publish.page_size >= 1, "must be at least 1"),
        ("publish.max_pages", publish.max_pages >= 1, "must be at least 1"),
        ("keep.checkouts", params.keep.checkouts >= 1, "must be at least 1"),
        ("keep.page_days", params.keep.page_days >= 1, "must be at least 1"),
        ("keep.outbox_mb", params.keep.outbox_mb >= 0, "must be at least 0"),
        ("publish.thumbnail", 16 <= publish.thumbnail <= 1024, "must lie in 16..1024"),
    ]  # fmt: skip
    _hold(rules)


def _promote_rules(promote: Promote) -> list[tuple[str, bool, str]]:
    rule, approval = promote.rule, promote.approval
    share = approval.when_tags_change_over if isinstance(approval, WhenTagsChange) else 0.0
    return [
        ("promote.min_positives", promote.min_positives >= 1, "must be at least 1"),
        ("promote.bootstrap", promote.bootstrap >= 0, "must be at least 0"),
        ("promote.sample", promote.sample >= 0, "must be at least 0"),
        ("promote.rule.macro_f1_margin", rule.macro_f1_margin >= 0, "must be at least 0"),
        ("promote.rule.tag_f1_margin", rule.tag_f1_margin >= 0, "must be at least 0"),
        ("promote.rule.tag_min_positives", rule.tag_min_positives >= 1, "must be at least 1"),
        ("promote.rule.min_support", rule.min_support >= 1, "must be at least 1"),
        ("promote.approval.when_tags_change_over", 0 <= share <= 1, "must lie in 0..1"),
        ("promote.approval_hours", promote.approval_hours > 0, "must be above 0"),
    ]


def _check_train(train: Train, key: str) -> None:
    _hold(
        [
            (f"{key}.pooled", len(train.pooled) >= 1, "must name at least one"),
            (f"{key}.head_l2", train.head_l2 >= 0, "must be at least 0"),
            (f"{key}.epochs", train.epochs >= 1, "must be at least 1"),
            (f"{key}.batch_size", train.batch_size >= 2, "must be at least 2, for batch norm"),
            (f"{key}.head_lr", train.head_lr > 0, "must be above 0"),
            (f"{key}.trunk_lr", train.trunk_lr >= 0, "must be at least 0"),
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


def _hold(rules: Iterable[tuple[str, bool, str]]) -> None:
    """Raise ParamsError for the first rule that does not hold; no comparison holds for NaN."""
    for key, holds, rule in rules:
        if not holds:
            raise ParamsError(f"{key}: {rule}")


def _build(kind: Any, value: object, key: str) -> Any:
    """Convert a plain YAML value to the annotated type `kind`, strictly; `key` is for errors."""
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, key)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise ParamsError(f"{key}: {value!r} is not one of {', '.join(map(str, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        sections = [a for a in arguments if dataclasses.is_dataclass(a)]
        words = [a for a in arguments if a not in sections and a is not type(None)]
        return _build((sections if isinstance(value, dict) else words)[0], value, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise ParamsError(f"{key}: {value!r} is not a list")
        return tuple(_build(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise ParamsError(f"{key}: {value!r} is not a mapping")
        return {str(k): _build(arguments[1], v, f"{key}.{k}") for k, v in value.items()}
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if kind is float and isinstance(value, str) and _EXPONENT.fullmatch(value):
        return float(value)  # 1e-3: text to YAML 1.1, a number to YAML 1.2, which DVC writes
    if type(value) is not kind:
        raise ParamsError(f"{key}: {value!r} is not {_PLAIN_NAMES.get(kind, kind.__name__)}")
    return value


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_PLAIN_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _build_dataclass(kind: Any, value: object, key: str) -> Any:
    prefix = f"{key}." if key else ""
    if not isinstance(value, dict):
        raise ParamsError(f"{key or 'the file'}: {value!r} is not a mapping of keys to values")
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            raise ParamsError(f"unknown key {prefix}{name}: the keys here are {', '.join(fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in value
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ParamsError(f"missing key {prefix}{missing[0]}")
    return kind(**{n: _build(hints[n], v, f"{prefix}{n}") for n, v in value.items()})
