"""The pictures that arrive in the demo's inbox: drawn, put there, tagged or rejected."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..config.settings import Settings
from ..ingest.folder import path_of
from ..store.rows import CurrentRow
from ..store.store import Store
from .sample import write_arrivals

ARRIVALS = 24
SEED = 7


def drawn(settings: Settings) -> list[Path]:
    """Return the pictures that arrive, which are drawn once."""
    folder = settings.home / "demo" / f"arrivals-{SEED}-{ARRIVALS}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".drawing-") as beside:
            write_arrivals(Path(beside) / "all", ARRIVALS, SEED, with_bad=True)
            if not folder.is_dir():
                (Path(beside) / "all").rename(folder)
    return sorted(folder.iterdir())


def let_arrive(settings: Settings) -> int:
    """Put the drawn pictures and a few broken files into the inbox; returns how many were new.

    Each appears there whole, and one that is there already is not touched.
    """
    inbox = settings.inbox
    assert isinstance(inbox, Path)  # a bucket is never the demo's own
    inbox.mkdir(parents=True, exist_ok=True)
    arrived = 0
    for source in drawn(settings):
        target = inbox / source.name
        if not target.exists():
            beside = settings.home / "demo" / f".{os.getpid()}-{source.name}"
            shutil.copy2(source, beside)
            beside.replace(target)
            arrived += 1
    return arrived


def tagged(store: Store, settings: Settings, groups: Sequence[str]) -> dict[str, CurrentRow]:
    """Return the current tags of the arrivals that have any: file name -> row of the store."""
    names = {path.name for path in drawn(settings)}
    return {
        name: row
        for row in store.current.rows(groups)
        for locator in row.locators
        if (name := path_of(locator).name) in names
    }


def rejected(store: Store) -> dict[str, str]:
    """Return the rejected files of the inbox: file name -> reason."""
    return {path_of(row.locator).name: row.reason for row in store.files.rejected()}


def untagged(settings: Settings, groups: Sequence[str]) -> list[str]:
    """Return the arrivals that are not rejected and that a live model has not tagged yet."""
    with Store(settings.store_url) as store:
        complete = {
            name
            for name, row in tagged(store, settings, groups).items()
            if all(group in row.groups and not row.groups[group].stale for group in groups)
        }
        refused = rejected(store).keys()
    return [path.name for path in drawn(settings) if path.name not in complete | refused]
