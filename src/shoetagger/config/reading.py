"""YAML, read by libyaml where PyYAML has it: nine times as fast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError


class _Careful:
    """Refuses a key that a mapping has twice: PyYAML would take the last, DVC refuses it, too."""

    def construct_document(self, node: yaml.Node) -> Any:
        if (key := next(_repeated(node), None)) is not None:
            raise ConstructorError(
                problem=f"the key {key.value} is there twice", problem_mark=key.start_mark
            )
        return super().construct_document(node)  # type: ignore[misc]


class _Quick(_Careful, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    pass


class _Telling(_Careful, yaml.SafeLoader):
    pass


def read_yaml(text: str) -> Any:
    """Return what a YAML text says; raises YAMLError, which shows the line that is wrong."""
    try:
        return yaml.load(text, Loader=_Quick)
    except yaml.YAMLError:
        return yaml.load(text, Loader=_Telling)  # libyaml's message does not show the line


def _repeated(root: yaml.Node) -> Iterator[yaml.Node]:
    """Yield the second of each two equal keys; what `<<` merges in may be overridden."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [value for _, value in node.value]
            keys = set()
            for key, _ in node.value:
                if (key.tag, str(key.value)) in keys:
                    yield key
                keys.add((key.tag, str(key.value)))
