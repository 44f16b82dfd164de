"""What the benchmark of `make cluster` makes of what it measured."""

from __future__ import annotations

import pytest
from benchmarks.cluster import Night, difference, report, tagging_seconds, trained

ROW = {"locator": "a", "color_tags": ["black"], "score_black": 0.75}


def test_the_time_of_tagging_is_without_what_comes_before_and_after() -> None:
    samples = [(0.0, 0), (4.0, 0), (5.0, 8), (6.0, 20), (9.0, 32), (10.0, 32)]
    assert tagging_seconds(samples) == 5.0


def test_rows_may_differ_in_scores_alone_and_the_largest_difference_is_told() -> None:
    first = {"a": ROW, "b": ROW}
    assert difference(first, {"a": ROW, "b": {**ROW, "score_black": 0.5}}) == 0.25
    with pytest.raises(RuntimeError, match=r"^b: color_tags is \['white'\], and was \['black'\]"):
        difference(first, {"a": ROW, "b": {**ROW, "color_tags": ["white"]}})
    with pytest.raises(RuntimeError, match="1 pictures are in one table only"):
        difference(first, {"a": ROW})


def test_a_log_tells_which_groups_a_worker_trained() -> None:
    log = "".join(
        f"log_path='dag_id=train_tag_models/run_id=1/task_id=model.{task}/attempt=1.log'\n"
        for task in ("train/map_index=2", "crossval/map_index=1", "train/map_index=0")
    )
    assert trained(log * 2) == ["0", "2"]


def test_the_report_tells_what_the_death_of_a_worker_cost() -> None:
    nights = [
        Night("two workers", 100.0, 60.0, 50.0, 110.0, (1, 1), None),
        Night("one killed", 250.0, 200.0, 15.0, 120.0, (1, 2), 800),
        Night("one worker", 110.0, 70.0, 43.0, 109.0, (1, 1), None),
    ]
    told = report("a machine", 3000, nights).splitlines()
    assert "| one killed | 250 | 200 | 15 | 120 |" in told
    assert told[-1] == "killed after 800 pictures: 150 s longer"
