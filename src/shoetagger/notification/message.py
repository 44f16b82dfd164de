"""A notification: a state, a sentence, reasons, and where to look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

# What has happened: something failed; a run is done, and odd; nights have stopped; a person is
# waited for; or somebody tries the addresses.
State = Literal["failed", "done", "overdue", "waiting", "test"]


@dataclass(frozen=True)
class Message:
    """One event, in plain text.

    `alerts` are reasons, a sentence each; `url` is where a person goes on. `more` are further
    values for programs, which only a webhook is sent.
    """

    state: State
    summary: str = ""
    alerts: Sequence[str] = ()
    url: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what a webhook is sent."""
        plain: dict[str, Any] = {**self.more, "state": self.state, "alerts": list(self.alerts)}
        plain |= {"summary": self.summary} if self.summary else {}
        return plain | ({"url": self.url} if self.url else {})

    @property
    def title(self) -> str:
        return f"shoetagger: {self.state}"

    @property
    def text(self) -> str:
        """What people read below the title."""
        lines = [self.summary, *(f"- {alert}" for alert in self.alerts), self.url or ""]
        return "\n".join(filter(None, lines))
