"""Writes the groups of a new project into params.yaml, and leaves the rest as it stands."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ..config.params import Params, loads
from ..config.recipe import Group
from ..errors import ShoetaggerError

_EXCLUSIVE = re.compile(r"^  exclusive: \[.*\](?=\s*(#.*)?$)", re.MULTILINE)
_TITLES = re.compile(r"^titles:.*\n(?:[ \t]+\S.*\n)*", re.MULTILINE)


def with_groups(text: str, groups: Mapping[str, Group], path: Path) -> tuple[str, Params]:
    """Return the text of params.yaml with other groups, and what it says then.

    Lists of exclusive tags, and titles, go where they name a tag that is gone. Raises
    ShoetaggerError where the file is laid out in a way that cannot be edited safely.
    """
    before: dict[str, Any] = yaml.safe_load(text)
    tags = {tag for group in groups.values() for tag in group.tags}
    exclusive = [pair for pair in before["audit"]["exclusive"] if tags.issuperset(pair)]
    titles = {k: v for k, v in before.get("titles", {}).items() if k in tags or k in groups}
    wanted = {
        **before,
        "groups": {name: _plain(group) for name, group in groups.items()},
        "audit": {**before["audit"], "exclusive": exclusive},
        "titles": titles,
    }
    text = _replaced_groups(text, groups)
    if exclusive != before["audit"]["exclusive"]:
        text = _EXCLUSIVE.sub(f"  exclusive: {_flow(exclusive)}", text)
    if titles != before.get("titles", {}):
        text = _TITLES.sub(f"titles: {_flow(titles)}\n", text)
    if {"titles": {}, **yaml.safe_load(text)} != wanted:
        names = ", ".join(f"{name}: {list(group.tags)}" for name, group in groups.items())
        raise ShoetaggerError(
            f"{path} is laid out in an unusual way, and was not changed: write these groups into "
            f"it, and run this again: {names}"
        )
    return text, loads(text, path)


def _plain(group: Group) -> dict[str, Any]:
    """Return what params.yaml says of a group: its tags, and what is not as by default."""
    default = asdict(Group(group.tags))
    own = {name: value for name, value in asdict(group).items() if value != default[name]}
    return {"tags": list(group.tags), **own}


def _replaced_groups(text: str, groups: Mapping[str, Group]) -> str:
    """Replace all that stands below `groups:`, up to the next line that begins a section."""
    lines = text.splitlines(keepends=True)
    begin = next(number for number, line in enumerate(lines) if re.match(r"groups:\s*(#|$)", line))
    end = begin + 1
    while end < len(lines) and (lines[end].startswith((" ", "\t")) or not lines[end].strip()):
        end += 1
    while not lines[end - 1].strip():  # the empty line before the next section stays
        end -= 1
    written = []
    for name, group in groups.items():
        written.append(f"  {name}:\n")
        written += [f"    {key}: {_flow(value)}\n" for key, value in _plain(group).items()]
    return "".join([*lines[: begin + 1], *written, *lines[end:]])


def _flow(value: Any) -> str:
    """Return a value as YAML of one line; JSON is YAML, too, and quotes what needs it."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][\w ]*\w|[A-Za-z]", value)
        return value if plain and yaml.safe_load(value) == value else json.dumps(value)
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flow(k)}: {_flow(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_flow, value))}]"
    return json.dumps(value)
