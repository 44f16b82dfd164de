"""Bundles with backbones of several families score in one engine as they do alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.bundles import make_bundles
from helpers.bundles import scores_alone
from torch import nn

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import load_bundle
from shoetagger.inference.engine import Engine, for_inference
from shoetagger.inference.heatmap import explain
from shoetagger.inference.loading import load_model
from shoetagger.network.backbone import begin
from shoetagger.network.cut import layers_of

SIZE = 64
PLAIN, OTHER = Transform(SIZE), Transform(SIZE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
POOLED = ("histogram", "layer2_contrast", "layer3", "layer4_contrast")
TOKENS = (*POOLED, "layer3_token", "layer4_token")
FAMILIES = {
    "mobilenet_v3_small": (POOLED, PLAIN),
    "timm:convnext_atto": (POOLED, PLAIN),
    "timm:vit_tiny_patch16_224": (TOKENS, OTHER),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two bundles of each family, which share all layers but the last."""
    home = tmp_path_factory.mktemp("bundles")
    return [
        folder
        for number, (arch, (pooled, transform)) in enumerate(FAMILIES.items())
        for folder in make_bundles(home / str(number), 2, "layer3", [pooled], transform, arch)
    ]


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "auto"])
def test_scores_of_two_backbones_in_a_night_equal_those_of_the_separate_models(
    folders: list[Path], precision: str
) -> None:
    engine, batch = Engine(folders, "cpu", precision), pictures(5)
    assert set(engine.transforms) == {PLAIN, OTHER}
    scores = engine.score(dict.fromkeys(engine.transforms, batch))
    assert len(scores) == 2 * len(FAMILIES)
    tolerance = 1e-5 if engine.dtype == torch.float32 else 3e-2
    for digest, alone in scores_alone(folders, batch).items():
        np.testing.assert_allclose(scores[digest], alone, atol=tolerance)


@pytest.mark.slow
def test_each_prefix_of_each_backbone_runs_once(folders: list[Path]) -> None:
    engine, runs = Engine(folders, "cpu", "float32"), Counter[str]()
    for digest, layer in engine._layers.items():
        layer.module.register_forward_hook(lambda *_, d=digest: runs.update([d]))
    engine.score(dict.fromkeys(engine.transforms, pictures(1)))  # of more, each core takes some
    of_all = {digest for bundle in engine.bundles for digest in bundle.prefixes.values()}
    assert runs == Counter(of_all)
    layers = sum(len(bundle.layers) for bundle in engine.bundles[::2])
    assert len(of_all) == layers + len(FAMILIES), "shared, but for the last layers"


@pytest.mark.slow
def test_a_heat_map_adds_up_where_a_head_sees_tokens(folders: list[Path]) -> None:
    folder = folders[-1]
    bundle, view = load_bundle(folder), pictures(1)[0]
    model = load_model(folder, bundle)
    assert "layer4_token" in bundle.pooled
    assert model.norm.running_mean is not None
    model.norm.running_mean.uniform_(-0.2, 0.2)
    with torch.inference_mode():
        state = begin(torch.from_numpy(view)[None], bundle.transform, bundle.pooled)
        logits = model(state)[0].double().numpy()
    np.testing.assert_allclose(explain(model, bundle, view).logits, logits, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch", ["mobilenet_v3_small", "densenet121", "timm:mobilenetv3_small_050", "timm:resnetv2_50"]
)
def test_folding_batch_norms_leaves_a_layer_what_it_is(arch: str) -> None:
    """timm's activate as well, and one that others than a convolution feed is not folded."""
    torch.manual_seed(4)
    layers = layers_of(arch, SIZE)
    for layer in layers:
        for module in layer.module.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.uniform_(-0.5, 0.5)
    x = torch.randn(2, 3, SIZE, SIZE)
    assert all(layer.norms for layer in layers[1:])
    for layer in layers[:3]:
        norms = sum(isinstance(m, nn.BatchNorm2d) for m in layer.module.modules())
        with torch.inference_mode():
            plain = layer.module.eval()(x)
            folded = for_inference(layer).module(x)
        torch.testing.assert_close(folded, plain, rtol=1e-3, atol=1e-3)
        left = sum(isinstance(m, nn.BatchNorm2d) for m in layer.module.modules())
        assert norms - left == len(layer.norms)
        x = plain
