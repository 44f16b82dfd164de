"""Metrics equal scikit-learn's, and a metric that cannot be measured says so."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from shoetagger.inference.decision import predict
from shoetagger.learning.evaluation.abstention import abstention
from shoetagger.learning.evaluation.documents import macro_f1_in_words
from shoetagger.learning.evaluation.metrics import (
    NOT_MEASURABLE,
    frequency_macro_f1,
    macro_f1,
    measurable_tags,
    most_frequent_prediction,
    report,
)

TAGS = ("often", "seldom", "never", "always")
RNG = np.random.default_rng(0)
TRUTH = np.zeros((60, 4), np.uint8)
TRUTH[:30, 0] = TRUTH[:3, 1] = TRUTH[:, 3] = 1
PREDICTED = np.where(RNG.random(TRUTH.shape) < 0.2, 1 - TRUTH, TRUTH).astype(np.uint8)
SCORES = np.clip(0.6 * PREDICTED + 0.4 * RNG.random(TRUTH.shape), 0, 1)


def metrics_of_all(bootstrap: int = 200) -> dict[str, object]:
    return report(TRUTH, SCORES, PREDICTED, TAGS, min_positives=5, bootstrap=bootstrap, seed=1)


def test_a_tag_with_too_few_positives_is_not_measurable_never_zero() -> None:
    tags = metrics_of_all()["tags"]
    assert tags["seldom"]["f1"] == NOT_MEASURABLE
    assert tags["never"]["f1"] == tags["always"]["f1"] == NOT_MEASURABLE
    assert tags["seldom"]["support"] == 3
    assert tags["often"]["f1"] == pytest.approx(f1_score(TRUTH[:, 0], PREDICTED[:, 0]), abs=1e-4)


def test_means_leave_out_what_is_not_measurable_and_it_is_named() -> None:
    assert metrics_of_all()["not_measurable"] == ["seldom", "never", "always"]
    words = macro_f1_in_words({"macro_f1": 0.8123, "not_measurable": ["seldom", "never"]})
    assert words == "0.812 (not measurable: seldom, never)"
    assert macro_f1_in_words({"macro_f1": NOT_MEASURABLE}) == "not measurable"
    assert metrics_of_all()["macro_f1"] == metrics_of_all()["tags"]["often"]["f1"]
    nothing = report(
        TRUTH[:, 2:3], SCORES[:, 2:3], PREDICTED[:, 2:3], ("never",),
        min_positives=5, bootstrap=10, seed=1,
    )  # fmt: skip
    assert nothing["macro_f1"] == NOT_MEASURABLE
    assert nothing["macro_f1_interval"] is None


def test_macro_f1_is_scikit_learns() -> None:
    both = np.array([True, False, False, True])
    expected = f1_score(TRUTH[:, both], PREDICTED[:, both], average="macro")
    assert macro_f1(TRUTH, PREDICTED, both) == pytest.approx(expected)


def test_intervals_surround_the_metric_and_are_repeatable() -> None:
    low, high = metrics_of_all()["tags"]["often"]["f1_interval"]
    assert low < metrics_of_all()["tags"]["often"]["f1"] < high
    assert metrics_of_all() == metrics_of_all()
    assert metrics_of_all(bootstrap=0)["macro_f1_interval"] is None


def test_repeats_of_a_cross_validation_are_averaged_and_their_spread_is_told() -> None:
    worse = np.where(RNG.random(TRUTH.shape) < 0.4, 1 - TRUTH, TRUTH).astype(np.uint8)
    single = [
        report(TRUTH, SCORES, predicted, TAGS, min_positives=5, bootstrap=50, seed=1)
        for predicted in (PREDICTED, worse)
    ]
    both = report(
        TRUTH, np.stack([SCORES, SCORES]), np.stack([PREDICTED, worse]), TAGS,
        min_positives=5, bootstrap=50, seed=1,
    )  # fmt: skip
    assert (both["pictures"], both["repeats"]) == (60, 2)
    for metric in ("macro_f1", "micro_f1", "exact_match"):
        mean = np.mean([one[metric] for one in single])
        assert both[metric] == pytest.approx(mean, abs=1e-4), metric
    spread = abs(single[0]["macro_f1"] - single[1]["macro_f1"])
    assert both["macro_f1_deviation"] == pytest.approx(spread / 2**0.5, abs=1e-4)
    assert "macro_f1_deviation" not in single[0]
    often = [one["tags"]["often"] for one in single]
    assert both["tags"]["often"]["support"] == often[0]["support"] == 30
    assert both["tags"]["often"]["f1"] == pytest.approx(np.mean([o["f1"] for o in often]), abs=1e-4)
    low, high = both["macro_f1_interval"]
    assert single[1]["macro_f1_interval"][0] < low < both["macro_f1"] < high


def test_the_collapse_to_one_prediction_is_a_number() -> None:
    predicted = np.zeros((10, 3), np.uint8)
    predicted[:9, 1] = 1
    predicted[9, :2] = 1
    assert most_frequent_prediction(predicted, ("a", "boot", "c")) == {
        "tags": ["boot"],
        "share": 0.9,
    }


def test_predicting_by_frequency_is_what_random_predictions_score() -> None:
    training = np.zeros((100, 2), np.uint8)
    training[:30, 0] = training[:60, 1] = 1
    truth = training[::2]
    expected = frequency_macro_f1(training, truth, measurable_tags(truth, 1))
    rng, rates = np.random.default_rng(2), training.mean(axis=0)
    drawn = [
        macro_f1(truth, (rng.random(truth.shape) < rates).astype(np.uint8), np.array([True, True]))
        for _ in range(300)
    ]
    assert expected == pytest.approx(np.mean(drawn), abs=0.02)


def test_abstaining_is_counted_and_compared_with_giving_the_best_tag() -> None:
    truth = np.array([[1, 0]] * 6 + [[0, 1]] * 6 + [[0, 0]] * 4, np.uint8)
    scores = np.array(
        [[0.8, 0.1]] * 6 + [[0.1, 0.8]] * 5 + [[0.1, 0.12]] + [[0.18, 0.1]] * 3 + [[0.3, 0.1]]
    )
    both = np.array([True, True])
    found = abstention(
        truth, lambda bound: predict(scores, np.array([0.5, 0.5]), bound)[None], both, 0.2
    )
    assert found["pictures_without_tags"] == 4
    assert found["in_use"] == {
        "none_below": 0.2,
        "abstained": 4,
        "rightly": 3,
        "macro_f1": round((12 / 13 + 10 / 11) / 2, 4),
        "exact_match": round(14 / 16, 4),
    }
    others = {other["none_below"]: other for other in found["others"]}
    assert (others[None]["abstained"], others[None]["exact_match"]) == (0, 0.75)
    assert others[None]["macro_f1"] == round((12 / 16 + 1) / 2, 4)
    assert (others[0.4]["abstained"], others[0.4]["rightly"]) == (5, 4)
    assert 0.2 not in others


def test_no_pictures_at_all_is_no_crash() -> None:
    empty = np.zeros((0, 4))
    document = report(
        empty.astype(np.uint8), empty, empty.astype(np.uint8), TAGS,
        min_positives=5, bootstrap=10, seed=1,
    )  # fmt: skip
    assert document["macro_f1"] == NOT_MEASURABLE
