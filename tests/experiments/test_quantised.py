"""The frozen backbone in int8 is measured beside the same in bfloat16."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from benchmarks.int8 import RUNTIMES
from experiments import quantised
from helpers.experiment import WEIGHTS, write_project


@pytest.mark.slow
def test_each_is_timed_and_cross_validated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path, "color", "resnet18", weights=str(WEIGHTS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quantised, "_CALIBRATION", 8)
    monkeypatch.setattr(quantised, "RUNTIMES", {"torch": RUNTIMES["torch"]})
    quantised.main(seeds="1", views=1, rounds=1)
    printed = capsys.readouterr().out
    speed, quality = printed.split("\n\n")
    rates = re.findall(r"\| (\w+), 1 at a time \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \|", speed)
    assert [name for name, *_ in rates] == ["bfloat16", "torch"]
    by_hand = float(rates[1][1]) / float(rates[0][1])
    assert float(rates[1][2]) == pytest.approx(by_hand, abs=0.02)
    assert np.all([float(rate) > 1 for _, rate, _ in rates])
    rows = re.findall(r"\| (\w+) \| [\d.]+ \| ([\d.]+) \[.*\| ([+-][\d.]+) \[", quality)
    (_, reference, none), (_, other, difference) = rows
    assert float(none) == 0
    assert float(difference) == pytest.approx(float(other) - float(reference), abs=0.002)
