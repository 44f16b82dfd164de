"""Where pretrained weights come from, and what their licence allows; imports no torch."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Literal

from .layers import ModelError

# SPDX identifiers, in lower case, of licences without conditions on who uses a work.
_FREE = re.compile(
    r"(apache-2\.0|mit|isc|bsd-[23]-clause|cc0-1\.0|unlicense|cc-by(-sa)?-[1-4]\.0|gpl-[23]\.0.*)"
)
_NONCOMMERCIAL = re.compile(r"(^|[-_ ])(nc|non-?commercial|research)([-_ ]|$)")
# Licences of weights in timm that are for research alone, though their names do not say so.
_RESEARCH = {"apple-amlr", "seer-license"}


@dataclass(frozen=True)
class Origin:
    """What pretrained weights are: their source, their licence, and the library that runs them.

    `license` is an SPDX identifier or another name; None where nothing states one. `library` is the
    package and its version, such as "timm 1.0.31".
    """

    source: str
    license: str | None
    library: str

    @classmethod
    def from_dict(cls, values: object) -> Origin:
        """Read what `as_dict` returned; raises ModelError where it has other keys or types."""
        names = {"source", "license", "library"}
        if not isinstance(values, dict) or set(values) != names:
            raise ModelError(f"origin: the keys are {', '.join(sorted(names))}")
        if not all(isinstance(v, str) or (k, v) == ("license", None) for k, v in values.items()):
            raise ModelError("origin: its values must be text; the licence alone may be null")
        return cls(**values)

    def as_dict(self) -> dict[str, str | None]:
        return asdict(self)

    @property
    def commercial_use(self) -> Literal["allowed", "forbidden", "unknown"]:
        """Whether the licence allows commercial use, as far as its name tells."""
        name = (self.license or "").strip().casefold()
        if name in _RESEARCH or _NONCOMMERCIAL.search(name):
            return "forbidden"
        return "allowed" if _FREE.fullmatch(name) else "unknown"

    @property
    def warning(self) -> str | None:
        """What a person has to know before models from these weights are used for business."""
        if self.commercial_use == "forbidden":
            return (
                f"the licence of the weights {self.source} ({self.license}) forbids commercial "
                "use: of the weights, and so of every model that starts from them"
            )
        if self.commercial_use == "unknown":
            named = (
                f"is {self.license}, which shoetagger does not know"
                if self.license
                else ("is not stated")
            )
            return (
                f"the licence of the weights {self.source} {named}: read it before a model that "
                "starts from them is used for business"
            )
        return None
