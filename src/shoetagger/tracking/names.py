"""Names that MLflow takes, for metrics that are named after tags."""

from __future__ import annotations

import hashlib
import re

_LONGEST = 250  # characters, as MLflow allows
# MLflow takes letters, digits, underscores, dots, dashes, spaces, slashes and, but on Windows,
# colons.
_REFUSED = re.compile(r"[^\w.\- ]|_(?=x[0-9A-F]{4,6}_)")


def metric_name(*parts: str) -> str:
    """Return a metric's name, with the characters that MLflow refuses written as `_x0028_`.

    The parts are joined by slashes: MLflow shows metrics with the same beginning in one section. In
    a part, the digits are the character's code point in hex, as in OOXML and SQL/XML, and an
    underscore that begins such a sequence is written so too: names that differ stay different and
    can be read back. Only a name over 250 characters is cut off, and ends with a digest of the
    whole.
    """
    mapped = "/".join(_mapped(part) for part in parts)
    if len(mapped) <= _LONGEST:
        return mapped
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()[:12]
    return f"{mapped[: _LONGEST - len(digest) - 1]} {digest}"


def _mapped(part: str) -> str:
    if part in (".", ".."):  # MLflow takes a path in its shortest form only
        return f"_x002E_{part[1:]}"
    return _REFUSED.sub(lambda found: f"_x{ord(found[0]):04X}_", part)
