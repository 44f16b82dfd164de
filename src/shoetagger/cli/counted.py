"""Numbers of things in messages: 1 day, 2 days."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """Return a number with a noun whose plural ends with s."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
