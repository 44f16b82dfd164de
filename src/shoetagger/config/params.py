"""params.yaml as frozen, typed objects; an unknown key or a wrong type is refused by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from .operations import Audit, Keep, Promote, Publish, Tag, promote_rules
from .recipe import SHARED_BY_GROUPS, Evaluate, Features, Group, Images, Split, Train, check_train
from .strict import ParamsError, build, check_rules


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
        trained: Train = build(Train, merged, f"groups.{name}.train")
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
    params: Params = build(Params, document, "")
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
                    f"groups.{name}.train.{key}: all groups share one backbone; set train.{key}"
                )
        if group.train:
            check_train(params.train_of(name), f"groups.{name}.train")


def _check_ranges(params: Params) -> None:
    split, images, tag, publish = params.split, params.images, params.tag, params.publish
    evaluate = params.evaluate
    check_train(params.train, "train")
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
        (
            "audit.near_duplicate_correlation",
            0 < params.audit.near_duplicate_correlation <= 1,
            "must lie in (0, 1]",
        ),
        *promote_rules(params.promote),
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
    check_rules(rules)
