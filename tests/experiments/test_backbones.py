"""Backbones are compared by the recipe of params.yaml, each with its own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments import backbones, trainers
from helpers.experiment import WEIGHTS, write_project


@pytest.mark.slow
def test_a_backbone_is_measured_by_what_a_head_can_see_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arch = "timm:vit_tiny_patch16_224"
    write_project(tmp_path, "style", arch, pooled=["layer3_contrast", "layer9"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainers, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(backbones, "_SECONDS", 0.1)
    backbones.main([f"{arch}={WEIGHTS}"], seeds="1", views=1)
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.startswith("| backbone | licence | macro F1 [95 %] | style | average precision |")
    assert row.startswith(f"| `{arch}` | cc-by-nc-4.0 | ")
    assert float(row.split(" | ")[-1].removesuffix(" |")) > 1  # pictures per second
    assert {p.name for p in tmp_path.glob("cache/states/*/pooled_layer4_token.npy")}
