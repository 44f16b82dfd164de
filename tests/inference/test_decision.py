"""The decision rule, and thresholds that trust few positives little."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from shoetagger.errors import ShoetaggerError
from shoetagger.inference.decision import predict, tags_of
from shoetagger.learning.evaluation.calibration import calibrate


def test_tags_that_pass_are_predicted_and_else_the_best_one() -> None:
    scores = np.array([[0.9, 0.6, 0.1], [0.2, 0.4, 0.1], [0.29, 0.4, 0.0]])
    decisions = predict(scores, (0.5, 0.5, 0.5))
    assert tags_of(decisions, ("a", "b", "c")) == [("a", "b"), ("b",), ("b",)]
    # 0.29 of 0.3 is nearer than 0.4 of 0.5
    assert tags_of(predict(scores[2:], (0.3, 0.5, 0.5)), ("a", "b", "c")) == [("a",)]


def test_with_a_bound_the_best_tag_has_to_reach_it_or_there_is_none() -> None:
    scores = np.array([[0.9, 0.1], [0.3, 0.2], [0.19, 0.1], [0.2, 0.0]])
    assert predict(scores, (0.5, 0.5), 0.2).tolist() == [[1, 0], [1, 0], [0, 0], [1, 0]]
    # A tag that passes its threshold needs no more.
    assert predict(np.array([[0.15, 0.1]]), (0.1, 0.5), 0.2).tolist() == [[1, 0]]
    # The best is the one nearest to its threshold, whose probability may be the lower one.
    assert predict(np.array([[0.15, 0.4]]), (0.16, 0.9), 0.2).tolist() == [[0, 0]]


def test_thresholds_may_differ_by_picture() -> None:
    limits = np.array([[0.5, 0.9], [0.9, 0.5]])
    assert predict(np.full((2, 2), 0.6), limits).tolist() == [[1, 0], [0, 1]]


def test_a_group_of_one_tag_may_say_no() -> None:
    assert predict(np.array([[0.4], [0.6]]), (0.5,)).tolist() == [[0], [1]]


def test_a_score_that_equals_its_threshold_passes() -> None:
    assert predict(np.array([[0.5, 0.9]]), (0.5, 0.5)).tolist() == [[1, 1]]


def drawn(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and truth (count, 1) of a tag that one picture in ten has."""
    truth = (rng.random((count, 1)) < 0.1).astype(np.uint8)
    return np.clip(rng.normal(0.2 + 0.3 * truth, 0.15), 0, 1), truth


def f1_at_each(cuts: np.ndarray, scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the F1 of a tag for each threshold; scikit-learn takes a second for all of them."""
    passed = scores >= cuts
    return 2 * (passed & (truth == 1)).sum(axis=0) / (passed.sum(axis=0) + truth.sum())


def test_thresholds_are_better_on_new_pictures_than_one_half_and_than_the_best_of_the_old() -> None:
    rng = np.random.default_rng(0)
    new, true = drawn(rng, 5000)
    found, best = [], []
    for _ in range(30):
        scores, truth = drawn(rng, 150)
        (threshold,), (support,) = calibrate(scores, truth, shrink=0.0)
        assert support == truth.sum()
        found.append(f1_score(true, new >= threshold))
        cuts = np.unique(scores)
        chosen = cuts[np.argmax(f1_at_each(cuts, scores, truth))]
        best.append(f1_score(true, new >= chosen))
    assert np.mean(found) > np.mean(best) + 0.005
    assert np.mean(found) > f1_score(true, new >= 0.5) + 0.01


def test_repeats_make_the_scores_many_and_not_the_pictures() -> None:
    scores, truth = drawn(np.random.default_rng(3), 100)
    once = calibrate(scores, truth, shrink=5.0)
    assert calibrate(np.stack([scores, scores]), truth, shrink=5.0) == once
    noise = np.random.default_rng(4).normal(0, 0.1, (5, *scores.shape))
    noisy = np.clip(scores + noise, 0, 1)
    alone = [calibrate(each, truth, shrink=5.0)[0][0] for each in noisy]
    (together,), support = calibrate(noisy, truth, shrink=5.0)
    assert support == once[1]
    assert min(alone) < together < max(alone)


def test_few_positives_leave_the_threshold_near_one_half() -> None:
    scores = np.array([[0.2], [0.15], [0.05], [0.04], [0.03], [0.02]])
    truth = np.array([[1], [1], [0], [0], [0], [0]], dtype=np.uint8)
    (trusting,), _ = calibrate(scores, truth, shrink=0.0)
    (wary,), _ = calibrate(scores, truth, shrink=20.0)
    assert 0.05 < trusting < 0.2
    assert np.log(wary / (1 - wary)) == pytest.approx(
        np.log(trusting / (1 - trusting)) * 2 / 22, abs=1e-3
    )


def test_a_tag_without_positives_keeps_one_half() -> None:
    assert calibrate(np.array([[0.1], [0.9]]), np.zeros((2, 1), np.uint8), 1.0) == ((0.5,), (0,))
    assert calibrate(np.empty((0, 1)), np.empty((0, 1), np.uint8), 1.0) == ((0.5,), (0,))


def test_equal_scores_cannot_be_separated() -> None:
    scores, truth = np.full((4, 1), 0.3), np.array([[1], [0], [1], [0]], dtype=np.uint8)
    (found,), _ = calibrate(scores, truth, shrink=0.0)
    assert 0.05 <= found <= 0.3


def test_twenty_thousand_rows_are_no_trouble() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((20_000, 2)) < 0.3).astype(np.uint8)
    thresholds, _ = calibrate(rng.random((20_000, 2)), truth, 10.0)
    assert all(0.05 <= t <= 0.95 for t in thresholds)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ShoetaggerError, match="differ in shape"):
        calibrate(np.zeros((2, 1)), np.zeros((3, 1)), 1.0)
