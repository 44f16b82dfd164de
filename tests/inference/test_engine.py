"""The engine gives what the separate models give, and runs what they share once."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import bundles as made
from helpers.bundles import LAYERS, TRANSFORM, scores_alone

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import load_bundle
from shoetagger.inference.decision import predict, tags_of
from shoetagger.inference.engine import Engine, batch_that_fits, for_inference
from shoetagger.inference.loading import load_model
from shoetagger.inference.novelty import usual_of
from shoetagger.network.backbone import begin
from shoetagger.tracking.packaging import served_sources
from shoetagger.tracking.served_model import load_core

# Of the network that params.yaml names.
write_bundle = partial(made.write_bundle, arch="resnet18")

MIXES = {
    "all alike": [("layer4", 1), ("layer4", 1), ("layer4", 1)],
    "some alike": [("layer2", 1), ("layer2", 1), ("stem", 1)],
    "in two families": [("layer3", 1), ("layer3", 2), ("layer3", 1)],
    "nothing alike": [("layer4", 1), ("layer4", 2), ("layer4", 3)],
}


# What the heads of a mix see, in turn.
SEEN = (
    ("layer1", "layer4"),
    ("histogram", "layer1_contrast", "layer4_contrast"),
    ("layer4_contrast", "layer4"),
)


@pytest.fixture
def two_cores() -> Iterator[None]:
    """Two cores to work on, whatever the tests around are given."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pictures(count: int, size: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def bundles(tmp_path: Path, mix: list[tuple[str, int]]) -> list[Path]:
    folders = []
    for i, (shared, backbone) in enumerate(mix):
        folder = tmp_path / str(i)
        tags = tuple(f"tag{i}{k}" for k in range(i + 2))
        write_bundle(
            folder, f"group{i}", tags, backbone_seed=backbone, head_seed=10 + i, shared=shared,
            pooled=SEEN[i % len(SEEN)],
        )  # fmt: skip
        folders.append(folder)
    return folders


@contextmanager
def stage_calls(engine: Engine) -> Iterator[list[str]]:
    """Record the digest of every layer that the engine runs."""
    calls: list[str] = []
    hooks = [
        layer.module.register_forward_hook(lambda *_, d=digest: calls.append(d))
        for digest, layer in engine._layers.items()
    ]
    yield calls
    for hook in hooks:
        hook.remove()


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_one_bundle_describes_pictures_and_alike_ones_alike(tmp_path: Path) -> None:
    folders = bundles(tmp_path, MIXES["all alike"])
    engine = Engine(folders, "cpu", "float32")
    batch = pictures(6)
    batch[1] = np.clip(batch[0].astype(int) + 3, 0, 255)  # a little brighter
    _, vectors = engine.predict_and_describe({TRANSFORM: batch})
    assert {len(vector) for vector in vectors} == {8 + 64}
    assert len({vector[:8] for vector in vectors}) == 1
    numbers = np.stack([np.frombuffer(vector[8:], np.int8) for vector in vectors]).astype(float)
    numbers /= np.linalg.norm(numbers, axis=1, keepdims=True)
    cosines = numbers @ numbers.T
    assert cosines[0, 1] > 0.97
    assert np.triu(cosines, 2).max() < cosines[0, 1]
    assert engine.predict_and_describe({TRANSFORM: batch})[1] == vectors
    other, _, widest = engine.bundles
    assert engine.predict_and_describe({TRANSFORM: batch}, only={widest.digest})[1] == vectors
    assert not engine.predict_and_describe({TRANSFORM: batch}, only={other.digest})[1]


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("precision", [pytest.param("auto", marks=pytest.mark.slow), "float32"])
@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_scores_equal_those_of_the_separate_models(
    tmp_path: Path, mix: list[tuple[str, int]], precision: str, device: str
) -> None:
    folders, batch = bundles(tmp_path, mix), pictures(5)
    engine = Engine(folders, device, precision)
    scores = engine.score({TRANSFORM: batch})
    tolerance = 1e-5 if engine.dtype == torch.float32 else 2e-2
    for digest, alone in scores_alone(folders, batch).items():
        np.testing.assert_allclose(scores[digest], alone, atol=tolerance)


@pytest.mark.parametrize(
    ("mix", "runs"),
    [
        ("all alike", 5),
        pytest.param("some alike", 1 + 2 + 2 + 3 + 3, marks=pytest.mark.slow),
        ("nothing alike", 15),
    ],
)
def test_a_shared_layer_runs_once(tmp_path: Path, mix: str, runs: int) -> None:
    engine = Engine(bundles(tmp_path, MIXES[mix]), "cpu")
    with stage_calls(engine) as calls:
        engine.score({TRANSFORM: pictures(1)})  # of more, each core takes some
    distinct = {b.prefixes[s] for b in engine.bundles for s in LAYERS}
    assert sorted(calls) == sorted(distinct)
    assert len(calls) == runs


def test_the_engine_keeps_one_copy_of_what_is_shared(tmp_path: Path) -> None:
    engine = Engine(bundles(tmp_path, MIXES["all alike"]), "cpu")
    assert len(engine._layers) == len(LAYERS)


def test_only_the_bundles_named_are_run(tmp_path: Path) -> None:
    folders = bundles(tmp_path, MIXES["nothing alike"])
    engine = Engine(folders, "cpu")
    wanted = engine.bundles[1].digest
    with stage_calls(engine) as calls:
        assert set(engine.score({TRANSFORM: pictures(1)}, only=[wanted])) == {wanted}
    assert len(calls) == len(LAYERS)


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_what_several_cores_score_comes_back_in_order(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    engine = Engine([tmp_path], "cpu", "float32")
    batch = pictures(51)  # more than two cores take at once, and no multiple of it
    together = engine.score({TRANSFORM: batch})[bundle.digest]
    alone = [engine.score({TRANSFORM: batch[[i]]})[bundle.digest] for i in range(len(batch))]
    assert len(np.unique(together, axis=0)) == len(batch)
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5)


@pytest.mark.usefixtures("two_cores")
def test_an_engine_leaves_torchs_threads_as_they_were(tmp_path: Path) -> None:
    def seen_by_a_new_thread() -> int:
        with ThreadPoolExecutor(1) as one:
            return one.submit(torch.get_num_threads).result()

    write_bundle(tmp_path)
    before = torch.get_num_threads(), seen_by_a_new_thread()
    engine = Engine([tmp_path], "cpu")
    engine.score({TRANSFORM: pictures(20)})
    assert (torch.get_num_threads(), seen_by_a_new_thread()) == before


@pytest.mark.slow
def test_bundles_of_different_sizes_are_each_given_their_own_view(tmp_path: Path) -> None:
    small = write_bundle(tmp_path / "small")
    large = write_bundle(tmp_path / "large", "style", transform=Transform(size=64))
    engine = Engine([tmp_path / "small", tmp_path / "large"], "cpu")
    assert {t.size for t in engine.transforms} == {32, 64}
    views = {t: pictures(3, t.size) for t in engine.transforms}
    scores = engine.score(views)
    assert scores[small.digest].shape == scores[large.digest].shape == (3, 3)


def test_predictions_follow_the_decision_rule(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, thresholds=(0.4, 0.5, 0.6))
    engine = Engine([tmp_path], "cpu")
    views = {TRANSFORM: pictures(6)}
    answers = engine.predict(views)[bundle.digest]
    decided = tags_of(predict(engine.score(views)[bundle.digest], bundle.thresholds), bundle.tags)
    assert [answer.tags for answer in answers] == decided
    assert all(answer.tags for answer in answers)
    assert all(0 <= score <= 1 for answer in answers for score in answer.scores)


@pytest.mark.slow
def test_a_group_that_may_abstain_does_so_in_the_engine_and_in_a_served_model(
    tmp_path: Path,
) -> None:
    high = (0.999,) * 3
    write_bundle(tmp_path / "best", thresholds=high)
    views = {TRANSFORM: pictures(6)}
    (scores,) = Engine([tmp_path / "best"], "cpu").score(views).values()
    lowest, *_, highest = sorted(scores.max(axis=1))
    bound = float(lowest + highest) / 2
    bundle = write_bundle(tmp_path / "none", thresholds=high, none_below=bound)
    for name, source in served_sources().items():
        (tmp_path / "core" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "core" / name).write_bytes(source)
    served = importlib.import_module(f"{load_core(tmp_path / 'core')}.inference.engine")
    expected = tags_of(predict(scores, high, bound), bundle.tags)
    assert () in expected
    assert any(expected)
    for engine in (Engine([tmp_path / "none"], "cpu"), served.Engine([tmp_path / "none"], "cpu")):
        (transform,) = engine.transforms
        (predictions,) = engine.predict({transform: views[TRANSFORM]}).values()
        assert [prediction.tags for prediction in predictions] == expected


@pytest.mark.slow
def test_a_picture_is_unsure_beyond_the_bundles_distance(tmp_path: Path) -> None:
    plain = write_bundle(tmp_path / "plain")
    views = {TRANSFORM: pictures(6)}
    predictions = Engine([tmp_path / "plain"], "cpu").predict(views)[plain.digest]
    assert not any(prediction.unsure for prediction in predictions)
    model = load_model(tmp_path / "plain", plain)
    with torch.inference_mode():
        state = begin(torch.from_numpy(views[TRANSFORM]), TRANSFORM, plain.pooled)
        found = usual_of(model, torch.device("cpu")).distances(model.seen(model.run(state, LAYERS)))
    lowest, *_, highest = sorted(found.tolist())
    limit = (lowest + highest) / 2
    # Beside another that shares its layers and head inputs, and one that does not.
    bundle = write_bundle(tmp_path / "far", unsure_above=limit)
    write_bundle(tmp_path / "other", "style", head_seed=2)
    write_bundle(tmp_path / "third", "detail", head_seed=3, pooled=("layer4",))
    engine = Engine([tmp_path / name for name in ("far", "other", "third")], "cpu", "float32")
    predictions = engine.predict(views)[bundle.digest]
    assert [prediction.unsure for prediction in predictions] == [d > limit for d in found.tolist()]


def test_folded_batch_norms_and_bfloat16_change_scores_by_little(tmp_path: Path) -> None:
    write_bundle(tmp_path, head_seed=3)
    bundle = load_bundle(tmp_path)
    model, x = load_model(tmp_path, bundle), torch.randn(4, 3, 32, 32)
    with torch.inference_mode():
        plain = model.layer2(model.layer1(model.stem(x)))
        for layer in ("stem", "layer1", "layer2"):
            for_inference(model.layer(layer))
        folded = model.layer2(model.layer1(model.stem(x)))
    torch.testing.assert_close(folded, plain, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.layer1.modules())


def test_a_batch_grows_with_the_memory_that_is_free_up_to_a_limit() -> None:
    megabyte = 2**20
    assert batch_that_fits(100 * megabyte, 10 * megabyte, least=64) == 64
    assert batch_that_fits(8000 * megabyte, 10 * megabyte, least=64) == 128
    assert batch_that_fits(80000 * megabyte, 10 * megabyte, least=64) == 1024


def test_on_a_cpu_the_batch_is_the_one_configured(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    assert Engine([tmp_path], "cpu").batch_size(48) == 48


@pytest.mark.gpu
def test_on_a_gpu_batches_may_be_scored_side_by_side(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, pooled=SEEN[1])
    engine = Engine([tmp_path], "cuda")
    rng = np.random.default_rng(3)
    batches = [rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8) for _ in range(8)]
    alone = [engine.score({TRANSFORM: batch})[bundle.digest] for batch in batches]
    with ThreadPoolExecutor(2) as two:
        together = list(two.map(lambda b: engine.score({TRANSFORM: b})[bundle.digest], batches))
    np.testing.assert_allclose(together, alone, atol=2e-3)


@pytest.mark.gpu
def test_on_a_gpu_the_batch_is_no_smaller_and_fits(tmp_path: Path) -> None:
    write_bundle(tmp_path)
    engine = Engine([tmp_path], "cuda")
    size = engine.batch_size(16)
    assert size >= 16
    assert len(engine.score({TRANSFORM: pictures(size)})[engine.bundles[0].digest]) == size
