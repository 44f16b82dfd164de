"""Bundles are what they say they are, and their digests depend on nothing but their contents."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.bundles import LAYERS, TRANSFORM, make_bundle, random_model, write_bundle
from torchvision.transforms.v2 import functional as F

from shoetagger.images.views import Transform
from shoetagger.inference.bundle import Bundle, load_bundle, save_bundle
from shoetagger.inference.loading import load_model
from shoetagger.network.backbone import State, TagModel, normalise
from shoetagger.network.devices import multiply_in_full, pick_device
from shoetagger.network.digests import prefix_digests
from shoetagger.network.layers import ModelError
from shoetagger.network.origin import Origin
from shoetagger.network.pooling import BINS
from shoetagger.network.weights import build


def test_a_bundle_survives_saving_and_loading(tmp_path: Path) -> None:
    written = replace(
        write_bundle(tmp_path, arch="resnet18", none_below=0.2, unsure_above=3.5),
        origin=Origin("x", None, "y 1"),
    )
    save_bundle(written, tmp_path / "bundle.json")
    read = load_bundle(tmp_path)
    assert read == written
    assert read.digest == written.digest
    original = random_model(3, backbone_seed=1, head_seed=1)
    loaded = load_model(tmp_path, read)
    state = State(torch.randn(2, 3, 32, 32), {})
    torch.testing.assert_close(loaded(state), original(state))


@pytest.mark.slow
def test_equal_inputs_give_equal_bundle_digests_wherever_they_are_written(tmp_path: Path) -> None:
    first, second = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "b")
    assert first.digest == second.digest
    assert make_bundle(tmp_path / "c", head_seed=2).digest != first.digest


def test_the_digest_of_a_bundle_is_that_of_before_rules_were_there() -> None:
    plain = Bundle(
        group="color",
        tags=("black", "red"),
        arch="resnet18",
        pooled=("layer4",),
        transform=Transform(size=32),
        thresholds=(0.5, 0.25),
        support=(10, 3),
        prefixes=dict.fromkeys(LAYERS, "0" * 64),
        pretrained=None,
        weights_sha256="1" * 64,
    )
    assert plain.digest == "695e6faac4b832d42dad8cf8e33b2e253d985e457ca7d132afaa0ac5a1dd1bec"
    assert replace(plain, none_below=0.2).digest != plain.digest
    assert replace(plain, unsure_above=3.5).digest != plain.digest
    origin = Origin("torchvision resnet18 IMAGENET1K_V1", "bsd-3-clause", "torchvision 0.29.2")
    assert replace(plain, origin=origin).digest == plain.digest, "of it, `pretrained` is in"


def test_the_prefixes_of_a_resnet_have_the_digests_of_before_there_were_other_backbones() -> None:
    model = TagModel("resnet18", 1)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            numbers = torch.arange(tensor.numel()).remainder(251)
            tensor.copy_(numbers.reshape(tensor.shape) / 256)
    last = "74e1d314022e157ea30d64d991c3c20a99d625c2cabb43246c79ac64e961efc4"
    assert prefix_digests(model, Transform())["layer4"] == last


def test_a_prefix_digest_changes_from_the_first_differing_layer_on() -> None:
    one = random_model(3, backbone_seed=1, head_seed=1, shared="layer2")
    other = random_model(5, backbone_seed=1, head_seed=2, shared="layer2")
    first, second = prefix_digests(one, TRANSFORM), prefix_digests(other, TRANSFORM)
    same = [layer for layer in LAYERS if first[layer] == second[layer]]
    assert same == ["stem", "layer1", "layer2"]


def test_a_prefix_digest_covers_batch_norm_buffers_and_the_transform() -> None:
    model = random_model(3, backbone_seed=1, head_seed=1)
    before = prefix_digests(model, TRANSFORM)
    assert prefix_digests(model, Transform(size=64))["stem"] != before["stem"]
    model.stem.bn1.running_mean += 1
    assert prefix_digests(model, TRANSFORM)["stem"] != before["stem"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 99),
        ("thresholds", [0.5]),
        ("thresholds", [0.5, 0.5, 7.0]),
        ("tags", ["black", "black", "red"]),
        ("prefixes", {"stem": "x"}),
        ("pooled", ["layer9"]),
        ("arch", "lenet 5"),
        ("none_below", 0.0),
        ("none_below", 1.5),
        ("unsure_above", 0.0),
        ("unsure_above", float("nan")),
        ("origin", {"source": "x"}),
        ("origin", {"source": None, "license": None, "library": "y"}),
        ("surprise", 1),
    ],
)
def test_a_bundle_with_a_fault_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    write_bundle(tmp_path)
    path = tmp_path / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ModelError, match="is not a bundle"):
        load_bundle(tmp_path)


def test_weights_that_are_not_the_bundles_own_are_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path)
    write_bundle(tmp_path / "other", head_seed=2)
    (tmp_path / "other" / "weights.safetensors").replace(tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match="its digest differs"):
        load_model(tmp_path, bundle)


def test_reading_a_bundle_imports_no_torch(tmp_path: Path) -> None:
    """Registering and promoting do so in processes of their own: torch would take seconds each."""
    write_bundle(tmp_path)
    program = (
        "import sys; from pathlib import Path; from shoetagger.inference.bundle import load_bundle;"
        "from shoetagger.tracking.registry import has_intact_bundle; folder = Path(sys.argv[1]);"
        "assert has_intact_bundle(folder, load_bundle(folder).digest);"
        "sys.exit(', '.join({'torch', 'torchvision'} & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_a_missing_bundle_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dvc repro"):
        load_bundle(tmp_path)


def test_imagenet_weights_that_are_not_available_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(ModelError, match=r"TORCH_HOME.*train\.weights=none"):
        build("resnet18", 3, "imagenet", ("layer4",), 0.0, size=224)


@pytest.mark.parametrize("damage", ["empty", "cut off", "no weights", "code"])
def test_a_damaged_weights_file_says_what_to_do_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    class Planted:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    cached = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    cached.parent.mkdir(parents=True)
    if damage == "code":
        cached.write_bytes(pickle.dumps(Planted()))
    elif damage == "cut off":
        torch.save({"conv1.weight": torch.zeros(1000)}, cached)
        cached.write_bytes(cached.read_bytes()[:500])
    else:
        cached.write_bytes(b"" if damage == "empty" else b"<html>not found</html>")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match="remove the damaged"):
        build("resnet18", 3, "imagenet", ("layer4",), 0.0, size=224)
    assert not (tmp_path / "ran").exists()


def test_a_named_gpu_that_is_missing_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="sees none"):
        pick_device("cuda:0")
    assert pick_device("auto") == torch.device("cpu")


def test_float32_keeps_all_of_its_bits_in_a_gpus_convolutions() -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = True  # torch's default
        multiply_in_full(torch.device("cpu"))
        assert torch.backends.cudnn.allow_tf32
        multiply_in_full(torch.device("cuda"))
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_a_models_head_is_as_wide_as_what_it_sees() -> None:
    model = TagModel("resnet18", 4, ("stem", "layer3", "layer4"))
    assert model.head.in_features == 2 * (64 + 256 + 512)
    assert TagModel("resnet50", 4, ("layer1", "layer4")).head.in_features == 2 * (256 + 2048)
    widths = TagModel("resnet18", 4, ("histogram", "layer2", "layer2_contrast")).widths
    assert widths == (BINS, 2 * 128, 2 * 128)


def test_pictures_are_normalised_as_torchvision_does() -> None:
    views = torch.randint(0, 256, (3, 8, 8, 3), dtype=torch.uint8)
    found = normalise(views, TRANSFORM)
    floats = views.permute(0, 3, 1, 2) / 255
    torch.testing.assert_close(found, F.normalize(floats, TRANSFORM.mean, TRANSFORM.std))
    assert found.is_contiguous(memory_format=torch.channels_last)
