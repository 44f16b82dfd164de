"""Jinja templates of this package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).parent / "templates"


def template(
    name: str, functions: Mapping[str, Callable[..., object]] | None = None
) -> jinja2.Template:
    """Return a template of this package; what it shows is escaped.

    It can call `functions` by name, and `count`, which puts a number and its noun together.
    """
    return _environment().get_template(name, globals=dict(functions or {}))


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["count"] = count
    return environment


def count(value: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: 1 picture, 1,234 pictures."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"
