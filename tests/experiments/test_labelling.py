"""The played labeller: what can be chosen, what is learned from it, what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import kernel_heads, labelling, strategies, trainers

from shoetagger.config import params as parameters
from shoetagger.config.operations import Queue
from shoetagger.learning.training.examples import positive_weight
from shoetagger.learning.training.head import cross_entropy, fit_head, start_from_frequencies
from shoetagger.network.backbone import TagModel
from shoetagger.review.choosing import TagFacts, fixed_ids

ROOT = Path(__file__).parents[2]
KNOWN, ARRIVED, NO_SHOES = 40, 300, 30


@pytest.fixture
def pictures() -> labelling.Pictures:
    """Labelled pictures, then arrivals, the last ones of which show no shoes."""
    rng = np.random.default_rng(1)
    params = parameters.load(ROOT / "params.yaml")
    count = KNOWN + ARRIVED
    task = trainers.Task(
        paths=(),
        ids=tuple(rng.bytes(32).hex() for _ in range(count)),
        truth=(rng.random((count, len(params.tags))) < 0.3).astype(np.uint8),
        params=params,
        recipe=trainers.Recipe("project"),
        device=torch.device("cpu"),
    )
    rows = np.arange(count)
    features = np.zeros((count, 1))
    return labelling.Pictures(task, rows >= KNOWN, rows < count - NO_SHOES, features, {})


def test_heads_found_by_products_score_as_those_of_the_product() -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random((90, 2)) < (0.5, 0.1)).astype(np.uint8)
    model = TagModel("resnet18", 2, ("layer1", "layer4"))
    widths = zip(("layer1", "layer4"), model.widths, strict=True)
    blocks = {name: rng.normal(size=(90, width)) for name, width in widths}
    for block in blocks.values():
        block[:, :64] += 3 * np.tile(truth, 32)
    seen = torch.from_numpy(np.concatenate(list(blocks.values()), axis=1)).half()
    start_from_frequencies(model, truth)
    fit_head(
        model, seen, torch.from_numpy(truth).float(), positive_weight(truth, 3.0),
        l2=1e-3, criterion=cross_entropy, on_round=lambda _: None,
    )  # fmt: skip
    with torch.inference_mode():
        theirs = torch.sigmoid(model.eval().head(model.norm(seen.float()))).numpy()
    every = np.arange(90)
    products = kernel_heads.products(blocks)
    ours = kernel_heads.fit_and_score(products, truth, every, every, l2=1e-3, most=3.0)
    np.testing.assert_allclose(ours, theirs, atol=5e-3)
    # Others are scored as well as those that were learned from.
    new = kernel_heads.fit_and_score(
        products, truth[:60], every[:60], every[60:], l2=1e-3, most=3.0
    )
    assert ((new > 0.5) == truth[60:]).mean() > 0.8


@pytest.mark.parametrize("way", strategies.STRATEGIES)
def test_every_way_of_choosing_names_as_many_pictures_as_are_asked_for(way: str) -> None:
    rng = np.random.default_rng(2)
    tags = tuple("abcde")
    here = strategies.Round(
        fixed_ids([rng.bytes(32).hex() for _ in range(200)]),
        rng.random((200, 5)).astype(np.float32),
        TagFacts(tags, np.full(5, 0.5), np.array([100, 50, 20, 10, 5])),
        rng.normal(size=(200, 8)),
        rng.normal(size=(30, 8)),
        Queue(),
        rng,
    )
    chosen = strategies.STRATEGIES[way](here, 40)
    assert len(set(chosen.tolist())) == 40
    assert set(chosen.tolist()) <= set(range(200))


def test_what_is_measured_on_is_never_asked_for_and_no_shoe_is_learned_from(
    pictures: labelling.Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned_from: list[np.ndarray] = []

    def trained(pictures, learned, rows, *_: object) -> labelling._Trained:
        """Models that score by the truth: how they are fitted is tested elsewhere."""
        learned_from.append(learned)
        scores = 0.1 + 0.8 * pictures.task.truth[rows].astype(np.float32)
        truth = pictures.task.truth
        return labelling._Trained(truth, scores, np.full(truth.shape[1], 0.5))

    monkeypatch.setattr(labelling, "_trained", trained)
    measured_on = []
    for seed in range(3):
        found = labelling._play(pictures, "random", seed, [20, 60])
        assert list(found) == [0, 20, 60]
        parts, learned = found[60].parts, learned_from[-1]
        assert not set(learned) & (set(parts["arrivals"]) | set(parts["validation"]))
        assert pictures.answered[learned].all()
        assert len(learned) + found[60].no_shoes == len(parts["out_of_fold"]) + 60
        assert found[60].no_shoes > 0
        measured_on.append(parts["arrivals"])
    shoes = np.arange(KNOWN, KNOWN + ARRIVED - NO_SHOES)
    assert sorted(np.concatenate(measured_on)) == shoes.tolist()


def test_a_gain_is_of_the_same_pictures(pictures: labelling.Pictures) -> None:
    truth = pictures.task.truth
    rows = np.arange(100)
    parts = dict.fromkeys(("arrivals", "validation", "out_of_fold"), rows)
    wrong = truth.copy()
    wrong[:50] = 1 - wrong[:50]
    played = {
        way: [{50: labelling.Measured(predicted, parts, 50, 0, [0])}]
        for way, predicted in (("random", wrong), ("queue", truth))
    }
    found = labelling._document(pictures, played, [50])["ways"]
    assert found["queue"]["50"]["arrivals"]["macro_f1"] == 1.0
    gain, (low, high) = found["queue"]["50"]["arrivals"]["gain"]
    assert 0 < low < gain < high < 1
    assert gain == pytest.approx(1 - found["random"]["50"]["arrivals"]["macro_f1"], abs=1e-3)
