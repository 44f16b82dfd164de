"""Checks cron lines, which Airflow would refuse only when it reads the DAG."""

from __future__ import annotations

import re
from calendar import monthrange

_LEAP_YEAR = 2028
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
    """Tell whether a text is a cron line: five fields in range, and a day that comes."""
    fields = line.lower().split()
    values = list(map(_values, fields, _FIELDS))
    return len(fields) == len(_FIELDS) and all(values) and _comes(fields[4], *values[2:4])


def _comes(weekday: str, days: set[int], months: set[int]) -> bool:
    """Tell whether a day comes, unlike the 30th of February; a day of the week always does."""
    any_weekday = "*" in weekday.split(",")
    return not any_weekday or min(days) <= max(monthrange(_LEAP_YEAR, m)[1] for m in months)


def _values(field: str, limits: tuple[int, int, dict[str, int]]) -> set[int]:
    """Return the numbers that a field stands for; none where it has a fault."""
    low, high, names = limits

    def number(word: str) -> int:
        return names[word] if word in names else int(word) if word.isdecimal() else -1

    found: set[int] = set()
    for part in field.split(","):
        if (match := _PART.fullmatch(part)) is None:
            return set()
        first, last, step = match.groups()
        begin, end = number(first), number(last or first)
        if first == "*" and last is None:
            begin, end = low, high
        elif step and last is None:
            end = high
        if not (low <= begin <= high and low <= end <= high):
            return set()
        wrapped = [*range(begin, high + 1), *range(low, end + 1)]  # such as fri-mon
        found.update((range(begin, end + 1) if begin <= end else wrapped)[:: int(step or 1)])
    return found
