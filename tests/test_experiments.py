"""The experiments' recipes are whole, and what judges them judges rightly."""

from __future__ import annotations

import dataclasses
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
from shoetagger.features import Examples
from shoetagger.head import cross_entropy

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
    import remedies
    import trainers

    found = {
        "article": article,
        "crossvalidate": crossvalidate,
        "judging": judging,
        "remedies": remedies,
        "trainers": trainers,
    }
    yield found
    for name in [*found, "probe"]:
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


def test_a_mirror_changes_no_symmetric_picture(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trainers = modules["trainers"]
    monkeypatch.setattr(trainers, "CACHE", tmp_path / "cache")
    paths = []
    for i in range(8):
        half = np.random.default_rng(i).integers(0, 256, (32, 16, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1)).save(paths[-1])
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())
    plain["groups"] = {"style": {"tags": ["boot", "heel"]}}
    augment = dataclasses.asdict(trainers._AS_IT_IS)  # whose draws would depend on the seed
    plain["images"] |= {"size": 32, "augment": augment}
    plain["features"]["views"] = 1
    # Without frozen stages, whose random weights would depend on the seed as well.
    plain["train"] |= {"weights": "none", "freeze": "none"}
    plain["train"] |= {"epochs": 2, "trunk_lr": 0.01, "head_lr": 0.002, "dropout": 0.0}
    truth = np.random.default_rng(9).integers(0, 2, (8, 2)).astype(np.uint8)

    def scores(seed: int, **options: object) -> np.ndarray:
        plain["train"]["seed"] = seed
        task = trainers.Task(
            paths=tuple(paths), ids=tuple(f"{i:064x}" for i in range(8)), truth=truth,
            params=parameters.parse(plain), device=torch.device("cpu"),
            recipe=trainers.Recipe("project", options=options),
        )  # fmt: skip
        found: np.ndarray = trainers.score(task, np.arange(6), np.array([6, 7]))
        return found[0]

    one = scores(1)
    assert not np.allclose(one, scores(2), atol=1e-4)
    np.testing.assert_allclose(scores(1, mirror=True), one, atol=1e-3)


def test_focused_losses_look_away_from_what_is_answered_well(
    modules: dict[str, ModuleType],
) -> None:
    remedies, weight = modules["remedies"], torch.ones(1)
    sure, truth = torch.tensor([[4.0], [-4.0]]), torch.tensor([[1.0], [0.0]])
    plain = cross_entropy(sure, truth, weight)
    assert remedies.focal(0.0)(sure, truth, weight) == pytest.approx(float(plain))
    assert remedies.focal(2.0)(sure, truth, weight) < plain / 100
    # Only the positive half of the loss is left.
    assert remedies.asymmetric(2.0)(sure, truth, weight) == pytest.approx(
        float(plain) / 2, rel=1e-2
    )
    assert remedies.focal(2.0)(-sure, truth, weight) > plain


def test_oversampling_repeats_pictures_of_rare_tags(modules: dict[str, ModuleType]) -> None:
    truth = np.zeros((4000, 3), dtype=np.uint8)
    truth[:2000, 0] = 1
    truth[:200, 1] = 1  # 5 %: the root of two times
    truth[2000:2040, 2] = 1  # 1 %: the root of ten
    found = modules["remedies"].oversampled(Examples(np.arange(4000), truth), 0.1, seed=1)
    times = np.bincount(found.rows)
    assert times[:200].mean() == pytest.approx(2**0.5, abs=0.1)
    assert times[2000:2040].mean() == pytest.approx(10**0.5, abs=0.2)
    assert set(times[200:2000]) == set(times[2040:]) == {1}
    np.testing.assert_array_equal(found.truth, truth[found.rows])
