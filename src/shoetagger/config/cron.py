"""Checks cron lines, which Airflow would refuse only when it reads the DAG."""

from __future__ import annotations

import re

_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
# Minute, hour, day of the month, month, day of the week: smallest and largest number, and names.
_FIELDS: tuple[tuple[int, int, dict[str, int]], ...] = (
    (0, 59, {}),
    (0, 23, {}),
    (1, 31, {}),
    (1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    (0, 7, {name: number for number, name in enumerate(_DAYS)}),
)
_PART = re.compile(r"(\*|\w+)(?:-(\w+))?(?:/([1-9]\d*))?")


def is_cron(line: str) -> bool:
    """Tell whether a text is a cron line of five fields whose numbers and names are in range."""
    fields = line.lower().split()
    return len(fields) == len(_FIELDS) and all(map(_fits, fields, _FIELDS))


def _fits(field: str, limits: tuple[int, int, dict[str, int]]) -> bool:
    low, high, names = limits

    def number(word: str) -> int:
        return names[word] if word in names else int(word) if word.isdecimal() else -1

    for part in field.split(","):
        if (found := _PART.fullmatch(part)) is None:
            return False
        first, last, _ = found.groups()
        if first == "*" and last is None:
            continue
        if not all(low <= number(word) <= high for word in (first, last or first)):
            return False
    return True
