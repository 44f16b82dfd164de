"""The experiments' recipes are whole, and what judges them judges rightly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from shoetagger import params as parameters

ROOT = Path(__file__).parents[1]
GROUPS = {"color": ("black", "white"), "style": ("boot",)}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts of experiments/, which import each other by name."""
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    monkeypatch.chdir(ROOT)
    import article
    import crossvalidate
    import judging

    found = {"article": article, "crossvalidate": crossvalidate, "judging": judging}
    yield found
    for name in [*found, "probe", "trainers"]:
        sys.modules.pop(name, None)


def test_every_recipe_makes_valid_parameters_and_is_run_by_a_stage(
    modules: dict[str, ModuleType],
) -> None:
    document = yaml.safe_load((ROOT / "experiments" / "recipes.yaml").read_text())
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert set(document["choosing"]) | set(document["reporting"]) == set(document["recipes"])
    for name in document["recipes"]:
        recipe = modules["crossvalidate"]._recipe(name)
        changed = parameters.parse(modules["crossvalidate"]._changed(plain, recipe))
        assert changed.tags == parameters.parse(plain).tags


def test_figures_count_a_picture_of_several_seeds_once(modules: dict[str, ModuleType]) -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((60, 3)) < 0.4).astype(np.uint8)
    folds = np.arange(60) % 5
    right = modules["judging"].Scored(folds, truth * 0.8 + 0.1, np.full((60, 3), np.nan))
    wrong = modules["judging"].Scored(folds, 0.9 - truth * 0.8, truth * 0.8 + 0.1)
    one = modules["judging"].figures(truth, GROUPS, [right], None)
    # A group of two tags answers one of them even where neither passes, a group of one may not.
    assert one["tags"]["boot"] == 1.0
    assert one["mean_average_precision"] == 1.0
    assert "composites" not in one
    twice = modules["judging"].figures(truth, GROUPS, [right, right], None)
    assert twice["macro_f1_interval"] == pytest.approx(one["macro_f1_interval"], abs=0.02)
    assert twice["judged"] == 120
    both = modules["judging"].figures(truth, GROUPS, [right, wrong], None)
    assert both["macro_f1"] < one["macro_f1"]
    other = modules["judging"].figures(truth, GROUPS, [wrong], None)
    assert other["composites"]["tags"]["boot"] == 1.0
    assert other["tags"]["boot"] == 0.0


def test_folds_that_were_not_judged_are_left_out(modules: dict[str, ModuleType]) -> None:
    truth = np.array([[1, 0, 1], [0, 1, 0]] * 10, dtype=np.uint8)
    folds = np.arange(20) // 4
    scores = np.where(folds[:, None] == 0, truth * 0.9, np.nan)
    found = modules["judging"].Scored(folds, scores, np.full((20, 3), np.nan))
    assert modules["judging"].figures(truth, GROUPS, [found], None)["judged"] == 4


def test_the_articles_network_trains_and_scores(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules["article"], "EPOCHS", 1)
    pictures = [Image.new("RGB", (80, 60), (40 * i, 0, 0)) for i in range(4)]
    truth = np.array([[1, 0, 1]] * 4, dtype=np.uint8)
    found = modules["article"].train_and_score(
        pictures, truth, pictures[:3], seed=1, options={"weights": "none"},
        device=torch.device("cpu"),
    )  # fmt: skip
    assert found.shape == (3, 3)
    assert ((found > 0) & (found < 1)).all()
