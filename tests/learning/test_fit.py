"""The loop learns, repeats itself, leaves frozen layers alone and stops where a loss explodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.bundles import LAYERS, random_model
from PIL import Image

from shoetagger.config import params as parameters
from shoetagger.config.recipe import Augment, Train
from shoetagger.images.decode import Limits
from shoetagger.images.views import Transform
from shoetagger.learning.training import feature_files, features
from shoetagger.learning.training.backbone import TrainError, averaged
from shoetagger.learning.training.examples import Examples, positive_weight
from shoetagger.learning.training.features import Cached, FeaturesError, Live, open_source
from shoetagger.learning.training.fit import Epoch, epochs_of, fit
from shoetagger.learning.training.head import ROUNDS
from shoetagger.learning.training.images import ImageDataset
from shoetagger.learning.training.scoring import scores
from shoetagger.network.backbone import TagModel
from shoetagger.network.digests import prefix_digests
from shoetagger.network.layers import frozen_layers

CPU = torch.device("cpu")
DEVICES = [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)]
PARAMS = parameters.load(Path(__file__).parents[2] / "params.yaml")
RECIPE = replace(
    PARAMS.train,
    weights="none",
    freeze="none",
    epochs=3,
    batch_size=8,
    head_lr=0.01,
    backbone_lr=0.001,
    ema=0.0,
    label_smoothing=0.0,
)
PRETRAINED = replace(RECIPE, weights="imagenet", freeze="layer3")
STILL = Augment(
    min_scale=1.0, flip=0.0, rotate=0.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0,
    erase=0.0, background=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """Twenty-four squares: red ones and blue ones, and every third has a white bar."""
    folder = tmp_path_factory.mktemp("squares")
    for i in range(24):
        square = Image.new("RGB", (32, 32), (200, 30, 30) if i % 2 else (30, 30, 200))
        if i % 3 == 0:
            square.paste((255, 255, 255), (0, 12, 32, 20))
        square.save(folder / f"{i:02}.png")
    limits = Limits(max_bytes=10**6, max_pixels=10**6)
    return ImageDataset(sorted(folder.iterdir()), Transform(size=32), limits, augment=STILL, seed=1)


TRUTH = np.array([[i % 2, 1 - i % 2, i % 3 == 0] for i in range(24)], dtype=np.uint8)
IDS = [str(i) for i in range(24)]


def new_model(tags: int = 3, seed: int = 0) -> TagModel:
    return random_model(tags, backbone_seed=seed, head_seed=seed, pooled=("stem", "layer4"))


def train(
    dataset: ImageDataset,
    recipe: Train = RECIPE,
    truth: np.ndarray = TRUTH,
    *,
    validated: bool = True,
    device: torch.device = CPU,
) -> tuple[TagModel, list[Epoch]]:
    model, epochs = new_model(truth.shape[1]), list[Epoch]()
    examples = Examples(np.arange(len(truth)), truth)
    source = Live(model, dataset, recipe.freeze, 3, device)
    validation = examples if validated else None
    fit(model, source, examples, validation, recipe, device=device, on_epoch=epochs.append)
    return model, epochs


@pytest.mark.slow
def test_a_model_learns_what_can_be_seen(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs=12)
    model, epochs = train(dataset, recipe)
    assert [epoch.number for epoch in epochs] == list(range(1, 13))
    assert epochs[-1].train_loss < 0.5 * epochs[0].train_loss
    found = scores(model, Live(model, dataset, "none", 3, CPU), np.arange(24), "none", CPU)
    assert ((found > 0.5) == TRUTH).mean() > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("freeze", ["layer3", "layer4"])
def test_a_pretrained_backbone_gets_its_head_fitted_first(
    dataset: ImageDataset, freeze: str, device: torch.device
) -> None:
    recipe = replace(PRETRAINED, freeze=freeze)  # type: ignore[arg-type]
    model, epochs = train(dataset, recipe, device=device)
    trained = 3 if freeze == "layer3" else 0
    assert [epoch.learning_rate is None for epoch in epochs] == [True] * ROUNDS + [False] * trained
    assert len(epochs) == epochs_of(recipe)
    assert epochs[ROUNDS - 1].train_loss < 0.1
    found = scores(model, Live(model, dataset, freeze, 3, device), np.arange(24), freeze, device)
    assert ((found > 0.5) == TRUTH).mean() > 0.9


@pytest.mark.slow
def test_losses_of_both_sides_mean_the_same(dataset: ImageDataset) -> None:
    # Both sides are the same pictures here, and no view differs from another.
    recipe = replace(PRETRAINED, freeze="layer4", positive_weight=3.0, head_l2=0.1)
    _, epochs = train(dataset, recipe)
    for epoch in epochs:
        assert epoch.train_loss == pytest.approx(epoch.validation_loss, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pretrained", [False, True])
def test_the_same_seed_gives_the_same_weights(
    dataset: ImageDataset, pretrained: bool, device: torch.device
) -> None:
    recipe = replace(PRETRAINED if pretrained else RECIPE, epochs=1)
    (first, _), (second, _) = (
        train(dataset, recipe, validated=False, device=device) for _ in range(2)
    )
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("freeze", ["stem", "layer3", "layer4"])
def test_frozen_layers_stay_as_they_were_and_shareable(dataset: ImageDataset, freeze: str) -> None:
    recipe = replace(PRETRAINED, freeze=freeze, epochs=1)  # type: ignore[arg-type]
    before = prefix_digests(new_model(), dataset.transform)
    after = prefix_digests(train(dataset, recipe, validated=False)[0], dataset.transform)
    frozen = frozen_layers(LAYERS, freeze)
    assert [s for s in LAYERS if before[s] == after[s]] == list(frozen)


@pytest.mark.slow
def test_averaged_weights_are_kept_when_asked_for(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, epochs=1)
    last, averaged = (
        train(dataset, replace(recipe, ema=ema), validated=False)[0] for ema in (0.0, 0.9)
    )
    assert not torch.equal(last.head.weight, averaged.head.weight)
    assert torch.isfinite(averaged.head.weight).all()


@pytest.mark.slow
def test_an_average_follows_quickly_at_first_and_then_at_the_decay() -> None:
    model = new_model()
    average = averaged(model, 0.9)
    assert average is not None
    kept = []
    for value in [0.0, *[1.0] * 200, 0.0]:
        model.head.bias.data.fill_(value)
        model.norm.running_mean.fill_(value)
        average.update_parameters(model)
        assert torch.equal(average.module.norm.running_mean[:3], average.module.head.bias)
        kept.append(average.module.head.bias[0].item())
    assert kept[:2] == pytest.approx([0.0, 10 / 12])
    assert kept[-1] == pytest.approx(0.9, abs=1e-6)
    assert averaged(model, 0.0) is None


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_with_the_parameters_to_lower(dataset: ImageDataset) -> None:
    recipe = replace(RECIPE, head_lr=1e30, backbone_lr=1e30)
    with pytest.raises(TrainError, match=r"loss became .* lower train\.head_lr"):
        train(dataset, recipe)


def test_a_backbone_that_gives_no_numbers_stops_before_a_model_is_made(
    dataset: ImageDataset,
) -> None:
    recipe, model = replace(PRETRAINED, freeze="layer4"), new_model()
    model.layer4[0].conv1.weight.data.fill_(torch.inf)
    source, examples = Live(model, dataset, "layer4", 1, CPU), Examples(np.arange(24), TRUTH)
    with pytest.raises(TrainError, match=r"while the head was fitted: raise train\.head_l2"):
        fit(model, source, examples, None, recipe, device=CPU, on_epoch=lambda _: None)


def test_one_picture_is_too_few(dataset: ImageDataset) -> None:
    with pytest.raises(TrainError, match="at least 2"):
        train(dataset, truth=TRUTH[:1])


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 9])  # 9 leaves a last batch of one, which batch norm refuses
@pytest.mark.parametrize("pretrained", [False, True])
def test_a_group_of_one_tag_and_few_pictures_trains(
    dataset: ImageDataset, count: int, pretrained: bool
) -> None:
    recipe = PRETRAINED if pretrained else RECIPE
    model, _ = train(dataset, recipe, TRUTH[:count, :1])
    assert torch.isfinite(model.head.weight).all()


def test_rare_positives_weigh_more_up_to_a_bound() -> None:
    truth = np.zeros((100, 3), np.uint8)
    truth[:1, 0] = truth[:20, 1] = truth[:80, 2] = 1
    assert positive_weight(truth, 4.0).tolist() == pytest.approx([4.0, 2.0, 1.0])
    assert positive_weight(truth, 1.0).tolist() == [1.0, 1.0, 1.0]


def compute(
    dataset: ImageDataset, folder: Path, freeze: str, max_gb: float, device: torch.device = CPU
) -> features.Index:
    return feature_files.compute(
        new_model(1).eval(), dataset, IDS, freeze=freeze, views=3, max_gb=max_gb,
        prefix=prefix_digests(new_model(), dataset.transform)[freeze],
        directory=folder, cache=None, device=device, on_work=lambda _: None,
        on_batch=lambda *_: None,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("freeze", ["stem", "layer3", "layer4"])
def test_cached_states_equal_live_ones(
    dataset: ImageDataset, tmp_path: Path, freeze: str, device: torch.device
) -> None:
    assert compute(dataset, tmp_path, freeze, 1.0, device).views == 3
    model, rows = new_model().eval(), np.array([5, 0, 7])
    cached = open_source(tmp_path, model, dataset, IDS, freeze, CPU)
    assert isinstance(cached, Cached)
    rest = LAYERS[len(frozen_layers(LAYERS, freeze)) :]
    with torch.no_grad():
        from_files = model.finish(model.run(cached.plain(rows), rest))
        computed = model.finish(model.run(Live(model, dataset, freeze, 3, CPU).plain(rows), rest))
    torch.testing.assert_close(from_files, computed, atol=0.02, rtol=0.02)  # half floats


@pytest.mark.slow
def test_a_head_that_sees_what_was_not_kept_says_how_to_compute_it(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    compute(dataset, tmp_path, "layer4", 1.0)
    model = TagModel("resnet18", 3, ("stem", "layer4_contrast")).eval()
    model.load_state_dict(new_model().state_dict())
    with pytest.raises(
        FeaturesError, match=r"pooled_layer4_contrast\.npy is missing: .* run `dvc repro"
    ):
        open_source(tmp_path, model, dataset, IDS, "layer4", CPU)


@pytest.mark.slow
def test_a_head_fitted_to_cached_states_predicts_as_one_fitted_to_live_ones(
    dataset: ImageDataset, tmp_path: Path
) -> None:
    compute(dataset, tmp_path, "layer4", 1.0)
    recipe, examples = replace(PRETRAINED, freeze="layer4"), Examples(np.arange(24), TRUTH)
    answers = []
    for cached in (True, False):
        model = new_model()
        live = Live(model, dataset, "layer4", 3, CPU)
        source = open_source(tmp_path, model, dataset, IDS, "layer4", CPU) if cached else live
        fit(model, source, examples, None, recipe, device=CPU, on_epoch=lambda _: None)
        answers.append(scores(model, live, np.arange(24), "layer4", CPU))
    np.testing.assert_allclose(answers[0], answers[1], atol=0.05)


def test_what_does_not_fit_is_computed_live(dataset: ImageDataset, tmp_path: Path) -> None:
    assert compute(dataset, tmp_path, "layer3", max_gb=0.0).views == 0
    source = open_source(tmp_path, new_model(), dataset, IDS, "layer3", CPU)
    assert isinstance(source, Live)
    assert source.views == 1  # each is another pass over all pictures at every fit
    assert list(tmp_path.glob("*.npy")) == []


def test_views_are_bounded_by_the_room_there_is() -> None:
    assert feature_files.views_that_fit(220, bytes_per_view=100_000, views=12, max_gb=2.0) == 12
    assert feature_files.views_that_fit(20_000, bytes_per_view=100_000, views=12, max_gb=10.0) == 4
    assert feature_files.views_that_fit(20_000, bytes_per_view=100_000, views=12, max_gb=2.0) == 0


def test_features_of_another_backbone_are_refused(dataset: ImageDataset, tmp_path: Path) -> None:
    compute(dataset, tmp_path, "stem", 1.0)
    with pytest.raises(FeaturesError, match="another backbone"):
        open_source(tmp_path, new_model(seed=5), dataset, IDS, "stem", CPU)


def test_features_of_other_pictures_are_refused(dataset: ImageDataset, tmp_path: Path) -> None:
    compute(dataset, tmp_path, "stem", 1.0)
    with pytest.raises(FeaturesError, match="dvc repro features"):
        open_source(tmp_path, new_model(), dataset, IDS[::-1], "stem", CPU)
    with pytest.raises(FeaturesError, match="dvc repro features"):
        open_source(tmp_path, new_model(), dataset, IDS, "layer1", CPU)
