"""Locks of checkouts: shared to work in one, exclusive to make or remove it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def shared(folder: Path) -> Iterator[None]:
    """Hold the checkout against removal; any number of processes may at once."""
    with _locked(folder, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def exclusive(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the checkout alone; raises BlockingIOError where it is in use and `wait` is false."""
    with _locked(folder, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB):
        yield


def cache(checkouts: Path) -> Path:
    """Return what stands for the DVC cache of all checkouts: lock it to fill or to clean that."""
    return checkouts.with_name("dvc-cache")


def lock_file(folder: Path) -> Path:
    """Return the file that is locked: beside the checkout, which may not be there yet."""
    return folder.with_name(f"{folder.name}.lock")


# By flock, not by filelock: its FileLock knows no shared lock, and its ReadWriteLock is a SQLite
# database that must not be removed, as the lock file of a pruned checkout is.
@contextlib.contextmanager
def _locked(folder: Path, mode: int) -> Iterator[None]:
    path = lock_file(folder)
    while True:
        with path.open("a+") as file:  # NFS locks a file for reading only where it may be read
            fcntl.flock(file, mode)
            try:
                current = os.fstat(file.fileno()).st_ino == path.stat().st_ino
            except FileNotFoundError:
                current = False
            if current:
                yield
                return
        # `prune` removed the file while we waited, so the lock we hold is no longer the checkout's.
