"""Two models on the same pictures: metrics, intervals of the differences, changes of tags."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from shoetagger.promotion.paired import TagDiff, _resampled_differences, paired_metrics

TAGS = ("black", "white", "rare")


@pytest.fixture
def predicted() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return truth, a challenger that is mostly right, and a champion that is often wrong."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (80, 3), dtype=np.uint8)
    truth[:, 2] = 0
    truth[:2, 2] = 1
    predicted = [
        np.where(rng.random(truth.shape) < wrong, 1 - truth, truth) for wrong in (0.05, 0.4)
    ]
    return truth, predicted[0].astype(np.uint8), predicted[1].astype(np.uint8)


def test_f1_of_both_and_an_interval_that_tells_them_apart(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    truth, challenger, champion = predicted
    found = paired_metrics(
        truth, challenger, champion, TAGS, min_positives=5, bootstrap=300, seed=1
    )
    black = found.tags[0].f1
    assert black is not None
    assert black.challenger == pytest.approx(f1_score(truth[:, 0], challenger[:, 0]))
    assert black.champion == pytest.approx(f1_score(truth[:, 0], champion[:, 0]))
    assert black.interval is not None
    assert 0 < black.interval[0] < black.difference < black.interval[1]
    assert found.macro_f1 is not None
    measured = [t.f1.challenger for t in found.tags if t.f1]
    assert found.macro_f1.challenger == pytest.approx(np.mean(measured))


def test_a_tag_with_too_few_positives_is_left_out(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    truth, challenger, champion = predicted
    found = paired_metrics(truth, challenger, champion, TAGS, min_positives=5, bootstrap=10, seed=1)
    assert [(t.tag, t.positives) for t in found.tags if t.f1 is None] == [("rare", 2)]
    none = paired_metrics(
        truth[:0], challenger[:0], champion[:0], TAGS, min_positives=5, bootstrap=9, seed=1
    )
    assert (none.pictures, none.macro_f1) == (0, None)


def test_resamples_are_of_the_same_pictures_for_both(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    truth, challenger, champion = predicted
    same = paired_metrics(
        truth, challenger, challenger, TAGS, min_positives=5, bootstrap=50, seed=1
    )
    assert same.macro_f1 is not None
    assert same.macro_f1.interval == (0.0, 0.0)
    draws = _resampled_differences(truth, challenger, champion, 5, seed=3)
    often = np.random.default_rng(3).multinomial(len(truth), [1 / len(truth)] * len(truth), 5)
    for draw, times in zip(draws, often, strict=True):
        rows = np.repeat(np.arange(len(truth)), times)
        expected = [
            f1_score(truth[rows, i], challenger[rows, i], zero_division=0.0)
            - f1_score(truth[rows, i], champion[rows, i], zero_division=0.0)
            for i in range(3)
        ]
        assert draw == pytest.approx(expected)


def test_without_resamples_there_is_no_interval(
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    found = paired_metrics(*predicted, TAGS, min_positives=5, bootstrap=0, seed=1)
    assert found.macro_f1 is not None
    assert found.macro_f1.interval is None


def test_the_change_of_tags_is_counted_by_tag() -> None:
    diff = TagDiff()
    assert diff.share is None
    assert not diff.add(["black"], ["black"])
    assert diff.add(["black"], ["white"])
    assert diff.add(["black", "rare"], ["black"])
    assert diff.add(["black"], ["white", "black"])
    assert (diff.pictures, diff.changed, diff.share) == (4, 3, 0.75)
    assert diff.counts() == {"white": (2, 0), "black": (0, 1), "rare": (0, 1)}
