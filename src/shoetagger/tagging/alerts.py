"""Alerts: what people hear of runs that fail, and of nights that do not come."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from ..errors import ShoetaggerError
from ..logfmt import event
from ..notification.message import Message
from ..notification.send import send
from ..store.overdue import overdue
from ..store.rows import StoreError
from ..store.store import Store

logger = logging.getLogger(__name__)


@contextmanager
def alert_on_failure(setting: str | None, what: str) -> Iterator[None]:
    """Tell the addresses of a setting of a ShoetaggerError raised within the block; let it pass.

    `what` says in words what failed.
    """
    try:
        yield
    except ShoetaggerError as error:
        send(setting, Message("failed", what, [str(error)]))
        raise


def alert_if_overdue(setting: str | None, store: Store, max_hours: float | None) -> str | None:
    """Log, and tell the addresses of a setting, that no night has run for too long; return that.

    A store that does not answer is a warning: it is not what the caller came for.
    """
    try:
        reason = overdue(store, max_hours, datetime.now(UTC))
    except StoreError as error:
        logger.warning("nobody can say when the last night ran: %s", error)
        return None
    if reason is not None:
        logger.warning(event("alert", reason=reason))
        send(setting, Message("overdue", "nights have stopped", [reason]))
    return reason
