"""The picture files that the rows of a label sheet name."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from .sheet import Formula, folded, shown, text_of


class ImageFiles:
    """The regular files below images/, by their names in any Unicode normal form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: set[str] = set()
        self._by_form: dict[str, list[str]] = {}
        self._by_case: dict[str, str] = {}
        for directory, _, leaves in os.walk(folder):
            for leaf in leaves:
                path = Path(directory, leaf)
                if path.is_file():
                    name = path.relative_to(folder).as_posix()
                    self._names.add(name)
                    self._by_form.setdefault(unicodedata.normalize("NFC", name), []).append(name)
                    self._by_case[folded(name)] = name

    def resolve(self, cell: object, where: str, faults: list[str]) -> str | None:
        """Return the file's name as on disk; None, and a new fault, if there is no such file."""
        if text_of(cell) == "":
            faults.append(f"{where}: '' is no file name: name the picture, or clear the row")
            return None
        if isinstance(cell, Formula):
            faults.append(f"{where}: {shown(cell)} names no file")
            return None
        for spelling in (str(cell), text_of(cell)):  # a name may really start with a space
            name = posixpath.normpath(spelling)
            if name.startswith(("/", "../")) or name == "..":
                faults.append(f"{where}: {spelling!r} leaves {self.folder}: name a file in it")
                return None
            if name in self._names:
                return name
        same = self._by_form.get(unicodedata.normalize("NFC", name), [])
        if len(same) == 1:
            return same[0]
        if same:
            faults.append(
                f"{where}: {spelling!r} could be any of {len(same)} files in {self.folder} that "
                "differ only in how their accents are encoded: rename all but one"
            )
            return None
        near = self._by_case.get(folded(name))
        hint = f"; there is {near!r}" if near else "; add the picture, or remove the row"
        faults.append(f"{where}: {spelling!r} is no file in {self.folder}{hint}")
        return None

    def without(self, names: Iterable[str]) -> list[str]:
        """Return the files that are not among `names`, sorted; hidden ones are left out."""
        rest = self._names.difference(names)
        return sorted(name for name in rest if not posixpath.basename(name).startswith("."))
