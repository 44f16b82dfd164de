"""Sends a message to every address; one that fails is a warning, and hinders neither the others
nor what the message is about."""

from __future__ import annotations

import logging
import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..logfmt import event
from .addresses import addresses, fault_of, is_webhook, service, shown
from .message import Message

if TYPE_CHECKING:
    from apprise import NotifyBase

logger = logging.getLogger(__name__)
_TIMEOUT = 10.0  # seconds for each step of a call

# At INFO and at DEBUG these log whole addresses, which may hold a secret.
for name in ("httpx", "httpcore", "urllib3"):
    logging.getLogger(name).setLevel(logging.WARNING)


@dataclass(frozen=True)
class Outcome:
    """Whether a message came through to an address, of which `to` shows host or service."""

    to: str
    error: str | None = None


def send(setting: str | None, message: Message) -> list[Outcome]:
    """Send a message to the addresses of a setting, if it names any; never raises for one.

    What failed is logged, and is in the outcomes: with no more of the address than host or service.
    """
    outcomes = []
    for address in addresses(setting):
        outcome = Outcome(shown(address), _send(address, message))
        outcomes.append(outcome)
        if outcome.error is None:
            logger.info(event("notified", to=outcome.to, state=message.state))
        else:
            logger.warning(event("not_notified", to=outcome.to, reason=outcome.error))
    return outcomes


def _send(address: str, message: Message) -> str | None:
    if is_webhook(address):
        return _post(address, message)
    if (plugin := service(address)) is not None:
        return _tell(plugin, address, message)
    return fault_of(address)


def _post(address: str, message: Message) -> str | None:
    """Post a message as JSON; return what went wrong."""
    import httpx  # an eighth of a command's start, with the terminal's colours that it brings

    try:
        response = httpx.post(
            address,
            json=message.as_json(),
            headers={"User-Agent": "shoetagger"},
            timeout=_TIMEOUT,
            verify=ssl.create_default_context(),  # the certificates that this machine trusts
        )
    # Beside httpx's own errors: a host that is no name, certificates that cannot be read.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        return _without(address, str(error))
    return None if response.is_success else f"it answers {response.status_code}"


def _tell(plugin: NotifyBase, address: str, message: Message) -> str | None:
    """Send a message as text; return what went wrong."""
    import apprise

    kinds = {"failed": apprise.NotifyType.FAILURE, "overdue": apprise.NotifyType.FAILURE}
    kinds["done"] = apprise.NotifyType.WARNING
    call = apprise.Apprise()
    call.add(plugin)
    result = call.notify(
        title=message.title,
        body=message.text,
        body_format=apprise.NotifyFormat.TEXT,
        notify_type=kinds.get(message.state, apprise.NotifyType.INFO),
        timeout=3 * _TIMEOUT,
        log_level=logging.WARNING,
    )
    if result:
        return None
    reasons = "; ".join(str(entry.message) for entry in result.logs())
    return _without(address, reasons) or "it did not take the message"


def _without(address: str, text: str) -> str:
    """Return a text without those parts of an address that may be secret."""
    _, _, rest = address.partition("://")
    for part in sorted(re.findall(r"[^/:@?&=,]{6,}", rest), key=len, reverse=True):
        text = text.replace(part, "***")
    return text
