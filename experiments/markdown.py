"""Lines of Markdown tables, and the metrics in their cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def line(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def head(*names: str) -> str:
    """Return the two lines that a table starts with."""
    return f"{line(*names)}\n{line(*['---'] * len(names))}"


def number(value: float | str, sign: str = "") -> str:
    """Return a metric with three digits; a text, such as "not measurable", as it is."""
    return value if isinstance(value, str) else f"{value:{sign}.3f}"


def with_interval(metrics: Mapping[str, Any], sign: str = "") -> str:
    """Return the macro F1 of some metrics, and its interval, where there is one, in brackets."""
    shown, bounds = number(metrics["macro_f1"], sign), metrics["macro_f1_interval"]
    return f"{shown} [{', '.join(number(bound, sign) for bound in bounds)}]" if bounds else shown
