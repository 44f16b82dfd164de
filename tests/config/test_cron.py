"""Cron lines that pass are those that Airflow takes, so that a typo is no import error at night."""

from __future__ import annotations

import pytest
from croniter import CroniterBadDateError, croniter

from shoetagger.config.cron import is_cron


@pytest.mark.parametrize(
    "line",
    [
        "0 2 * * *", "*/15 * * * *", "30 1,13 * * mon-fri", "0 0-6/2 1 jan,JUL *", "59 23 31 12 7",
        " 0  2 * * 0 ", "5 4 * * SUN", "0 2 29 2 *", "0 2 31 2-4 *", "0 2 31 nov-jan *",
        "0 2 31 4/2 *", "0 2 */30 2 *", "0 2 30 2 mon",
    ],
)  # fmt: skip
def test_cron_lines_pass(line: str) -> None:
    assert is_cron(line)
    assert croniter.is_valid(line.strip())


@pytest.mark.parametrize(
    "line",
    [
        "", "0 2 * *", "0 2 * * * *", "60 2 * * *", "0 25 * * *", "0 2 0 * *", "0 2 32 * *",
        "0 2 * 13 *", "0 2 * * 8", "0 2 * * funday", "0 2 * jan-foo *", "0 2-26 * * *",
        "*/0 * * * *", "0 2, * * *", "0 -2 * * *", "0 2 * * mon-", "@ 2 * * *",
    ],
)  # fmt: skip
def test_what_is_out_of_range_or_no_number_does_not(line: str) -> None:
    assert not is_cron(line)
    assert not (len(line.split()) == 5 and croniter.is_valid(line))


@pytest.mark.parametrize(
    "line", ["0 2 30 2 *", "0 2 31 apr,jun *", "0 2 31 2-4/2 *", "0 2 30/2 2 *", "0 2 30 2 *,1"]
)
def test_a_day_that_never_comes_does_not(line: str) -> None:
    assert not is_cron(line)
    with pytest.raises(CroniterBadDateError):
        croniter(line).get_next()
