"""params.yaml as frozen, typed sections; every unknown key and wrong value is refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

import yaml
from pydantic.dataclasses import dataclass

from .fields import SECTION, Text
from .operations import OPERATIONS, Articles, Audit, Keep, Labels, Promote, Publish, Tag
from .reading import read_yaml
from .recipe import SHARED_BY_GROUPS, Evaluate, Features, Group, Images, Split, Train
from .renamed import with_new_names
from .strict import ParamsError, validated

# `split` and `summary` write files of these names beside those of the groups, and the tables that
# are published have columns of these names beside those of the groups.
_RESERVED_GROUPS = {
    *("images", "overall"),
    *("path", "image_id", "file", "first_seen", "stale", "corrected", "copies", "rejected"),
    *("verdict", "none", "article", "pictures", "unsure"),
}

# Columns that tables have beside those of a group's tags.
_RESERVED_TAGS = frozenset({"image_name", "image_id", "side", "repeat", "fold", "tags", "rejected"})

_LONGEST_GROUP, _LONGEST_TAG = 50, 100  # characters


@dataclass(frozen=True, config=SECTION)
class Params:
    groups: Mapping[Text, Group]
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
    # Commits of before these sections were there can still be trained from.
    labels: Labels = Labels()
    titles: Mapping[Text, Text] = field(default_factory=dict)
    articles: Articles = Articles()

    @property
    def tags(self) -> tuple[str, ...]:
        """All tags of all groups, in the order of the groups."""
        return tuple(tag for group in self.groups.values() for tag in group.tags)

    def title(self, name: str) -> str:
        """Return what people read for a tag or a group."""
        return self.titles.get(name, name)

    def group(self, name: str) -> Group:
        """Return one group; raises ParamsError that lists the groups there are."""
        if name not in self.groups:
            raise ParamsError(
                f"no group {name!r} in params.yaml: the groups are {', '.join(self.groups)}"
            )
        return self.groups[name]

    def operated_as(self, installation: Params) -> Params:
        """Return what models are made of by these parameters, and operations by another's."""
        operations = {section: getattr(installation, section) for section in OPERATIONS}
        return dataclasses.replace(self, **operations)

    def train_of(self, name: str) -> Train:
        """Return the training parameters of one group: its own `train` over that of all."""
        merged: dict[str, Any] = dataclasses.asdict(self.train) | dict(self.group(name).train)
        return validated(Train, merged, f"groups.{name}.train")


def load(path: Path) -> Params:
    """Read and check params.yaml; raises ParamsError with a line per fault that names the file."""
    return loads(read(path), path)


def read(path: Path) -> str:
    """Return the text of params.yaml; raises ParamsError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ParamsError(
            f"{path} is missing: restore it with `git checkout params.yaml`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path} cannot be read as UTF-8 text: {error}") from None


def loads(text: str, path: Path) -> Params:
    """Check the text of params.yaml, which stands at `path`, as `load` does."""
    try:
        document = read_yaml(text)
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is not valid YAML: {error}") from None
    try:
        return parse(document)
    except ParamsError as error:
        raise ParamsError(*(f"{path.name}: {fault}" for fault in error.faults)) from None


def parse(document: object, renamed: Mapping[str, str] | None = None) -> Params:
    """Return a parsed params.yaml as typed sections; raises ParamsError with a line per fault.

    `renamed` has the keys, old to new, that the file names as before: see `old_names`. Without
    it, old names are refused. A file of an older commit is read with it: that commit's own code
    trains from the old names, and only what runs today (which groups to train, what promotes a
    challenger, how its images are decoded) needs them under the new ones.
    """
    document, faults = with_new_names(document, renamed or {})
    if faults:
        raise ParamsError(*faults)
    params = validated(Params, document)
    faults = [
        *_faults_of_groups(params),
        *_faults_of_titles(params),
        *_faults_of_training(params),
    ]
    if faults:
        raise ParamsError(*faults)
    return params


def _faults_of_groups(params: Params) -> Iterator[str]:
    if not params.groups:
        yield "groups: name at least one group of tags"
    if clashing := _same_but_for_case(params.groups):
        yield (
            f"groups: {' and '.join(clashing)} differ only in letter case, and so do not on every "
            "disk: rename one"
        )
    owner: dict[str, str] = {}
    for name, group in params.groups.items():
        if not can_be_group(name):
            yield (
                f"groups.{name}: a group's name is made of at most {_LONGEST_GROUP} letters, "
                "digits and underscores, with no digit first, and is none of "
                f"{', '.join(sorted(_RESERVED_GROUPS))}: it becomes part of stage, file, model "
                "and column names"
            )
        if not group.tags:
            yield f"groups.{name}.tags: name at least one tag"
        for tag in group.tags:
            key = _folded(tag)
            if not can_be_tag(tag):
                yield (
                    f"groups.{name}.tags: {tag!r} cannot be a tag: at most {_LONGEST_TAG} "
                    "characters that can be printed, no comma, no space at either end, and none "
                    f"of {', '.join(sorted(_RESERVED_TAGS))}"
                )
            elif key in owner:
                yield f"groups.{name}.tags: {tag!r} is also a tag of {owner[key]}"
            owner.setdefault(key, name)


def _faults_of_titles(params: Params) -> Iterator[str]:
    owner = {_folded(tag): tag for tag in params.tags}
    for name, title in params.titles.items():
        if name not in params.groups and name not in params.tags:
            near = difflib.get_close_matches(name, [*params.tags, *params.groups], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            yield f"titles.{name}: there is no such tag or group{hint}"
        elif not (_fits(title) and title == title.strip()):
            yield (
                f"titles.{name}: {title!r} cannot be a title: at most {_LONGEST_TAG} characters "
                "that can be printed, no comma, no space at either end"
            )
        elif name in params.tags and owner.setdefault(_folded(title), name) != name:
            yield (
                f"titles.{name}: {title!r} is what people read for {owner[_folded(title)]!r}, too: "
                "nobody could tell the two apart"
            )


def can_be_group(name: str) -> bool:
    """Tell whether a name can be part of stage, file, model and column names."""
    reserved = name.casefold() in _RESERVED_GROUPS
    return name.isidentifier() and len(name) <= _LONGEST_GROUP and not reserved


def can_be_tag(tag: str) -> bool:
    """Tell whether a tag can be a column of every table; lists of tags have commas in between."""
    return _fits(tag) and tag == tag.strip() and tag.casefold() not in _RESERVED_TAGS


def _fits(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_TAG and name.isprintable() and "," not in name


def _same_but_for_case(names: Iterable[str]) -> list[str]:
    """Return the names, sorted, that are equal to another one but for letter case."""
    counts = Counter(map(_folded, names))
    return sorted(name for name in names if counts[_folded(name)] > 1)


def _folded(name: str) -> str:
    """Return a name as the label sheet's header and case-insensitive disks compare it."""
    return unicodedata.normalize("NFC", name).casefold()


def _faults_of_training(params: Params) -> Iterator[str]:
    if params.train.weights == "none" and params.train.freeze != "none":
        yield (
            "train.freeze: freezing layers of a network with random weights (train.weights: none) "
            "would keep them random: set train.freeze to none, or train.weights to imagenet"
        )
    if params.images.detector != "none" and params.images.framing != "shoe":
        yield (
            f"images.detector: {params.images.detector} would find shoes that images.framing "
            f"({params.images.framing}) does not crop to: set images.framing to shoe, or "
            "images.detector to none"
        )
    for name, group in params.groups.items():
        for key in SHARED_BY_GROUPS:
            if key in group.train:
                yield f"groups.{name}.train.{key}: all groups share one backbone; set train.{key}"
        try:
            params.train_of(name)
        except ParamsError as error:
            yield from error.faults
