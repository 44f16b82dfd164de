"""The parts of docs/TOUR.md that the tour writes: they stand between markers."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping

from .newcomer import TourError
from .plan import STEPS

_ALL = "all of it"
_HEAD = "| step | minutes |\n| --- | --- |\n"


def with_parts(text: str, parts: Mapping[str, str]) -> str:
    """Return a page with new parts; raises TourError for one that has no place in the page."""
    for name, part in parts.items():
        before, begin, rest = text.partition(f"<!-- {name}: written by make tour -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->\n")
        if not end:
            raise TourError(f"docs/TOUR.md has no markers around the part {name!r}")
        text = f"{before}{begin}{part}{end}{after}"
    return text


def times(seconds: Mapping[str, float], machine: str, installed: int) -> str:
    """Return the table of the steps, what they were measured on, and the size of .venv in bytes."""
    rows = [f"| {words} | {_clock(seconds[name])} |\n" for name, words in STEPS.items()]
    rows.append(f"| {_ALL} | {_clock(sum(seconds[name] for name in STEPS))} |\n")
    on = f"Measured on {machine}. `.venv` takes {installed / 1e9:.1f} GB."
    return f"{_HEAD}{''.join(rows)}\n{on}\n"


def steps_of(text: str) -> list[str]:
    """Return the steps in the table of a page, in its words."""
    _, found, rows = text.partition(_HEAD)
    lines = [line for line in rows.split("\n\n")[0].splitlines() if found]
    return [words for line in lines if (words := line[2:].rpartition(" | ")[0]) != _ALL]


def closing_words(output: str) -> str:
    """Return what the demo says of its pictures at its end, as a block of the page."""
    end = r"(?=\n +done after [\d:]+\n+Pages )"
    match = re.search(rf"^ +\d+ pictures tagged by .*?{end}", output, re.DOTALL | re.MULTILINE)
    if match is None:
        raise TourError(f"the demo's end is not as it was:\n{output[-2000:]}")
    return f"```\n{textwrap.dedent(match[0]).rstrip()}\n```\n"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
