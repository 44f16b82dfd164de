"""Log lines that people can read and programs can search: what happened, then key=value."""

from __future__ import annotations

import json
import re

_PLAIN = re.compile(r"[^\s\"=\\]+")


def event(name: str, **fields: object) -> str:
    """Return one line, `event=name key=value ...`, whatever the values hold.

    A value that is no plain word becomes a JSON string, so that a file's name can neither end the
    line nor pass for another key. A field that is None is left out.
    """
    said = {"event": name} | {key: value for key, value in fields.items() if value is not None}
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in said.items())


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())
