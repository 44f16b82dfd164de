"""Heat maps: they add up to the score that they explain, and lie where its reasons are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bundles import make_bundle

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import Bundle
from shoetagger.inference.engine import Engine
from shoetagger.inference.heatmap import explain
from shoetagger.inference.loading import load_model
from shoetagger.network.backbone import TagModel, begin
from shoetagger.network.weights import save_weights

TOLERANCE = 1e-4  # of a logit: the network computes in float32, the map adds up in float64


def trained(folder: Path, pooled: tuple[str, ...], size: int = 64) -> tuple[TagModel, Bundle]:
    """A model whose head's inputs are standardised as after a training."""
    bundle = make_bundle(folder, pooled=pooled, arch="resnet18", transform=Transform(size=size))
    model = load_model(folder, bundle)
    generator = torch.Generator().manual_seed(3)
    assert model.norm.running_mean is not None
    assert model.norm.running_var is not None
    model.norm.running_mean.uniform_(-0.2, 0.2, generator=generator)
    model.norm.running_var.uniform_(0.5, 2.0, generator=generator)
    return model, bundle


def square_on_white(size: int = 64) -> np.ndarray:
    """A red square at the upper left of a white picture, with a little noise."""
    view = np.full((size, size, 3), 250, np.uint8)
    view[size // 8 : size // 2, size // 8 : size // 2] = (200, 20, 20)
    noise = np.random.default_rng(0).integers(0, 6, view.shape, dtype=np.uint8)
    return view - noise


@pytest.mark.parametrize("size", [64, 50])
@pytest.mark.parametrize(
    "pooled",
    [
        ("histogram", "layer1_contrast", "layer3_contrast", "layer4_contrast"),
        ("stem", "layer2", "layer4"),
    ],
)
def test_bias_and_map_add_up_to_the_models_own_logits(
    tmp_path: Path, pooled: tuple[str, ...], size: int
) -> None:
    model, bundle = trained(tmp_path, pooled, size)
    view = square_on_white(size)
    explanation = explain(model, bundle, view)
    with torch.inference_mode():
        state = begin(torch.from_numpy(view)[None], bundle.transform, bundle.pooled)
        logits = model(state)[0].double().numpy()
    assert explanation.maps.shape == (3, size // 4, size // 4)
    np.testing.assert_allclose(explanation.logits, logits, atol=TOLERANCE)
    assert np.abs(explanation.maps.sum((1, 2))).max() > 100 * TOLERANCE, "maps say something"


@pytest.mark.slow
def test_it_is_the_score_that_a_night_would_write(tmp_path: Path) -> None:
    model, bundle = trained(tmp_path, ("histogram", "layer4_contrast"))
    from dataclasses import replace

    from shoetagger.inference.bundle import BUNDLE_FILE, save_bundle
    from shoetagger.network.layers import WEIGHTS_FILE

    (tmp_path / "saved").mkdir()
    digest = save_weights(model, tmp_path / "saved" / WEIGHTS_FILE, None)
    saved = replace(bundle, weights_sha256=digest)
    save_bundle(saved, tmp_path / "saved" / BUNDLE_FILE)
    view = square_on_white()
    engine = Engine([tmp_path / "saved"], "cpu", "float32")
    (prediction,) = engine.predict({bundle.transform: view[None]})[saved.digest]
    scores = 1 / (1 + np.exp(-explain(model, bundle, view).logits))
    np.testing.assert_allclose(scores, prediction.scores, atol=1e-4)


@torch.no_grad()
def test_colours_add_where_they_are(tmp_path: Path) -> None:
    model, bundle = trained(tmp_path, ("histogram",))
    view = square_on_white()
    # A head that likes exactly what the middle of the red square looks like.
    red = begin(torch.from_numpy(view[16:20, 16:20])[None], bundle.transform, ("histogram",))
    model.head.weight[:] = 0
    model.head.weight[0] = red.pooled["histogram"][0]
    added = explain(model, bundle, view).maps[0]
    inside = added[2:8, 2:8].sum()
    assert inside > 0
    assert inside > 20 * np.abs(added[9:, 9:]).sum(), "the white rest has nothing to do with it"
