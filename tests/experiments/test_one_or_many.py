"""What one network costs beside many, and what helps rare tags, is measured on other pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from experiments import costs, crossvalidate, one_or_many, rare_tags, trainers
from PIL import Image

from shoetagger.config import params as parameters

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _in_the_repo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_there_is_a_network_for_each_tag_with_what_its_group_says() -> None:
    plain = parameters.load(ROOT / "params.yaml")
    changed = crossvalidate._params(crossvalidate.recipe_of("nineteen_220"))
    assert [spec.tags for spec in changed.groups.values()] == [(tag,) for tag in plain.tags]
    for name, spec in changed.groups.items():
        [owner] = [g for g, s in plain.groups.items() if spec.tags[0] in s.tags]
        assert changed.train_of(name).pooled == plain.train_of(owner).pooled


def test_the_plot_is_of_the_results_that_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ROOT / "experiments" / "results" / "many"
    one_or_many.main(results, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == (ROOT / "docs/one_or_many.svg").read_bytes()
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| one network, frozen")]
    assert len(rows) == len(one_or_many.SIZES)
    shown = (ROOT / "docs" / "ONE_OR_MANY.md").read_text()
    assert all(row in shown for row in rows)


def test_a_difference_is_told_with_the_recipe_that_is_compared_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = json.loads((ROOT / "experiments/results/many/one_220.json").read_text())
    gain = {"macro_f1": -0.0081, "macro_f1_interval": [-0.0324, 0.0117]}
    trained = plain | {"against": {"recipe": "one_220", "scores": gain, "shrunk_05": gain}}
    (tmp_path / "one_220.json").write_text(json.dumps(plain))
    (tmp_path / "one_last_stage_220.json").write_text(json.dumps(trained))
    one_or_many.main(tmp_path, tmp_path / "plot.svg")
    shown = "-0.008 [-0.032, +0.012]"
    row = capsys.readouterr().out.splitlines()[-1]
    start = "| one, last stage trained | one network, frozen trunk | 220 | "
    assert row == f"{start}{shown} |  |  | {shown} | 3 |"


def test_without_results_the_plot_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(one_or_many.ResultsError, match="no result: run the stages `many`"):
        one_or_many.main(tmp_path, tmp_path / "plot.svg")
    assert not (tmp_path / "plot.svg").exists()


@pytest.mark.slow
def test_one_more_tag_changes_no_other_where_each_has_a_network(tmp_path: Path) -> None:
    paths = []
    for i in range(40):
        noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(noise).save(paths[-1])
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())
    tags = [tag for spec in plain["groups"].values() for tag in spec["tags"]]
    plain["groups"] = {"all_tags": {"tags": tags}}
    plain["images"]["size"] = 32
    plain["train"] |= {"weights": "none", "freeze": "none", "epochs": 3, "ema": 0.0}
    plain["train"] |= {"backbone_lr": 0.02, "head_lr": 0.02}
    truth = np.random.default_rng(3).integers(0, 2, (40, len(tags))).astype(np.uint8)
    ids = tuple(np.random.default_rng(i).bytes(32).hex() for i in range(40))
    recipe = trainers.Recipe("project", "one", pictures=24)
    task = trainers.Task(
        tuple(paths), ids, truth, parameters.parse(plain), recipe, torch.device("cpu")
    )
    alone, group = (costs._adding(task, "loafer", n, seed=1) for n in ("nineteen", "three"))
    assert alone["seconds"] > 0
    assert "pictures_changed" not in alone
    assert 0 < group["pictures_changed"] <= 1


def test_a_rare_tag_is_scored_by_heads_that_have_not_seen_the_picture() -> None:
    rng = np.random.default_rng(0)
    truth = (np.arange(60) % 6 == 0)[:, None].astype(np.uint8)
    seen = np.concatenate([truth + rng.normal(0, 0.4, truth.shape), rng.normal(size=(60, 3))], 1)
    products, folds = seen @ seen.T, np.arange(60) // 6 % 5
    scores = rare_tags._out_of_fold(products, truth, folds, most=3.0, l2=1e-3)
    changed = truth.copy()
    changed[folds == 2] = 1 - changed[folds == 2]
    again = rare_tags._out_of_fold(products, changed, folds, most=3.0, l2=1e-3)
    assert (again[folds == 2] == scores[folds == 2]).all()
    assert (again[folds != 2] != scores[folds != 2]).all()
    heavier = rare_tags._out_of_fold(products, truth, folds, most=30.0, l2=1e-3)
    assert heavier.mean() >= scores.mean()
    found = rare_tags._measured(scores, truth, folds)
    assert 0.5 < found["average_precision"][0] <= 1
