"""Several files and folders replaced together: all of them or none, even if the process is killed.

The new ones are made beside their places, under hidden names, and then renamed. A journal says
whether they were complete when the process died: a later one then moves them, or else removes them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..atomic import atomic_write

_JOURNAL = "journal.json"
# Files that SQLite keeps beside a database. Beside another database, they would destroy it.
_COMPANIONS = ("-wal", "-shm", "-journal")


class Replacement:
    """The places that are to be replaced, and the folder of the journal.

    `folder` may hold other files that are needed until the end, and the journal a `note` on them.
    """

    def __init__(
        self, folder: Path, places: Sequence[Path], note: str = "", *, decided: bool = False
    ) -> None:
        self.folder, self.places, self.note = folder, tuple(places), note
        self.decided = decided

    @classmethod
    def interrupted(cls, folder: Path) -> Replacement | None:
        """Return what a process that was killed has left to be moved or abandoned, or None."""
        try:
            document = json.loads((folder / _JOURNAL).read_bytes())
        except FileNotFoundError:
            return None
        places = [Path(place) for place in document["places"]]
        return cls(folder, places, document["note"], decided=document["decided"])

    def prepare(self) -> None:
        """Write the journal, and remove what may lie where the new files will be made."""
        _remove(self.folder)
        self.folder.mkdir(parents=True)
        self._write_journal()
        for place in self.places:
            place.parent.mkdir(parents=True, exist_ok=True)
            for left_over in (*_files(new_of(place)), *_files(_old_of(place))):
                _remove(left_over)

    def decide(self) -> None:
        """Note that everything new is complete: even if this process dies, it will be moved."""
        os.sync()
        self.decided = True
        self._write_journal()

    def move(self) -> None:
        """Move what is new into place; what a process that was killed has moved stays there."""
        for place in self.places:
            _move(place)
        os.sync()

    def move_back(self) -> None:
        """Undo `move`, even if that has failed half-way."""
        for place in self.places:
            _move_back(place)

    def finish(self) -> None:
        """Remove what was replaced, and the journal."""
        for place in self.places:
            for old in _files(_old_of(place)):
                with contextlib.suppress(OSError):  # harmless, and the next `prepare` names it
                    _remove(old)
        _remove(self.folder)

    def abandon(self) -> None:
        """Remove the new files and folders, and the journal."""
        # The journal first: some of what was decided must not be moved without the rest.
        (self.folder / _JOURNAL).unlink(missing_ok=True)
        for place in self.places:
            for new in _files(new_of(place)):
                _remove(new)
        _remove(self.folder)

    def _write_journal(self) -> None:
        document = {
            "decided": self.decided,
            "places": [str(place) for place in self.places],
            "note": self.note,
        }
        with atomic_write(self.folder / _JOURNAL) as file:
            file.write(json.dumps(document, indent=1).encode())
            file.flush()
            os.fsync(file.fileno())


def new_of(place: Path) -> Path:
    """Return where the new file or folder of a place is made."""
    return place.with_name(f".{place.name}.new")


def _old_of(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _files(path: Path) -> list[Path]:
    """Return a file or folder and, as the path of a database, its companions; the main one last."""
    return [*(path.with_name(path.name + suffix) for suffix in _COMPANIONS), path]


def _move(place: Path) -> None:
    new, old = new_of(place), _old_of(place)
    if not os.path.lexists(new):  # by a process that was killed afterwards
        return
    for there, aside in zip(_files(place), _files(old), strict=True):
        if os.path.lexists(aside):
            _remove(there)  # made by another process since a killed one had moved the old one
        elif os.path.lexists(there):
            there.rename(aside)
    new.rename(place)


def _move_back(place: Path) -> None:
    new, old = new_of(place), _old_of(place)
    if not os.path.lexists(new):
        place.rename(new)
    for there, aside in zip(_files(place), _files(old), strict=True):
        if os.path.lexists(aside):
            aside.rename(there)


def _remove(path: Path) -> None:
    """Remove a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
