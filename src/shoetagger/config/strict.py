"""Plain YAML values are validated as typed sections; every fault is one line that names its key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import Tag, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..errors import ShoetaggerError
from .renamed import new_key, old_key

T = TypeVar("T")

# What a value of the wrong type is not, by pydantic's type of error.
_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping of keys to values",
}
_UNKNOWN = ("unexpected_keyword_argument", "invalid_key")
_BOUNDS = ("greater_than_equal", "greater_than", "less_than_equal", "less_than")


class ParamsError(ShoetaggerError):
    """What is wrong with params.yaml: one line per fault, also in `faults`."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("\n".join(faults))


def validated(kind: type[T], value: object, key: str = "") -> T:
    """Return a plain YAML value as the section `kind`, which stands at the dotted `key`.

    Raises ParamsError that lists all faults, unknown keys first.
    """
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        details.sort(key=lambda fault: fault["type"] not in _UNKNOWN)
        faults = [_in_words(kind, fault, key) for fault in details]
        raise ParamsError(*filter(None, faults)) from None


def _in_words(kind: Any, fault: ErrorDetails, root: str) -> str | None:
    """Return the line for a fault; None for a key that is only missing under its new name."""
    key, section, found = _place(kind, fault["loc"], root)
    error, value = fault["type"], fault["input"]
    if error in _UNKNOWN:
        if new := new_key(key):
            return f"unknown key {key}: it is called {new} now"
        return f"unknown key {key}: the keys here are {', '.join(fields_of(section))}"
    if error == "missing":
        old = old_key(key)
        return None if old and old.rpartition(".")[2] in value else f"missing key {key}"
    if error == "literal_error":
        return f"{key}: {value!r} is not one of {', '.join(map(str, get_args(found)))}"
    if error in _BOUNDS:
        return f"{key}: must {_range(fields_of(section)[str(fault['loc'][-1])])}; it is {value!r}"
    if error == "value_error":
        return f"{key}: {fault['ctx']['error']}; it is {value!r}"
    return f"{key or 'the file'}: {value!r} is not {_TYPES.get(error) or fault['msg']}"


def fields_of(kind: Any) -> Mapping[str, FieldInfo]:
    """Return the fields of a section by name; of any other type, none."""
    found: Mapping[str, FieldInfo] = getattr(kind, "__pydantic_fields__", {})
    return found


def _place(kind: Any, place: Sequence[int | str], key: str) -> tuple[str, Any, Any]:
    """Return the dotted key of a place within `kind`, the section around it and its own type."""
    section = kind
    for part in place:
        if part == "[key]":  # the fault is in the key of a mapping
            continue
        kind = _plain(kind)
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, UnionType):
            kind = next(a for a in arguments if Tag(str(part)) in get_args(a))
            continue
        if origin is tuple:
            kind, key = arguments[0], f"{key}[{part}]"
            continue
        if fields := fields_of(kind):
            section, kind = kind, fields[str(part)].annotation if part in fields else None
        else:
            kind = arguments[1]  # of a mapping
        key = f"{key}.{part}" if key else str(part)
    return key, section, _plain(kind)


def _plain(kind: Any) -> Any:
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _range(field: FieldInfo) -> str:
    """Return what a number must be, from the bounds of its field."""
    bounds = {
        name: getattr(item, name)
        for item in field.metadata
        for name in ("ge", "gt", "le", "lt")
        if hasattr(item, name)
    }
    match bounds:
        case {"ge": low, "le": high}:
            return f"lie in {low}..{high}"
        case {"gt": low, "lt": high}:
            return f"lie between {low} and {high}"
        case {"ge": low, "lt": high}:
            return f"lie in [{low}, {high})"
        case {"gt": low, "le": high}:
            return f"lie in ({low}, {high}]"
        case {"ge": low}:
            return f"be at least {low}"
        case _:
            return f"be above {bounds['gt']}"
