"""Keys of params.yaml that have another name than in earlier commits."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

# The last part is what changes; for `train` it holds in a group's own `train` as well.
RENAMED = {
    "audit.copy_correlation": "audit.near_duplicate_correlation",
    "tag.judge_from": "tag.alert_from",
    "train.trunk_lr": "train.backbone_lr",
}


def new_key(key: str) -> str | None:
    """Return what a key is called now; None if it has not been renamed."""
    return _renamed(key, RENAMED)


def old_key(key: str) -> str | None:
    """Return what a key was called before; None if it has not been renamed."""
    return _renamed(key, {new: old for old, new in RENAMED.items()})


def _renamed(key: str, names: Mapping[str, str]) -> str | None:
    group, plain = re.fullmatch(r"(groups\.[^.]+\.)?(.*)", key, re.DOTALL).groups("")  # type: ignore[union-attr]
    return f"{group}{names[plain]}" if plain in names else None


def old_names(document: object) -> dict[str, str]:
    """Return the renamed keys, old to new, that a parsed params.yaml has by the old name only."""
    return {
        old: new
        for old, new in RENAMED.items()
        if any(
            _leaf(old) in section and _leaf(new) not in section
            for _, section in _sections(document, old)
        )
    }


def with_new_names(document: object, renamed: Mapping[str, str]) -> tuple[Any, list[str]]:
    """Return a copy of a parsed params.yaml with new names for old, and a line per fault.

    It is a fault if a key is there under its new name, which the older commit does not know.
    """
    document, faults = copy.deepcopy(document), []
    for old, new in renamed.items():
        for place, section in _sections(document, old):
            if _leaf(new) in section:
                key = f"{place}.{_leaf(new)}"
                faults.append(
                    f"unknown key {key}: in this commit it is called {place}.{_leaf(old)}"
                )
            elif _leaf(old) in section:
                section[_leaf(new)] = section.pop(_leaf(old))
    return document, faults


def _leaf(key: str) -> str:
    return key.rpartition(".")[2]


def _sections(document: Any, key: str) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Yield the sections in which a key may stand, with their dotted names."""
    name = key.partition(".")[0]
    top = document if isinstance(document, dict) else {}
    groups = top.get("groups")
    groups = groups if isinstance(groups, dict) else {}
    places = {name: top, **{f"groups.{group}.{name}": own for group, own in groups.items()}}
    for place, around in places.items():
        if isinstance(around, dict) and isinstance(around.get(name), dict):
            yield place, around[name]
