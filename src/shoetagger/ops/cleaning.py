"""What nothing needs any more is deleted: predictions, runs, bundles, checkouts, caches, logs.

`keep.*` of params.yaml says how much stays. Corrections, the ledger, what people had erased, and
the tags that are current are never deleted; pages are bounded whenever they are published.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel

from ..config.settings import PREVIEWS
from ..errors import ShoetaggerError
from ..pipeline import cache, checkout
from ..storage.places import published_at
from ..tracking import outbox
from .environment import MARK, Ports, airflow_home, script_path, task_logs, whole_environment
from .installation import Installation

_PREDICTION_BYTES = 300  # of a row, measured with three groups of five to seven tags
_DAY = 24 * 3600.0


class CleaningError(ShoetaggerError):
    """Something cannot be cleaned at the moment."""


class Cleaned(BaseModel, frozen=True, extra="forbid"):
    """How many things of a kind were deleted, or would be, and how many bytes that frees."""

    kind: str
    number: int = 0
    size: int = 0
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.kind}: {self.number:,}, {self.size / 1e6:,.1f} MB{note}"


def clean(here: Installation, *, dry_run: bool = False) -> list[Cleaned]:
    """Delete what `keep.*` does not keep, or say what would be; a kind that cannot be is noted.

    Safe beside a night and a training run: what these use is left out, or waits for the next time.
    """
    kinds: dict[str, Callable[[Installation, bool], Cleaned]] = {
        "predictions": _predictions,
        "tagging runs": _runs,
        "bundles": _bundles,
        "previews": _previews,
        "checkouts": _checkouts,
        "files in DVC's cache": _dvc_cache,
        "runs in the outbox": _outbox,
        "rows of Airflow": _airflow,
        "logs of tasks": _task_logs,
    }
    cleaned = []
    for kind, function in kinds.items():
        try:
            cleaned.append(function(here, dry_run).model_copy(update={"kind": kind}))
        except (ShoetaggerError, OSError) as error:
            cleaned.append(Cleaned(kind=kind, note=f"left alone: {error}"))
    return cleaned


def _predictions(here: Installation, dry_run: bool) -> Cleaned:
    groups = list(here.params.groups)
    found = here.store.cleaning.predictions(groups, here.params.keep.rollbacks, dry_run=dry_run)
    again = [
        f"{version.group} version {version.version}"
        for version in here.store.ledger.versions()
        if found[version.digest] and version.group in groups
    ]
    note = f"after a rollback to them, tagged again: {', '.join(again)}" if again else ""
    number = found.total()
    return Cleaned(kind="", number=number, size=number * _PREDICTION_BYTES, note=note)


def _runs(here: Installation, dry_run: bool) -> Cleaned:
    nights = here.params.tag.drift.nights
    number = here.store.cleaning.runs(_cutoff(here), 2 * nights, dry_run=dry_run)
    return Cleaned(kind="", number=number)


def _bundles(here: Installation, dry_run: bool) -> Cleaned:
    """Of the local cache; the registry keeps them all. A day old: nothing just fetched goes."""
    groups, keep = list(here.params.groups), here.params.keep
    needed = here.store.cleaning.needed(groups, keep.rollbacks)
    old = [
        folder
        for folder in here.settings.bundles.glob("*")
        if folder.name not in needed and time.time() - folder.stat().st_mtime > _DAY
    ]
    return _removed(old, dry_run)


def _previews(here: Installation, dry_run: bool) -> Cleaned:
    until = time.time() - here.params.keep.preview_days * _DAY
    storage = published_at(here.settings.published)
    listed = storage.listed(PREVIEWS).items()
    old = {name: stamp.size for name, stamp in listed if stamp.modified < until}
    if not dry_run:
        storage.remove(old)
    return Cleaned(kind="", number=len(old), size=sum(old.values()))


def _checkouts(here: Installation, dry_run: bool) -> Cleaned:
    folder, keep = here.settings.checkouts, here.params.keep.checkouts
    beyond = checkout.beyond(folder, keep)
    size = sum(map(_size, beyond))
    number = len(beyond) if dry_run else len(checkout.prune(folder, keep))
    return Cleaned(kind="", number=number, size=size)


def _dvc_cache(here: Installation, dry_run: bool) -> Cleaned:
    sizes = cache.collect(here.settings, dry_run=dry_run)
    return Cleaned(kind="", number=len(sizes), size=sum(sizes.values()))


def _outbox(here: Installation, dry_run: bool) -> Cleaned:
    folder = here.settings.outbox
    places = (*folder.glob("*"), *outbox.faulty(folder).glob("*"))
    before = {path.name: _size(path) for path in places if path.is_dir()}
    dropped = outbox.trim(folder, here.params.keep.outbox_mb, dry_run=dry_run)
    return Cleaned(kind="", number=len(dropped), size=sum(before.get(name, 0) for name in dropped))


def _airflow(here: Installation, dry_run: bool) -> Cleaned:
    """Of our own Airflow; the database of another one is that one's business."""
    if not (airflow_home(here.settings) / "airflow.db").is_file():
        return Cleaned(kind="", note="no Airflow of ours")
    environment = whole_environment(here.settings, Ports())
    del environment[MARK]  # not a server: `down` in another terminal must not end it
    command = [script_path("airflow"), "db", "clean", "--yes", "--skip-archive"]
    command += ["--clean-before-timestamp", _cutoff(here).isoformat(timespec="seconds")]
    done = subprocess.run(
        [*command, *(["--dry-run"] if dry_run else [])],
        env=environment, capture_output=True, text=True, errors="replace", timeout=3600,
    )  # fmt: skip
    if done.returncode:
        reason = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise CleaningError(f"airflow db clean failed: {reason[-1]}")
    rows = re.findall(r"Found (\d+) rows meeting deletion criteria", done.stdout)
    return Cleaned(kind="", number=sum(map(int, rows)))


def _task_logs(here: Installation, dry_run: bool) -> Cleaned:
    root, until = task_logs(here.settings), _cutoff(here).timestamp()
    old = [path for path in root.rglob("*") if path.lstat().st_mtime < until]
    folders = [path for path in old if path.is_dir() and not path.is_symlink()]
    cleaned = _removed([path for path in old if path.is_file()], dry_run)
    if not dry_run:
        for folder in sorted(folders, reverse=True):
            if not any(folder.iterdir()):
                folder.rmdir()
    return cleaned


def _cutoff(here: Installation) -> datetime:
    return datetime.now(UTC) - timedelta(days=here.params.keep.run_days)


def _removed(paths: Iterable[Path], dry_run: bool) -> Cleaned:
    number = size = 0
    for path in paths:
        number, size = number + 1, size + _size(path)
        if dry_run:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return Cleaned(kind="", number=number, size=size)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())
