"""A head is fitted to the optimum that scikit-learn finds, whatever its parts and its input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from shoetagger.learning.training import head
from shoetagger.learning.training.head import (
    ROUNDS,
    cross_entropy,
    fit_head,
    start_from_frequencies,
)
from shoetagger.network.backbone import TagModel

VIEWS, PICTURES = 3, 40


def seen(width: int) -> Tensor:
    """Return views of pictures (VIEWS * PICTURES, width), columns of different size and spread."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, PICTURES, width))
    views = images + 0.3 * rng.normal(size=(VIEWS, PICTURES, width))
    values = views * np.geomspace(0.1, 3, width) + np.linspace(-1, 4, width)
    return torch.from_numpy(values.reshape(-1, width)).half()


def truth(tags: int) -> np.ndarray:
    return (np.random.default_rng(1).random((PICTURES, tags)) < 0.3).astype(np.uint8)


def fitted(true: np.ndarray, weight: float = 1.0, l2: float = 0.01) -> tuple[TagModel, list[float]]:
    torch.manual_seed(0)
    losses: list[float] = []
    model = TagModel("resnet18", true.shape[1], ("histogram", "layer1")).eval()
    start_from_frequencies(model, true)
    fit_head(
        model, seen(sum(model.widths)), torch.from_numpy(true).float(),
        torch.full((true.shape[1],), weight), l2=l2, criterion=cross_entropy,
        on_round=losses.append,
    )  # fmt: skip
    return model, losses


def answers(model: TagModel, values: Tensor) -> np.ndarray:
    with torch.no_grad():
        found: np.ndarray = torch.sigmoid(model.head(model.norm(values.float()))).numpy()
    return found


@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_it_finds_what_scikit_learn_finds(weight: float) -> None:
    true = truth(2)
    model, _ = fitted(true, weight)
    values = seen(sum(model.widths))
    plain = values.double().numpy()
    # Standardised, and each block scaled so that its width does not decide what it may say.
    scaled = (plain - plain.mean(0)) / np.sqrt(plain.var(0) + model.norm.eps)
    scaled /= np.sqrt(np.repeat(model.widths, model.widths))
    for tag in range(2):
        repeated = np.tile(true[:, tag], VIEWS)
        reference = LogisticRegression(
            C=1 / (2 * 0.01 * len(scaled)),
            class_weight={0: 1.0, 1: weight},
            tol=1e-8,
            max_iter=2000,
        ).fit(scaled, repeated)
        found = answers(model, values)[:, tag]
        np.testing.assert_allclose(found, reference.predict_proba(scaled)[:, 1], atol=0.01)


@pytest.mark.slow
def test_the_size_of_the_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = fitted(truth(2))
    monkeypatch.setattr(head, "_ROWS_AT_ONCE", 7)
    parts, _ = fitted(truth(2))
    values = seen(sum(whole.widths))
    np.testing.assert_allclose(answers(parts, values), answers(whole, values), atol=1e-3)


def test_the_loss_is_reported_after_each_round_and_falls() -> None:
    _, losses = fitted(truth(2))
    assert len(losses) == ROUNDS
    assert losses[-1] < losses[0] < np.log(2)


def test_a_stronger_penalty_gives_smaller_weights() -> None:
    sizes = [fitted(truth(2), l2=l2)[0].head.weight.norm().item() for l2 in (1.0, 0.01, 0.0001)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("always", [0, 1])
def test_a_tag_of_no_or_of_only_positives_is_predicted_so(always: int) -> None:
    true = np.full((PICTURES, 1), always, dtype=np.uint8)
    model, _ = fitted(true)
    found = answers(model, seen(sum(model.widths)))
    assert np.abs(found - always).max() < 0.1
