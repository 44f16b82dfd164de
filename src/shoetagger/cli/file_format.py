"""In which format a command writes a file: the one named, else that of the file's suffix."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from ..errors import ShoetaggerError

_Format = TypeVar("_Format", bound=StrEnum)


def format_for(out: Path, named: _Format | None, suffixes: Mapping[_Format, str]) -> _Format:
    """Return the format to write `out` in; `suffixes` are those of the formats.

    A name without a suffix, such as /dev/stdout, stands for the first. Raises ShoetaggerError where
    the suffix is another format's than the one named, or does not tell.
    """
    suffix = out.suffix.lower()
    fitting = [format for format, own in suffixes.items() if own == suffix]
    if named is not None:
        if fitting and named not in fitting:
            raise ShoetaggerError(
                f"--format {named.value} does not go with the name {out.name}: call it "
                f"{out.with_suffix(suffixes[named]).name}, or name another format"
            )
        return named
    if not suffix:
        return next(iter(suffixes))
    if len(fitting) == 1:
        return fitting[0]
    names = ", ".join(format.value for format in fitting or suffixes)
    raise ShoetaggerError(f"{out.name} does not say what to write: name it with --format {names}")
