"""What a labelling tool says of pictures, whatever its format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from ..errors import ShoetaggerError

T = TypeVar("T")


class ExchangeError(ShoetaggerError):
    """A file of another tool cannot be read, or says what the label sheet cannot take.

    One line per fault, also in `faults`.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


@dataclass(frozen=True)
class Labelled:
    """One answer: the labels that somebody gave to a picture.

    `file` is the picture as the tool names it, a path or an address; `where` is the place in the
    file. `by` and `at` (YYYY-MM-DD) say who answered and when, "" where the tool does not.
    """

    file: str
    labels: frozenset[str]
    where: str
    by: str = ""
    at: str = ""


@dataclass(frozen=True)
class LabelFile:
    """All answers of a file, and what was asked.

    `choices` are the labels that people could choose. `questions` are the names under which some
    tools keep labels of one kind; where one is a group's name, all tags of that group were asked.
    `without` counts pictures that nobody has answered.
    """

    answers: tuple[Labelled, ...]
    choices: frozenset[str] = frozenset()
    questions: frozenset[str] = frozenset()
    without: int = 0


@dataclass(frozen=True)
class LabelledImage:
    """A row of the label sheet on its way to another tool: `size` is (width, height).

    `tags` are by group; `extra` are the cells of further columns.
    """

    name: str
    size: tuple[int, int]
    tags: Mapping[str, tuple[str, ...]]
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Vocabulary:
    """The groups with their tags, and what people read for those that have a title."""

    groups: Mapping[str, tuple[str, ...]]
    titles: Mapping[str, str]


def validated(kind: type[T], document: object, name: str, advice: str) -> T:
    """Return parsed JSON as typed records; raises ExchangeError with a line per fault.

    `name` is the file's; `advice` says what to do where it is of another kind.
    """
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        places = [".".join(map(str, fault["loc"])) or "the whole" for fault in faults]
        lines = [f"{name}, {p}: {f['msg']}" for p, f in zip(places, faults, strict=True)]
        raise ExchangeError([*lines, advice]) from None
