"""The addresses that SHOETAGGER_NOTIFY_URL names, and what is wrong with them.

An address may hold a secret: nothing here shows more of it than its host or its service.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from apprise import NotifyBase

VARIABLE = "SHOETAGGER_NOTIFY_URL"


def addresses(setting: str | None) -> list[str]:
    """Return the addresses of a setting, which spaces part."""
    return (setting or "").split()


def fault_of(setting: str | None) -> str | None:
    """Return what is wrong with the addresses of a setting, in a line; None where all can be used.

    This does not stop a night, which tags all the same: starting the servers and
    `shoetagger status` report it.
    """
    faults = [
        f"address {number}" if len(addresses(setting)) > 1 else "the address"
        for number, address in enumerate(addresses(setting), start=1)
        if not is_webhook(address) and service(address) is None
    ]
    if not faults:
        return None
    return (
        f"{VARIABLE}: {' and '.join(faults)} cannot be used: a webhook looks like "
        "https://host/path, and docs/OPERATIONS.md says how Slack, Teams, mail and others do"
    )


def is_webhook(address: str) -> bool:
    """Tell whether an address is one of the web that takes our JSON."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return good and address.isprintable() and service(address) is None


def service(address: str) -> NotifyBase | None:
    """Return apprise's plugin for an address; None where apprise knows no such service.

    The addresses that Slack, Teams and others give to their webhooks are theirs, too.
    """
    log = logging.getLogger("apprise")
    if log.propagate:  # its lines contain addresses; the sender reports what went wrong
        log.propagate = False
        log.addHandler(logging.NullHandler())
    import apprise  # takes a second to find its services, and few runs have anything to tell

    found: NotifyBase | None = apprise.Apprise.instantiate(address)
    return found


def shown(address: str) -> str:
    """Return what may be shown of an address: the host of a webhook, or the service's name."""
    if (found := service(address)) is not None:
        return str(found.service_name)
    return str(urlsplit(address).hostname) if is_webhook(address) else "an unknown address"
