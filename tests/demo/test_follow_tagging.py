"""The demo follows the tagging runs that promotions start, on a scripted Airflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from shoetagger.config.settings import Settings
from shoetagger.demo import __main__ as demo
from shoetagger.demo.airflow_api import Airflow, DemoError, FailedRunError


@dataclass
class ScriptedAirflow:
    """Starts a run for a promotion at the third poll; a run tags what waits."""

    promotions: int = 0
    waiting: list[str] = field(default_factory=lambda: ["a.jpg"])
    polls: int = 0
    started: dict[str, str] = field(default_factory=lambda: {"night": "scheduled"})
    failing: tuple[str, ...] = ()
    followed: list[str] = field(default_factory=list)

    def is_queued(self, _: str) -> bool:
        self.polls += 1
        if self.promotions and self.polls % 3 == 0:
            self.promotions -= 1
            self.started[f"promotion {self.polls}"] = "asset_triggered"
        return self.promotions > 0

    def runs(self, _: str) -> dict[str, str]:
        return dict(self.started)

    def trigger(self, _: str, __: Mapping[str, Any]) -> str:
        self.started["by hand"] = "manual"
        return "by hand"

    def result(self, _: str, run: str, __: str) -> dict[str, str]:
        return {"summary": f"{run} is done"}

    def follow(self, _: str, run: str, __: Callable[[str], None]) -> None:
        self.followed.append(run)
        if run in self.failing:
            raise FailedRunError(f"{run} failed")
        self.waiting.clear()


def follow(airflow: ScriptedAirflow, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(demo, "untagged", lambda *_: airflow.waiting)
    monkeypatch.setattr(demo.time, "sleep", lambda _: None)
    settings = Settings.from_environment({})
    demo.follow_tagging(cast(Airflow, airflow), settings, ["color"], ["night"], lines.append)
    return lines


def test_runs_that_promotions_start_are_awaited_and_none_is_triggered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow = ScriptedAirflow(promotions=2)
    lines = follow(airflow, monkeypatch)
    assert airflow.followed == ["promotion 3", "promotion 6"]
    assert [line.split(": ")[0].strip() for line in lines] == [
        "woken by a promotion",
        "this run",
    ] * 2


def test_one_run_is_triggered_where_files_wait_and_no_promotion_starts_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow = ScriptedAirflow()
    follow(airflow, monkeypatch)
    assert airflow.followed == ["by hand"]


def test_nothing_is_triggered_where_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    airflow = ScriptedAirflow(waiting=[])
    (line,) = follow(airflow, monkeypatch)
    assert "nothing to do" in line
    assert airflow.followed == []


def test_a_promotion_that_starts_no_run_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    airflow = ScriptedAirflow(promotions=10**9)
    monkeypatch.setattr(demo, "TAGGING_BEGINS", -1.0)
    with pytest.raises(DemoError, match=r"should have started tag_new_images.*scheduler"):
        follow(airflow, monkeypatch)


def test_a_scheduled_run_that_came_before_the_first_promotion_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = {"02:00": "scheduled"}
    airflow = ScriptedAirflow(promotions=1, started=started, failing=("02:00",))
    lines = follow(airflow, monkeypatch)
    assert airflow.followed == ["02:00", "promotion 3"]
    assert any("02:00 failed" in line for line in lines)


def test_a_scheduled_run_that_failed_is_made_up_for_by_one_that_is_triggered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow = ScriptedAirflow(started={"02:00": "scheduled"}, failing=("02:00",))
    follow(airflow, monkeypatch)
    assert airflow.followed == ["02:00", "by hand"]


def test_a_run_that_fails_with_none_after_it_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow = ScriptedAirflow(started={"02:00": "scheduled"}, failing=("02:00", "by hand"))
    with pytest.raises(FailedRunError, match="by hand failed"):
        follow(airflow, monkeypatch)
    tagged = ScriptedAirflow(waiting=[], started={"02:00": "scheduled"}, failing=("02:00",))
    with pytest.raises(FailedRunError, match="02:00 failed"):
        follow(tagged, monkeypatch)
