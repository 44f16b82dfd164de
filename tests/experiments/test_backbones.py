"""Backbones are compared by the recipe of params.yaml, each with its own weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from experiments import backbones, trainers
from helpers.sample import copy_sample
from safetensors.torch import save_file

from shoetagger.network.libraries import library

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_backbone_is_measured_by_what_a_head_can_see_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["images"]["size"] = 32
    document["groups"] = {"style": document["groups"]["style"]}
    document["train"]["pooled"] = ["layer3_contrast", "layer9"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    copy_sample(tmp_path / "data", 30)
    file = Path("data/weights/random.safetensors")
    (tmp_path / file.parent).mkdir()
    network = library(arch := "timm:vit_tiny_patch16_224")[0].create("vit_tiny_patch16_224")
    save_file(network.state_dict(), tmp_path / file, {"license": "cc-by-nc-4.0"})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainers, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(backbones, "_SECONDS", 0.1)
    backbones.main([f"{arch}={file}"], seeds="1", views=1)
    head, _, row = capsys.readouterr().out.splitlines()
    assert head.startswith("| backbone | licence | macro F1 [95 %] | style | average precision |")
    assert row.startswith(f"| `{arch}` | cc-by-nc-4.0 | ")
    assert float(row.split(" | ")[-1].removesuffix(" |")) > 1  # pictures per second
    assert {p.name for p in tmp_path.glob("cache/states/*/pooled_layer4_token.npy")}
