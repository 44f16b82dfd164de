"""Figures are those of scikit-learn, and what cannot be measured is said to be so."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from shoetagger.learning.evaluation.metrics import (
    NOT_MEASURABLE,
    frequency_macro_f1,
    macro_f1,
    measurable_tags,
    most_frequent_answer,
    report,
)

TAGS = ("often", "seldom", "never", "always")
RNG = np.random.default_rng(0)
TRUTH = np.zeros((60, 4), np.uint8)
TRUTH[:30, 0] = TRUTH[:3, 1] = TRUTH[:, 3] = 1
DECISIONS = np.where(RNG.random(TRUTH.shape) < 0.2, 1 - TRUTH, TRUTH).astype(np.uint8)
SCORES = np.clip(0.6 * DECISIONS + 0.4 * RNG.random(TRUTH.shape), 0, 1)


def made(bootstrap: int = 200) -> dict[str, object]:
    return report(TRUTH, SCORES, DECISIONS, TAGS, min_positives=5, bootstrap=bootstrap, seed=1)


def test_a_tag_with_too_few_positives_is_not_measurable_never_zero() -> None:
    tags = made()["tags"]
    assert tags["seldom"]["f1"] == NOT_MEASURABLE
    assert tags["never"]["f1"] == tags["always"]["f1"] == NOT_MEASURABLE
    assert tags["seldom"]["support"] == 3
    assert tags["often"]["f1"] == pytest.approx(f1_score(TRUTH[:, 0], DECISIONS[:, 0]), abs=1e-4)


def test_means_leave_out_what_is_not_measurable() -> None:
    assert made()["macro_f1"] == made()["tags"]["often"]["f1"]
    nothing = report(
        TRUTH[:, 2:3], SCORES[:, 2:3], DECISIONS[:, 2:3], ("never",),
        min_positives=5, bootstrap=10, seed=1,
    )  # fmt: skip
    assert nothing["macro_f1"] == NOT_MEASURABLE
    assert nothing["macro_f1_interval"] is None


def test_macro_f1_is_scikit_learns() -> None:
    both = np.array([True, False, False, True])
    theirs = f1_score(TRUTH[:, both], DECISIONS[:, both], average="macro")
    assert macro_f1(TRUTH, DECISIONS, both) == pytest.approx(theirs)


def test_intervals_surround_the_figure_and_are_repeatable() -> None:
    low, high = made()["tags"]["often"]["f1_interval"]
    assert low < made()["tags"]["often"]["f1"] < high
    assert made() == made()
    assert made(bootstrap=0)["macro_f1_interval"] is None


def test_the_collapse_to_one_answer_is_a_number() -> None:
    decisions = np.zeros((10, 3), np.uint8)
    decisions[:9, 1] = 1
    decisions[9, :2] = 1
    assert most_frequent_answer(decisions, ("a", "boot", "c")) == {"tags": ["boot"], "share": 0.9}


def test_answering_by_frequency_is_what_random_answers_score() -> None:
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


def test_no_pictures_at_all_is_no_crash() -> None:
    empty = np.zeros((0, 4))
    document = report(
        empty.astype(np.uint8), empty, empty.astype(np.uint8), TAGS,
        min_positives=5, bootstrap=10, seed=1,
    )  # fmt: skip
    assert document["macro_f1"] == NOT_MEASURABLE
