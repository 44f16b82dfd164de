"""`shoetagger backfill` as a process of its own, beside a night."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.installation import install, make_live, predictions, put_pictures

from shoetagger.config.settings import Settings
from shoetagger.orchestration.nightly import night
from shoetagger.store.store import Store


def start(settings: Settings, *command: str) -> subprocess.Popen[str]:
    environment = os.environ | replace(settings, device="cpu").as_environment()
    return subprocess.Popen(
        [sys.executable, "-m", "shoetagger.cli.app", *command],
        env=environment | {"OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_backfill_beside_a_night_tags_each_picture_once_and_then_finds_nothing(
    tmp_path: Path,
) -> None:
    settings = install(tmp_path)
    put_pictures(settings, 20)
    night(settings, "night")
    make_live(settings, "color", head_seed=7)
    put_pictures(settings, 5, seed=1)
    both = start(settings, "backfill"), start(settings, "night")
    outputs = [process.communicate(timeout=500) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    with Store(settings.store_url) as store:
        runs = {run.kind: run for run in store.runs.latest(2)}
        assert {kind: run.state for kind, run in runs.items()} == {
            "backfill": "done", "manual": "done",
        }  # fmt: skip
        assert runs["manual"].counts["tagged"] == 5
        assert sum(run.counts["retagged"] for run in runs.values()) == 20
        assert not any(run.alerts for run in runs.values())
        assert store.current.counts(["color"]).groups["color"].stale == 0
    assert len(predictions(settings)) == 25
    again = start(settings, "backfill")
    assert "no picture lacks" in again.communicate(timeout=300)[0]
