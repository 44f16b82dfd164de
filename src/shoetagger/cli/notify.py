"""`shoetagger notify`: tries the addresses that get notifications, or looks after the nights."""

from __future__ import annotations

from typing import Annotated

import typer

from ..config.settings import Settings, user
from ..errors import ShoetaggerError
from ..notification.addresses import VARIABLE, addresses
from ..notification.message import Message
from ..notification.send import send
from ..ops.installation import opened
from ..tagging.alerts import alert_if_overdue


def notify(
    if_overdue: Annotated[
        bool,
        typer.Option("--if-overdue", help="Only if no night has run for too long; for cron."),
    ] = False,
) -> None:
    """Send a test message to the addresses of SHOETAGGER_NOTIFY_URL."""
    settings = Settings.from_environment()
    if not addresses(settings.notify_url):
        raise ShoetaggerError(f"{VARIABLE} names no address: set it, as docs/OPERATIONS.md says")
    if if_overdue:
        with opened(settings, unattended=True) as here:
            max_hours = here.params.tag.max_hours_without_night
            reason = alert_if_overdue(settings.notify_url, here.store, max_hours)
        typer.echo(reason or "nights run as they should")
        return
    outcomes = send(settings.notify_url, Message("test", f"a test message from {user()}"))
    if failed := [f"{o.to}: {o.error}" for o in outcomes if o.error is not None]:
        raise ShoetaggerError("\n".join(["the test message did not reach all:", *failed]))
    typer.echo(f"sent to {', '.join(outcome.to for outcome in outcomes)}")
