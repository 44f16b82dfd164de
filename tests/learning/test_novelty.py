"""How far is far: pictures like those of the training side are near, others are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.bundles import random_model

from shoetagger.inference.novelty import usual, usual_of
from shoetagger.learning.evaluation.novelty import distances, unsure_above
from shoetagger.network.backbone import State, TagModel

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
POOLED = ("layer1", "layer4")


class Seen:
    """A source of what a head sees of frozen layers: no picture is needed for that."""

    views = 2

    def __init__(self, plain: np.ndarray) -> None:
        self._plain = plain

    def plain(self, rows: np.ndarray) -> State:
        values = torch.from_numpy(self._plain[rows]).float()
        parts = torch.split(values, [128, 1024], dim=1)
        return State(torch.empty(len(rows), 0), dict(zip(POOLED, parts, strict=True)))

    def augmented(self, rows: np.ndarray, epoch: int) -> State:
        shaken = Seen(self._plain + np.random.default_rng(epoch).normal(0, 0.1, self._plain.shape))
        return shaken.plain(rows)


@pytest.fixture
def model() -> TagModel:
    return random_model(2, backbone_seed=1, head_seed=1, pooled=POOLED)


def drawn(count: int, spread: float = 1.0) -> np.ndarray:
    """Rows in which the second block is a hundred times as large as the first, as layers are."""
    size = np.concatenate([np.full(128, 1.0), np.full(1024, 100.0)])
    return RNG.normal(3, spread, (count, 1152)) * size


def above(model: TagModel, plain: np.ndarray, folds: np.ndarray, quantile: float = 0.9) -> float:
    rows = np.arange(len(plain))
    return unsure_above(
        model, Seen(plain), rows, folds, quantile=quantile, freeze="layer4", device=CPU
    )


def test_blocks_count_alike_however_large_and_wide_they_are() -> None:
    near = usual(torch.zeros(3), torch.tensor([1.0, 4.0, 4.0]), (1, 2), 0.0)
    seen = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 4, 4]])
    torch.testing.assert_close(near.distances(seen), torch.tensor([0.0, 4.0, 4.0]))


def test_as_many_new_pictures_are_unsure_as_the_quantile_says(model: TagModel) -> None:
    plain = drawn(200)
    limit = above(model, plain, np.arange(200) % 5)
    model.norm.running_mean.copy_(torch.from_numpy(plain.mean(0)))
    model.norm.running_var.copy_(torch.from_numpy(plain.var(0)))
    new = np.concatenate([drawn(300), drawn(20, spread=2.0)])
    found = distances(model, Seen(new), np.arange(320), "layer4", CPU)
    assert 0.02 < (found[:300] > limit).mean() < 0.25
    assert (found[300:] > limit).all()
    seen = torch.cat([*Seen(new).plain(np.arange(320)).pooled.values()], dim=1)
    np.testing.assert_allclose(found, usual_of(model, CPU).distances(seen), rtol=1e-5)


def test_a_picture_is_judged_by_the_folds_that_it_is_not_in(model: TagModel) -> None:
    plain = drawn(40)
    plain[20:] += 50 * plain.std(0)  # a fold of its own, far from all others
    together = above(model, plain, np.arange(40) % 2, quantile=0.5)
    apart = above(model, plain, np.arange(40) // 20, quantile=0.5)
    assert apart > 100 * together
