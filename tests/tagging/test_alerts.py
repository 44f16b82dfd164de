"""A night that is not as usual is done all the same; then it fails and says why, to people too."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.webhook import webhook

from shoetagger.config import params
from shoetagger.errors import ShoetaggerError
from shoetagger.logfmt import event
from shoetagger.tagging.alerts import alert_on_failure
from shoetagger.tagging.drift import unusual

TAG = params.load(Path(__file__).parents[2] / "params.yaml").tag
USUAL = [{"boot": (has, 100), "red": (1, 100)} for has in (20, 24, 18, 22, 19, 21, 23, 17)]


def reasons(
    tagged: int = 100,
    rejected: int = 0,
    boot: int = 20,
    past: object = None,
    deferred: int = 0,
    waiting: int = 0,
    backlog: int = 0,
    known: int = 0,
    had_time: bool = True,
) -> list[str]:
    counts = {"tagged": tagged, "rejected": rejected, "deferred": deferred, "waiting": waiting}
    counts |= {"backlog": backlog}
    rates = {"boot": (boot, tagged), "red": (1, tagged)} if tagged else {}
    nights = USUAL if past is None else past
    return unusual(counts, rates, nights, TAG, known=known, had_time=had_time)  # type: ignore[arg-type]


def test_a_usual_night_raises_no_alert() -> None:
    assert reasons() == []
    assert reasons(boot=26) == []
    assert reasons(tagged=0) == []


def test_too_many_rejected_files_are_an_alert_that_says_how_many() -> None:
    at_most = int(100 * TAG.max_rejected)
    assert reasons(tagged=100 - at_most, rejected=at_most, past=[]) == []
    (reason,) = reasons(tagged=99 - at_most, rejected=at_most + 1, past=[])
    assert reason.startswith(f"{at_most + 1} of 100 files were rejected")
    assert "tag.max_rejected" in reason


def test_a_few_rejected_files_of_a_few_are_no_alert() -> None:
    assert reasons(tagged=0, rejected=TAG.alert_from - 1) == []
    assert reasons(tagged=0, rejected=TAG.alert_from) != []


def test_an_arrival_that_nobody_read_is_an_alert_and_one_left_to_the_next_run_is_none() -> None:
    assert reasons(deferred=3, waiting=3) == []
    (reason,) = reasons(deferred=3, waiting=4)
    assert reason.startswith("1 arrivals are still to be tagged")
    assert "tag.budget_minutes" in reason


def test_many_files_that_could_not_be_read_are_an_alert() -> None:
    assert reasons(deferred=30, waiting=30) == []
    (reason,) = reasons(deferred=60, waiting=60)
    assert reason.startswith("60 of 160 files could not be read")
    assert reasons(tagged=0, deferred=TAG.alert_from - 1, waiting=TAG.alert_from - 1) == []


def test_many_known_pictures_that_could_not_be_read_are_an_alert() -> None:
    (reason,) = reasons(backlog=60, known=100)
    assert reason.startswith("60 of 100 known pictures could not be read")
    assert reasons(backlog=30, known=100) == []
    assert reasons(backlog=60, known=1_000_000) == [], "some few stay unreadable for good"
    assert reasons(backlog=TAG.alert_from - 1, known=TAG.alert_from) == []
    assert reasons(backlog=60, known=100, had_time=False) == [], "the next run goes on with them"


@pytest.mark.parametrize("boot", [0, 60])
def test_a_tag_out_of_its_usual_range_is_an_alert_that_names_it(boot: int) -> None:
    (reason,) = reasons(boot=boot)
    assert reason.startswith(f"tag boot: {boot} of 100 pictures ({boot}%) have it")
    assert "usual in 8 nights" in reason


def test_drift_needs_a_past_and_pictures() -> None:
    assert reasons(boot=90, past=USUAL[: TAG.drift.min_nights - 1]) == []
    assert reasons(boot=90, past=USUAL[: TAG.drift.min_nights]) != []
    assert reasons(tagged=TAG.alert_from - 1, boot=TAG.alert_from - 1) == []


def test_nights_that_differ_much_by_nature_widen_the_range() -> None:
    wild = [{"boot": (has, 100)} for has in (5, 60, 20, 45, 10, 70, 30, 55)]
    assert reasons(boot=80, past=wild) == []


def test_a_failure_is_told_and_stays_one(caplog: pytest.LogCaptureFixture) -> None:
    with webhook() as (url, received):
        reported = alert_on_failure(f"broken {url}", "a night cannot begin")
        with pytest.raises(ShoetaggerError, match="the reason"), reported:
            raise ShoetaggerError("the reason")
    assert received == [
        {
            "summary": "a night cannot begin",
            "state": "failed",
            "alerts": ["the reason"],
            "path": "/hook/s3cret",
        }
    ]
    assert caplog.text.count("event=not_notified") == 1


def test_a_log_line_stays_one_line_whatever_a_file_is_called() -> None:
    assert event("rejected", picture="ab12", reason="empty file") == (
        'event=rejected picture=ab12 reason="empty file"'
    )
    hostile = event("rejected", file='a b\n"event=night rejected=0', picture=None)
    assert hostile == 'event=rejected file="a b\\n\\"event=night rejected=0"'
    assert event("x", file="\ud800\x1b[2J") == 'event=x file="\\ud800\\u001b[2J"'
