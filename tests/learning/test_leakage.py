"""No model learns from what it is evaluated on, and no threshold either."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from shoetagger.config import params as parameters
from shoetagger.inference.decision import predict
from shoetagger.learning.evaluation.calibration import calibrate
from shoetagger.learning.evaluation.novelty import unsure_above
from shoetagger.learning.evaluation.predictions import thresholds_of_other_folds
from shoetagger.learning.training.backbone import TrainError
from shoetagger.learning.training.examples import Examples
from shoetagger.learning.training.fit import Epoch
from shoetagger.stages import crossval, evaluate, features, folds, group, split, train

ROOT = Path(__file__).parents[2]
SPLIT, IMAGES, STATES = Path("split/style.csv"), Path("data/images"), Path("features")


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The split of forty small pictures in the current folder; nothing is learned from them yet."""
    monkeypatch.chdir(tmp_path)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {"style": {"tags": ["boot", "heel"]}}
    document["train"] |= {"weights": "none", "freeze": "none"}
    document["images"]["size"] = 32
    document["audit"]["exclusive"] = []
    Path("params.yaml").write_text(yaml.safe_dump(document))
    IMAGES.mkdir(parents=True)
    rows = ["image_name,boot,heel"]
    for i in range(40):
        noise = np.random.default_rng(i).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).save(IMAGES / f"{i:02}.png")
        rows.append(f"{i:02}.png,{i % 2},{1 - i % 2}")
    Path("data/labels.csv").write_text("\n".join(rows) + "\n")
    split.main(Path("data"), SPLIT.parent)
    features.main(SPLIT.parent / "images.csv", IMAGES, STATES)
    return pd.read_csv(SPLIT)


class Learner:
    """Takes the place of `fit` and notes the rows that it is shown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, stage: ModuleType) -> None:
        self.learned: list[set[int]] = []
        self.validations: list[set[int] | None] = []
        monkeypatch.setattr(stage, "fit", self)

    def __call__(
        self, _model: object, _source: object, training: Examples, validation: Examples | None,
        _recipe: object, **how: Any,
    ) -> None:  # fmt: skip
        self.learned.append(set(training.rows.tolist()))
        self.validations.append(None if validation is None else set(validation.rows.tolist()))
        how["on_epoch"](Epoch(1, 0.5, None, None))


def rows_of(table: pd.DataFrame, chosen: pd.Series[bool]) -> set[int]:
    return set(np.flatnonzero(chosen).tolist()) & set(range(len(table)))


@pytest.mark.slow
def test_the_final_model_learns_from_the_training_side_alone(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner(monkeypatch, train)
    train.main("style", SPLIT, IMAGES, STATES, Path("weights.safetensors"), Path("history.csv"))
    assert learner.learned == [rows_of(table, table["side"] == "train")]
    assert learner.validations == [rows_of(table, table["side"] == "validation")]


@pytest.mark.slow
def test_a_fold_is_scored_by_a_model_that_learned_from_the_others(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = Learner(monkeypatch, folds)
    scored: list[set[int]] = []

    def scores(_model: object, _source: object, rows: np.ndarray, *_: object) -> np.ndarray:
        scored.append(set(rows.tolist()))
        return np.full((len(rows), 2), 0.5)

    monkeypatch.setattr(folds, "scores", scores)
    crossval.main("style", SPLIT, IMAGES, STATES, Path("crossval/style.csv"))
    training = rows_of(table, table["side"] == "train")
    for fold, (learned, held_out) in enumerate(zip(learner.learned, scored, strict=True)):
        if fold < 5:  # the split table has the folds of the first repeat
            assert held_out == training & rows_of(table, table["fold"] == fold)
        assert learned == training - held_out
    assert learner.validations == [None] * 15  # nothing is chosen by any other picture
    repeats = [scored[start : start + 5] for start in (0, 5, 10)]
    for folds_of_repeat in repeats:
        assert sorted(row for held_out in folds_of_repeat for row in held_out) == sorted(training)
    assert repeats[0] != repeats[1] != repeats[2]
    written = pd.read_csv("crossval/style.csv")
    for _, scores_of_repeat in written.groupby("repeat"):
        names = list(scores_of_repeat["image_name"])
        assert names == list(table.loc[table["side"] == "train", "image_name"])


@pytest.mark.slow
def test_what_is_far_is_told_by_the_training_side_alone(
    table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[set[int]] = []

    def noted(model: object, source: object, rows: np.ndarray, *rest: object, **how: Any) -> float:
        asked.append(set(rows.tolist()))
        return unsure_above(model, source, rows, *rest, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluate, "unsure_above", noted)
    document, found = yaml.safe_load(Path("params.yaml").read_text()), []
    for quantile in (None, 0.5, 0.9):
        document["evaluate"]["unsure_quantile"] = quantile
        params = parameters.parse(document)
        data = group.open_group_data(params, "style", SPLIT, IMAGES, STATES, torch.device("cpu"))
        found.append(evaluate._unsure_above(data, data.new_model()[0]))
    assert asked == [set(np.flatnonzero(table["side"] == "train").tolist())] * 2
    assert found[0] is None
    assert 0 < found[1] < found[2]


def test_a_fold_that_leaves_one_picture_is_refused_with_what_to_do(table: pd.DataFrame) -> None:
    few = table.assign(side=["train"] * 3 + ["validation"] * 37, fold=[0, 0, 1] + [0] * 37)
    few.to_csv(SPLIT, index=False)
    Path("params.yaml").write_text(Path("params.yaml").read_text().replace("folds: 5", "folds: 2"))
    with pytest.raises(TrainError, match=r"fold 0 of repeat 0 leaves 1 of 3 .* split\.folds \(2\)"):
        crossval.main("style", SPLIT, IMAGES, STATES, Path("crossval/style.csv"))


def test_a_fold_is_predicted_by_thresholds_of_the_others(table: pd.DataFrame) -> None:
    data = group.open_group_data(
        parameters.load(Path("params.yaml")), "style", SPLIT, IMAGES, STATES, torch.device("cpu")
    )
    training = table[table["side"] == "train"].reset_index(drop=True)
    half = np.arange(len(training)) % 4 // 2  # two folds, with boots and heels in both
    found = training[["image_name"]].assign(repeat=0, fold=half)
    for tag in data.tags:  # each fold can be told apart, at a level of its own
        found[tag] = np.where(half == 0, 0.6, 0.1) + 0.2 * training[tag]
        found[f"true_{tag}"] = training[tag]
    predictions = evaluate._predict_out_of_fold(data, found)
    assert predictions is not None
    (scores,), (predicted,) = predictions.scores, predictions.predicted
    # By what the other fold shows, everything in the first passes; its own thresholds know better.
    assert predicted[half == 0].all()
    own, _ = calibrate(scores[half == 0], predictions.truth[half == 0], 0.001)
    np.testing.assert_array_equal(predict(scores[half == 0], own), predictions.truth[half == 0])
    names = data.table["image_name"].iloc[predictions.rows]
    assert list(names) == list(training["image_name"])


def test_no_repeat_shows_a_threshold_the_picture_that_it_is_used_on() -> None:
    rng = np.random.default_rng(0)
    truth = (np.arange(60) % 3 == 0)[:, None].astype(np.uint8)
    folds = np.stack([np.arange(60) % 5, rng.permutation(60) % 5])
    scores = np.clip(0.4 * truth + rng.normal(0.3, 0.2, (2, 60, 1)), 0.01, 0.99)
    limits = thresholds_of_other_folds(scores, truth, folds, shrink=1.0)
    for picture in range(10):
        changed, others = truth.copy(), scores.copy()
        changed[picture], others[:, picture] = 1 - changed[picture], rng.random((2, 1))
        again = thresholds_of_other_folds(others, changed, folds, shrink=1.0)
        assert (again[:, picture] == limits[:, picture]).all()
    together = folds == folds[:, :1]
    for repeat in range(2):
        assert np.unique(limits[repeat, together[repeat]]).size == 1
        assert np.unique(limits[repeat]).size > 1
