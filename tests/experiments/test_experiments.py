"""The experiments' recipes are whole, and their metrics are right."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import grimp
import numpy as np
import pytest
import torch
import yaml
from experiments import article, crossvalidate, imbalance, resizing, scoring, table, trainers
from helpers.imported import files_run_by, lies_in
from PIL import Image

from shoetagger.config import params as parameters
from shoetagger.images.decode import Limits
from shoetagger.learning.training.examples import Examples
from shoetagger.learning.training.head import cross_entropy

ROOT = Path(__file__).parents[2]
GROUPS = {"color": ("black", "white"), "style": ("boot",)}


@pytest.fixture(autouse=True)
def _in_the_repo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
def test_every_recipe_makes_valid_parameters_and_is_run_by_a_stage() -> None:
    document = yaml.safe_load((ROOT / "experiments" / "recipes.yaml").read_text())
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())
    run = [name for part, names in document.items() if part != "recipes" for name in names]
    assert sorted(run) == sorted(document["recipes"])
    for name in document["recipes"]:
        recipe = crossvalidate.recipe_of(name)
        changed = parameters.parse(crossvalidate._changed(plain, recipe))
        assert changed.tags == parameters.parse(plain).tags


def test_the_stages_declare_the_code_that_they_run() -> None:
    graph = grimp.build_graph(
        "shoetagger", "experiments", exclude_type_checking_imports=True, cache_dir=None
    )
    stages = yaml.safe_load((ROOT / "experiments" / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        if name == "one_or_many":  # it computes nothing
            continue
        described = stage.get("do", stage)
        [module] = re.findall(r"python -m (experiments\.\w+)", described["cmd"])
        upstream = graph.find_upstream_modules(module)
        ours = {module} | {m for m in upstream if m.startswith("experiments.")}
        used = {
            imported
            for each in ours
            for imported in graph.find_modules_directly_imported_by(each)
            if imported.startswith("shoetagger.")
        }
        run = files_run_by(*used) | {f"{each.replace('.', '/')}.py" for each in ours}
        declared = [dep for dep in described["deps"] if dep != "data"]
        assert not [file for file in run if not any(lies_in(file, dep) for dep in declared)]
        assert not [dep for dep in declared if not any(lies_in(file, dep) for file in run)]


def rule(**changed: object) -> object:
    keys = {"groups": GROUPS, "min_positives": 1, "shrink": None} | changed
    return scoring.Rule(**keys)


@pytest.mark.slow
def test_metrics_count_a_picture_of_several_seeds_once() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((60, 3)) < 0.4).astype(np.uint8)
    folds = np.arange(60) % 5
    metrics, usual = scoring.metrics, rule()
    right = scoring.Scored(folds, truth * 0.8 + 0.1, {})
    wrong = scoring.Scored(folds, 0.9 - truth * 0.8, {"shrunk_07": truth * 0.8 + 0.1})
    one = metrics(usual, truth, [right])
    # A group of two tags predicts one of them even where neither passes, a group of one may not.
    assert one["tags"]["boot"] == 1.0
    assert one["mean_average_precision"] == 1.0
    assert "composites" not in one
    twice = metrics(usual, truth, [right, right])
    assert twice["macro_f1_interval"] == pytest.approx(one["macro_f1_interval"], abs=0.02)
    assert (twice["evaluated"], twice["pictures_evaluated"]) == (120, 60)
    assert twice["support"] == one["support"]
    both = metrics(usual, truth, [right, wrong])
    assert both["macro_f1"] < one["macro_f1"]
    other = metrics(usual, truth, [wrong])
    assert other["shrunk_07"]["tags"]["boot"] == 1.0
    assert "composites" not in other
    assert other["tags"]["boot"] == 0.0


def test_a_tag_of_few_pictures_is_not_measurable() -> None:
    truth = np.array([[1, 0, 1], [0, 1, 0]] * 10, dtype=np.uint8)
    truth[4:, 2] = 0  # two boots, evaluated three times: still two
    scored = scoring.Scored(
        np.arange(20) % 5, truth * 0.9, {"composites": np.full((20, 3), np.nan)}
    )
    found = scoring.metrics(rule(min_positives=3), truth, [scored] * 3)
    assert found["tags"] == {"black": 1.0, "white": 1.0, "boot": "not measurable"}
    assert found["groups_f1"]["style"]["macro_f1"] == "not measurable"
    assert found["macro_f1"] == 1.0


def test_a_fold_is_not_evaluated_by_thresholds_from_itself() -> None:
    truth = np.tile([[1], [0]], (10, 1)).astype(np.uint8)
    folds = np.repeat([0, 1], 10)
    # Each fold can be told apart, at a level that the other's threshold has no idea of.
    scores = np.where(folds[:, None] == 0, 0.6, 0.1) + truth * 0.2
    scored = scoring.Scored(folds, scores, {})
    other = rule(groups={"style": ("boot",)}, shrink=0.001)
    assert scoring.metrics(other, truth, [scored])["macro_f1"] < 0.7


def test_a_difference_is_of_the_same_pictures() -> None:
    rng = np.random.default_rng(2)
    truth = (rng.random((80, 3)) < 0.4).astype(np.uint8)
    folds = np.arange(80) % 5
    scores = np.clip(truth * 0.3 + rng.random((80, 3)) * 0.7, 0, 1)
    better = scores.copy()
    better[:20] = truth[:20]
    worse, best = (scoring.Scored(folds, s, {}) for s in (scores, better))
    differences, usual = scoring.differences, rule()
    found = differences(usual, truth, [best], [worse])
    assert set(found) == {"scores"}
    low, high = found["scores"]["macro_f1_interval"]
    assert 0 < low < found["scores"]["macro_f1"] < high
    assert differences(usual, truth, [worse], [worse])["scores"]["macro_f1_interval"] == [0, 0]


def test_every_picture_is_scored_by_what_learned_from_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ids = tuple(np.random.default_rng(i).bytes(32).hex() for i in range(40))
    params = parameters.load(ROOT / "params.yaml")
    truth = np.zeros((40, len(params.tags)), np.uint8)
    task = trainers.Task((), ids, truth, params, trainers.Recipe("project"), torch.device("cpu"))

    def score(_: object, learned: np.ndarray, held: np.ndarray) -> np.ndarray:
        assert sorted([*learned, *held]) == list(range(40))
        shape = 1 + len(scoring.SHOWN_OTHERWISE), len(held), len(params.tags)
        return np.full(shape, float(held[0]))

    monkeypatch.setattr(crossvalidate, "score", score)
    monkeypatch.setattr(crossvalidate, "CACHE", tmp_path)
    scored = crossvalidate.cross_validate(task, seed=3, folds=5, done=lambda: None)
    assert len(scored.evaluated) == 40
    assert set(scored.folds) == set(range(5))
    assert set(scored.others) == set(scoring.SHOWN_OTHERWISE)


def test_folds_that_were_not_scored_are_left_out() -> None:
    truth = np.array([[1, 0, 1], [0, 1, 0]] * 10, dtype=np.uint8)
    folds = np.arange(20) // 4
    scored = scoring.Scored(folds, truth * 0.9, {"composites": np.full((20, 3), np.nan)})
    first = scoring.of_first_fold([scored])
    assert scoring.metrics(rule(), truth, first)["evaluated"] == 4


def test_other_squares_are_of_the_same_pictures(tmp_path: Path) -> None:
    wide = np.zeros((40, 80, 3), dtype=np.uint8)
    wide[:, 40:] = 255  # black on the left, white on the right
    wide[:, :10] = wide[:, 70:] = (255, 0, 0)  # toe and heel
    Image.fromarray(wide).save(tmp_path / "shoe.png")
    limits = Limits.of(parameters.load(ROOT / "params.yaml").images)
    shares = {}
    for how in set(resizing.RESIZINGS) - set(resizing.SHRUNK):
        [path] = resizing.resized(how, [tmp_path / "shoe.png"], limits, tmp_path / how)
        with Image.open(path) as square:
            pixels = np.asarray(square.convert("RGB")).astype(int)
        assert pixels.shape[0] == pixels.shape[1]
        shares[how] = float((pixels[..., 0] - pixels[..., 1] > 128).mean())
    assert shares["centre_crop"] == 0.0  # the article's crop cuts toe and heel off
    assert shares["stretch"] == pytest.approx(0.25, abs=0.02)
    assert shares["pad_with_white"] == pytest.approx(0.25 / 2, abs=0.02)
    assert shares["pad_with_border_colour"] == pytest.approx(0.5 + 0.25 / 2, abs=0.02)


@pytest.mark.parametrize(("how", "share"), [("shrunk_07", 0.49), ("shrunk_05", 0.25)])
def test_a_shrunk_picture_lies_on_a_ground_of_its_borders_colour(
    tmp_path: Path, how: str, share: float
) -> None:
    shoe = Image.new("RGB", (90, 60), (200, 210, 220))
    shoe.paste((255, 0, 0), (1, 1, 89, 59))
    shoe.save(tmp_path / "shoe.png")
    limits = Limits.of(parameters.load(ROOT / "params.yaml").images)
    [path] = resizing.resized(how, [tmp_path / "shoe.png"], limits, tmp_path / how)
    with Image.open(path) as image:
        assert image.size == (90, 60)
        red = (np.asarray(image.convert("RGB")).astype(int) @ (1, -1, 0) > 100).mean()
        assert red == pytest.approx(share, abs=0.04)
        assert {image.getpixel(place) for place in ((0, 0), (89, 0), (5, 59))} == {(200, 210, 220)}


def test_the_table_has_a_row_for_each_result(capsys: pytest.CaptureFixture[str]) -> None:
    results = [json.loads(p.read_text()) for p in (ROOT / "experiments" / "results").glob("*.json")]
    table.main()
    printed = capsys.readouterr().out
    for result in results:
        assert f"| {result['recipe']} | {result['macro_f1']:.3f} [" in printed


@pytest.mark.slow
def test_the_articles_network_trains_and_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(article, "EPOCHS", 1)
    pictures = [Image.new("RGB", (80, 60), (40 * i, 0, 0)) for i in range(4)]
    truth = np.array([[1, 0, 1]] * 4, dtype=np.uint8)
    found = article.train_and_score(
        pictures, truth, pictures[:3], seed=1, options={"weights": "none"},
        device=torch.device("cpu"),
    )  # fmt: skip
    assert found.shape == (3, 3)
    assert ((found > 0) & (found < 1)).all()


@pytest.mark.slow
def test_a_mirror_changes_no_symmetric_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trainers, "CACHE", tmp_path / "cache")
    paths = []
    for i in range(8):
        half = np.random.default_rng(i).integers(0, 256, (32, 16, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.concatenate([half, half[:, ::-1]], axis=1)).save(paths[-1])
    plain = yaml.safe_load((ROOT / "params.yaml").read_text())
    plain["groups"] = {"style": {"tags": ["boot", "heel"]}}
    augment = dataclasses.asdict(trainers._PLAIN)  # whose draws would depend on the seed
    plain["images"] |= {"size": 32, "augment": augment}
    plain["features"]["views"] = 1
    # Without frozen stages, whose random weights would depend on the seed as well.
    plain["train"] |= {"weights": "none", "freeze": "none"}
    plain["train"] |= {"epochs": 2, "backbone_lr": 0.01, "head_lr": 0.002, "dropout": 0.0}
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


def test_focused_losses_look_away_from_what_is_answered_well() -> None:
    remedies, weight = imbalance, torch.ones(1)
    sure, truth = torch.tensor([[4.0], [-4.0]]), torch.tensor([[1.0], [0.0]])
    plain = cross_entropy(sure, truth, weight)
    assert remedies.focal(0.0)(sure, truth, weight) == pytest.approx(float(plain))
    assert remedies.focal(2.0)(sure, truth, weight) < plain / 100
    # Only the positive half of the loss is left.
    assert remedies.asymmetric(2.0)(sure, truth, weight) == pytest.approx(
        float(plain) / 2, rel=1e-2
    )
    assert remedies.focal(2.0)(-sure, truth, weight) > plain


def test_oversampling_repeats_pictures_of_rare_tags() -> None:
    truth = np.zeros((4000, 3), dtype=np.uint8)
    truth[:2000, 0] = 1
    truth[:200, 1] = 1  # 5 %: the root of two times
    truth[2000:2040, 2] = 1  # 1 %: the root of ten
    found = imbalance.oversampled(Examples(np.arange(4000), truth), 0.1, seed=1)
    times = np.bincount(found.rows)
    assert times[:200].mean() == pytest.approx(2**0.5, abs=0.1)
    assert times[2000:2040].mean() == pytest.approx(10**0.5, abs=0.2)
    assert set(times[200:2000]) == set(times[2040:]) == {1}
    np.testing.assert_array_equal(found.truth, truth[found.rows])
