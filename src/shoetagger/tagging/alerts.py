"""Alerts: the webhook that is called when a run fails or is unusual."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx

from ..config.settings import fault_of_webhook
from ..errors import ShoetaggerError
from ..store.overdue import overdue
from ..store.rows import StoreError
from ..store.store import Store
from .logfmt import event

logger = logging.getLogger(__name__)
_TIMEOUT = 10.0  # seconds for each step of the call

# At INFO it logs whole addresses, and the webhook's may hold a secret.
logging.getLogger("httpx").setLevel(logging.WARNING)


@contextmanager
def alert_on_failure(url: str | None, what: str) -> Iterator[None]:
    """Report a ShoetaggerError raised within the block to the webhook, then let it pass.

    `what` says in words what failed.
    """
    try:
        yield
    except ShoetaggerError as error:
        notify(url, {"summary": what, "state": "failed", "alerts": [str(error)]})
        raise


def alert_if_overdue(url: str | None, store: Store, max_hours: float | None) -> None:
    """Log, and report to the webhook, that no night has run for too long.

    A store that does not answer is a warning: it is not what the caller came for.
    """
    try:
        reason = overdue(store, max_hours, datetime.now(UTC))
    except StoreError as error:
        logger.warning("nobody can say when the last night ran: %s", error)
        return
    if reason is not None:
        logger.warning(event("alert", reason=reason))
        notify(url, {"summary": "nights have stopped", "state": "overdue", "alerts": [reason]})


def notify(url: str | None, message: Mapping[str, object]) -> None:
    """Post a message as JSON to the webhook, if there is one; a failure is a warning, no more.

    The address may hold a secret and is never logged beyond its host.
    """
    if url is None:
        return
    if fault := fault_of_webhook(url):
        logger.warning(event("not_notified", reason=fault))
        return
    host = urlsplit(url).hostname
    try:
        response = httpx.post(
            url,
            json=message,
            headers={"User-Agent": "shoetagger"},
            timeout=_TIMEOUT,
            verify=ssl.create_default_context(),  # the certificates that this machine trusts
        )
    # Beside httpx's own errors: a host that is no name, certificates that cannot be read.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
        logger.warning(event("not_notified", host=host, reason=error))
        return
    if response.is_success:
        logger.info(event("notified", host=host, status=response.status_code))
    else:
        reason = f"it answers {response.status_code}"
        logger.warning(event("not_notified", host=host, reason=reason))
