"""From plain YAML values to typed, frozen objects; what is wrong is refused by key."""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import ShoetaggerError


class ParamsError(ShoetaggerError):
    """A key of params.yaml is unknown, missing or of the wrong type."""


def check_rules(rules: Iterable[tuple[str, bool, str]]) -> None:
    """Raise ParamsError for the first rule that does not hold; no comparison holds for NaN."""
    for key, holds, rule in rules:
        if not holds:
            raise ParamsError(f"{key}: {rule}")


def build(kind: Any, value: object, key: str) -> Any:
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
        return build((sections if isinstance(value, dict) else words)[0], value, key)
    if origin is tuple:
        if not isinstance(value, list):
            raise ParamsError(f"{key}: {value!r} is not a list")
        return tuple(build(arguments[0], item, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise ParamsError(f"{key}: {value!r} is not a mapping")
        return {str(k): build(arguments[1], v, f"{key}.{k}") for k, v in value.items()}
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
    return kind(**{n: build(hints[n], v, f"{prefix}{n}") for n, v in value.items()})
