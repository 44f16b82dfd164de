"""Alerts: the webhook that is called when a run fails or is unusual."""

from __future__ import annotations

import http.client
import json
import logging
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import urlsplit

from ..errors import ShoetaggerError
from .logfmt import event

logger = logging.getLogger(__name__)
_PATIENCE = 10.0  # seconds for the webhook to answer


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


def notify(url: str | None, message: Mapping[str, object]) -> None:
    """Post a message as JSON to the webhook, if there is one; a failure is a warning, no more.

    The address may hold a secret and is never logged beyond its host.
    """
    if url is None:
        return
    request = urllib.request.Request(
        url,
        data=json.dumps(message).encode(),
        headers={"Content-Type": "application/json", "User-Agent": "shoetagger"},
        method="POST",
    )
    host = urlsplit(url).hostname
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            logger.info(event("notified", host=host, status=answer.status))
    except urllib.error.HTTPError as error:
        logger.warning(event("not_notified", host=host, reason=f"it answers {error.code}"))
    except (OSError, http.client.HTTPException) as error:
        logger.warning(event("not_notified", host=host, reason=error))
