"""Log lines that people can read and programs can search: what happened, then key=value.

structlog's LogfmtRenderer leaves carriage returns, other line separators, escape sequences and
bidirectional marks in values as they are. Names of files are not to be trusted, so values are
written as JSON strings here: one line whatever they hold, and exact to read back.
"""

from __future__ import annotations

import json
import re

_PLAIN = re.compile(r"[^\s\"=\\]+")


def event(name: str, **fields: object) -> str:
    """Return one line, `event=name key=value ...`, whatever the values hold.

    A value that is no plain word becomes a JSON string, so that a file's name can neither end the
    line nor pass for another key. A field that is None is left out.
    """
    present = {"event": name} | {key: value for key, value in fields.items() if value is not None}
    return " ".join(f"{key}={_quoted(str(value))}" for key, value in present.items())


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value) and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())
