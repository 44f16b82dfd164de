"""The last params.yaml without a fault: what runs unattended goes by it while the file has one."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

from ..atomic import atomic_write
from .params import Params, load, loads, read
from .settings import Settings
from .strict import ParamsError

logger = logging.getLogger(__name__)
FILE = "last_good_params.yaml"  # in the state


def load_or_last_good(settings: Settings) -> tuple[Params, str | None]:
    """Return the parameters of params.yaml, or the last good ones and what is wrong with the file.

    For this, a good file is copied to the state. Raises ParamsError where there is no good copy.
    """
    kept = settings.home / FILE
    try:
        text = read(settings.params_file)
        params = loads(text, settings.params_file)
    except ParamsError as error:
        try:
            params = load(kept)
        except ParamsError:
            raise error from None
        since = datetime.fromtimestamp(kept.stat().st_mtime, UTC)
        fault = (
            f"params.yaml has a fault, and the last good one, of {since:%Y-%m-%d %H:%M} UTC, is "
            f"used: {'; '.join(error.faults)}"
        )
        logger.warning(fault)
        return params, fault
    _keep(text, kept)
    return params, None


def _keep(text: str, place: Path) -> None:
    """Copy what differs to a state that is there; that it cannot be written is a warning."""
    try:
        if place.parent.is_dir() and not (place.is_file() and place.read_text("utf-8") == text):
            with atomic_write(place) as file:
                file.write(text.encode())
    except (OSError, UnicodeDecodeError) as error:
        logger.warning("no copy of params.yaml is kept for when it has a fault: %s", error)
