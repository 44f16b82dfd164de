"""Types of the fields of params.yaml: no value is converted, except a whole number to a number."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict

# For every section: a key that it doesn't have is refused.
SECTION = ConfigDict(extra="forbid")

T = TypeVar("T")
_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def _number(value: object) -> object:
    """Read 1e-3: it is text in YAML 1.1, but a number in YAML 1.2, which DVC writes."""
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def must(holds: Callable[[Any], object], words: str) -> AfterValidator:
    """Refuse values for which `holds` is false; `words` say what the value must be."""

    def check(value: T) -> T:
        if not holds(value):
            raise ValueError(f"must {words}")
        return value

    return AfterValidator(check)


def must_match(pattern: str, words: str) -> AfterValidator:
    """Refuse texts that a regular expression does not match as a whole."""
    return must(re.compile(pattern).fullmatch, words)


Text = Annotated[str, Strict()]
Whole = Annotated[int, Strict()]
NumberOrInfinity = Annotated[float, Strict(), BeforeValidator(_number)]  # bounds refuse NaN
Number = Annotated[NumberOrInfinity, Field(allow_inf_nan=False)]
Listed = Annotated[
    tuple[T, ...], Strict(), BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)
]

Count = Annotated[Whole, Field(ge=1)]
CountOrZero = Annotated[Whole, Field(ge=0)]
Seed = Annotated[Whole, Field(ge=0, lt=2**64)]  # what NumPy and torch take
Positive = Annotated[Number, Field(gt=0)]
PositiveOrNone = Annotated[
    NumberOrInfinity | None, must(lambda x: x is None or x > 0, "be above 0")
]
NonNegative = Annotated[Number, Field(ge=0)]
Size = Annotated[NumberOrInfinity, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
ShareBelowOne = Annotated[Number, Field(ge=0, lt=1)]
PositiveShare = Annotated[Number, Field(gt=0, le=1)]
PositiveShareOrNone = Annotated[
    Number | None, must(lambda x: x is None or 0 < x <= 1, "lie in (0, 1]")
]

# So far from now there are dates yet.
Days = Annotated[Whole, Field(ge=1, le=700_000)]
Hours = Annotated[Number, Field(gt=0, le=24 * 700_000)]
Minutes = Annotated[Number, Field(gt=0, le=24 * 60 * 700_000)]
