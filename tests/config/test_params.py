from __future__ import annotations

import copy
import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from shoetagger.config.params import Params, load, parse
from shoetagger.config.reading import read_yaml
from shoetagger.config.strict import ParamsError
from shoetagger.network.backbone import pooled_of
from shoetagger.network.cut import cut_of

OURS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = read_yaml(OURS.read_text(encoding="utf-8"))
    return loaded


def changed(document: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    result = copy.deepcopy(document)
    *path, last = key.split(".")
    section = result
    for name in path:
        section = section[name]
    section[last] = value
    return result


def test_the_repos_own_file_is_read_and_holds_the_articles_19_tags_in_3_groups() -> None:
    params = load(OURS)
    assert [len(group.tags) for group in params.groups.values()] == [7, 7, 5]
    assert len(set(params.tags)) == 19


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["resnet18", "timm:vit_tiny_patch16_224"])
def test_all_that_a_backbone_has_can_be_named(document: dict[str, Any], arch: str) -> None:
    cut = cut_of(arch)
    for freeze in ("none", *cut.layers):
        parse(changed(document, "train", document["train"] | {"arch": arch, "freeze": freeze}))
    params = parse(changed(document, "train.pooled", list(pooled_of(arch))))
    assert params.train.pooled == pooled_of(arch)


def test_a_group_is_four_lines_of_the_file(document: dict[str, Any]) -> None:
    params = parse(changed(document, "groups.sole", {"tags": ["platform", "wedge"]}))
    assert params.group("sole").tags == ("platform", "wedge")
    assert params.tags[-2:] == ("platform", "wedge")


def test_a_group_may_train_differently(document: dict[str, Any]) -> None:
    params = parse(changed(document, "groups.color.train", {"epochs": 3}))
    assert params.train_of("color").epochs == 3
    assert params.train_of("color").head_lr == params.train.head_lr
    assert params.train_of("style") == params.train


def test_a_title_is_read_in_place_of_a_tag_or_a_group(document: dict[str, Any]) -> None:
    params = parse(changed(document, "titles", {"boot": "Boots", "style": "Kind of shoe"}))
    assert [params.title(name) for name in ("boot", "style", "heel")] == [
        "Boots", "Kind of shoe", "heel",
    ]  # fmt: skip
    del document["titles"]  # as in commits of before
    assert parse(document).title("boot") == "boot"


@pytest.mark.parametrize(
    ("titles", "message"),
    [
        ({"boots": "Boots"}, "titles.boots: there is no such tag or group; did you mean 'boot'?"),
        ({"boot": "Heel"}, "titles.boot: 'Heel' is what people read for 'heel', too"),
        ({"boot": "Shoes", "heel": "shoes"}, "titles.heel: 'shoes' is what people read for 'boot'"),
        ({"boot": " Boots"}, "titles.boot: ' Boots' cannot be a title"),
        ({"boot": "one, two"}, "titles.boot: 'one, two' cannot be a title"),
        ({"boot": 7}, "titles.boot: 7 is not text"),
    ],
)
def test_a_title_that_would_mislead_is_refused(
    document: dict[str, Any], titles: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        parse(changed(document, "titles", titles))
    (fault,) = caught.value.faults
    assert fault.startswith(message)


def test_a_detector_is_for_pictures_that_are_cropped_to_the_shoe(document: dict[str, Any]) -> None:
    file = "data/shoe_detector.tflite"
    assert parse(changed(document, "images.detector", file)).images.detector == file
    with pytest.raises(ParamsError, match=r"images\.detector: .* set images\.framing to shoe"):
        parse(changed(changed(document, "images.framing", "whole"), "images.detector", file))


def test_a_group_may_say_none_of_these(document: dict[str, Any]) -> None:
    params = parse(changed(document, "groups.color.decide", {"none_below": 0.2}))
    assert params.group("color").none_below == 0.2
    assert params.group("style").none_below is None
    assert parse(changed(document, "groups.color.decide", "best")) == parse(document)


def test_a_whole_number_is_a_number(document: dict[str, Any]) -> None:
    assert parse(changed(document, "images.augment.rotate", 8)).images.augment.rotate == 8.0


def test_a_number_with_an_exponent_is_one_as_it_is_to_dvc(document: dict[str, Any]) -> None:
    document["train"] |= yaml.safe_load("{head_lr: 1e-3, backbone_lr: 2.5E-4}")
    assert parse(document).train.head_lr == 0.001
    assert parse(document).train.backbone_lr == 0.00025


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train.epoch", 5, "unknown key train.epoch: the keys here are arch, "),
        ("training", {}, "unknown key training"),
        ("train.epochs", "five", "train.epochs: 'five' is not a whole number"),
        ("train.epochs", True, "train.epochs: True is not a whole number"),
        ("train.epochs", 5.0, "train.epochs: 5.0 is not a whole number"),
        ("train.epochs", 0, "train.epochs: must be at least 1"),
        ("train.head_lr", "1e-3 or so", "train.head_lr: '1e-3 or so' is not a number"),
        ("train.epochs", "1e1", "train.epochs: '1e1' is not a whole number"),
        ("train.arch", "resnet 18", "train.arch: must be a backbone of torchvision, such as"),
        ("train.arch", "timm:", "train.arch: must be a backbone of torchvision, such as"),
        ("train.freeze", "layer", "train.freeze: must be none, stem, layer1, layer2"),
        ("train.weights", "Imagenet", "train.weights: must be imagenet, pretrained, none, or a"),
        ("train.weights", "data/../w.safetensors", "train.weights: must be imagenet, pretrained"),
        ("train.weights", "/w.safetensors", "train.weights: must be imagenet, pretrained, none"),
        ("train.weights", "none", "train.freeze: freezing layers of a network with random"),
        ("images.detector", "/shoe.tflite", "images.detector: must be none, or a .tflite file in"),
        ("images.detector", "data/../s.tflite", "images.detector: must be none, or a .tflite"),
        ("images.detector", "data/shoe.onnx", "images.detector: must be none, or a .tflite file"),
        ("train.weights", ["none"], "train.weights: ['none'] is not text"),
        ("train.head_l2", True, "train.head_l2: True is not a number"),
        ("train.head_l2", "0.1", "train.head_l2: '0.1' is not a number"),
        ("train.pooled", "layer4", "train.pooled: 'layer4' is not a list"),
        ("train.pooled", ["layer4", "layers"], "train.pooled[1]: must be histogram, or a layer"),
        ("train.pooled", [], "train.pooled: must name at least one"),
        ("train.batch_size", 1, "train.batch_size: must be at least 2, for batch norm; it is 1"),
        ("train", None, "train: None is not a mapping of keys to values"),
        ("train", {5: 1}, "unknown key train.5: the keys here are arch, "),
        ("audit.exclusive", ["shiny"], "audit.exclusive[0]: 'shiny' is not a list"),
        ("audit.exclusive", [["shiny", 1]], "audit.exclusive[0][1]: 1 is not text"),
        ("images.augment.hue", float("nan"), "images.augment.hue: nan is not a finite number"),
        ("features.max_gb", float("nan"), "features.max_gb: nan is not a finite number"),
        ("features.max_gb", float("inf"), "features.max_gb: inf is not a finite number"),
        ("tag.budget_minutes", "1e999", "tag.budget_minutes: '1e999' is not a finite number"),
        ("tag.schedule", "0 2 30 2 *", "a cron line of five fields, for a day that comes; it is"),
        ("tag.schedule", 2, "tag.schedule: 2 is not text"),
        ("split.validation", 1, "split.validation: must lie between 0 and 1"),
        ("split.folds", 1, "split.folds: must be 0 (none) or at least 2"),
        ("split.repeats", 0, "split.repeats: must be at least 1"),
        ("split.repeats", 1.5, "split.repeats: 1.5 is not a whole number"),
        ("promote.margin", 0.1, "unknown key promote.margin: the keys here are min_positives, "),
        ("promote.rule.min_support", 0, "promote.rule.min_support: must be at least 1"),
        ("promote.approval", "sometimes", "'sometimes' is not one of never, always"),
        ("promote.approval", None, "promote.approval: None is not one of never, always"),
        ("promote.approval", {}, "missing key promote.approval.when_tags_change_over"),
        ("promote.approval", {"when": 1}, "unknown key promote.approval.when: the keys here are"),
        ("promote.approval", {"when_tags_change_over": 2}, "change_over: must lie in 0..1"),
        ("groups.color.decide", "worst", "groups.color.decide: 'worst' is not one of best"),
        ("groups.color.decide", {"below": 0.2}, "unknown key groups.color.decide.below"),
        ("groups.color.decide", {"none_below": 0}, "decide.none_below: must lie in (0, 1]"),
        ("articles.pattern", "(", "articles.pattern: must be a regular expression with a group"),
        ("articles.pattern", r"(\d+)_", "with a group named article, such as '(?P<article>"),
        ("articles.pattern", 1, "articles.pattern: 1 is not"),
        ("promote.approval_hours", 0, "promote.approval_hours: must lie in (0, 16800000]"),
        ("groups", {}, "groups: name at least one group"),
        ("groups", ["color"], "groups: ['color'] is not a mapping"),
        ("groups.color", ["black"], "groups.color: ['black'] is not a mapping of keys to values"),
        ("groups.1", {"tags": ["a"]}, "groups.1: a group's name is made of"),
        ("groups.overall", {"tags": ["a"]}, "groups.overall: a group's name is made of"),
        ("groups.color.tags", ["black", 5], "groups.color.tags[1]: 5 is not text"),
        ("groups.color.tags", [" black"], "groups.color.tags: ' black' cannot be a tag"),
        ("groups.color.tags", ["fold"], "groups.color.tags: 'fold' cannot be a tag"),
        ("groups.color.tags", ["Image_Name"], "'Image_Name' cannot be a tag"),
        ("groups.color.tags", ["red, white"], "'red, white' cannot be a tag: at most 100"),
        ("groups.color.tags", ["red\nwhite"], "'red\\nwhite' cannot be a tag"),
        ("groups.color.tags", ["x" * 101], "cannot be a tag"),
        ("groups.color.tags", [""], "groups.color.tags: '' cannot be a tag"),
        ("groups.color.tags", ["caf\u00e9", "cafe\u0301"], "is also a tag of color"),
        ("groups.Color", {"tags": ["x"]}, "groups: Color and color differ only in letter case"),
        ("groups.copies", {"tags": ["x"]}, "groups.copies: a group's name is made of"),
        ("groups.a/b", {"tags": ["x"]}, "groups.a/b: a group's name is made of"),
        ("groups.color.tags", ["Black", "black"], "'black' is also a tag of color"),
        ("groups.color.train", [], "groups.color.train: [] is not a mapping"),
        ("groups.color.train", {"epochs": 0}, "groups.color.train.epochs: must be at least 1"),
        ("groups.color.train", {"epochs": "3"}, "groups.color.train.epochs: '3' is not a whole"),
        ("groups.color.tags", "black", "groups.color.tags: 'black' is not a list"),
        ("groups.color.tags", [], "groups.color.tags: name at least one tag"),
        ("groups.style.tags", ["boot", "red"], "'red' is also a tag of color"),
        ("groups.style.tags", ["boot", "boot"], "'boot' is also a tag of style"),
        ("groups.my-group", {"tags": ["a"]}, "groups.my-group: a group's name"),
        ("groups.color.train", {"lr": 1.0}, "unknown key groups.color.train.lr"),
        (
            "groups.color.train",
            {"arch": "resnet50"},
            "all groups share one backbone; set train.arch",
        ),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(
    document: dict[str, Any], key: str, value: object, message: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        parse(changed(document, key, value))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("allowed", "values", "keys"),
    [
        ("must be at least 1", (0, -1), (
            "train.epochs", "train.positive_weight", "images.max_bytes", "images.max_pixels",
            "features.views", "evaluate.min_positives", "audit.per_tag", "audit.shown",
            "promote.min_positives", "promote.rule.tag_min_positives", "promote.rule.min_support",
            "tag.batch_size", "tag.decode_workers", "tag.alert_from", "tag.drift.nights",
            "tag.drift.min_nights", "publish.page_size", "publish.max_pages", "keep.checkouts",
            "keep.page_days",
        )),
        ("must be at least 0", (-1,), (
            "train.head_l2", "train.backbone_lr", "train.weight_decay", "features.max_gb",
            "evaluate.shrink", "evaluate.bootstrap", "promote.bootstrap", "promote.sample",
            "promote.rule.macro_f1_margin", "promote.rule.tag_f1_margin", "tag.settle_seconds",
            "keep.outbox_mb",
        )),
        ("must be above 0", (0, -1), (
            "train.head_lr", "tag.decode_seconds", "tag.drift.deviations",
            "tag.max_hours_without_night",
        )),
        ("must lie in (0, 1008000000]", (0, 1008000001), ("tag.budget_minutes",)),
        ("must lie in (0, 16800000]", (-1, 16800001), (
            "promote.approval_hours", "labels.approval_hours",
        )),
        ("must lie in 1..700000", (0, 700001), ("keep.run_days",)),
        ("must lie in [0, 18446744073709551616)", (-1, 2**64), ("split.seed", "train.seed")),
        ("must lie in 0..1", (-0.1, 1.1), (
            "images.augment.flip", "images.augment.brightness", "images.augment.contrast",
            "images.augment.saturation", "images.augment.hue", "images.augment.erase",
            "images.augment.background", "tag.max_rejected", "tag.max_missing", "tag.drift.least",
        )),
        ("must lie in [0, 1)", (-0.1, 1), ("train.ema", "train.dropout", "train.label_smoothing")),
        ("must lie in (0, 1]", (0, 1.1), (
            "images.augment.min_scale", "images.augment.zoom_out",
            "audit.near_duplicate_correlation",
        )),
        ("must lie between 0 and 1", (0, 1), ("split.validation",)),
        ("must lie in 0..180", (-1, 181), ("images.augment.rotate",)),
        ("must lie in 32..1024", (31, 1025), ("images.size",)),
        ("must lie in 16..1024", (15, 1025), ("publish.thumbnail",)),
        ("must lie in 1..256", (0, 257), ("tag.shards",)),
        ("must be at least 100", (99,), ("tag.decode_memory_mb",)),
        ("must be at least 2, for batch norm", (1,), ("train.batch_size",)),
        ("must be 0 (none) or at least 2", (-1, 1), ("split.folds",)),
        ("must be a cron line of five fields, for a day that comes", ("", "0 2 * *"), (
            "tag.schedule",
        )),
    ],
)  # fmt: skip
def test_every_number_has_its_range(
    document: dict[str, Any], allowed: str, values: tuple[object, ...], keys: tuple[str, ...]
) -> None:
    for key, value in itertools.product(keys, values):
        with pytest.raises(ParamsError) as caught:
            parse(changed(document, key, value))
        assert str(caught.value) == f"{key}: {allowed}; it is {value!r}"


def test_a_tag_may_be_any_words_and_a_group_any_letters(document: dict[str, Any]) -> None:
    odd = ["steel toe (S3)", "größe 4½", "a/../b", ".", "'quoted' \"twice\"", "👟 & 50%", "=1+1"]
    document["groups"]["größe"] = {"tags": odd}
    assert parse(document).groups["größe"].tags == tuple(odd)


def test_every_fault_has_a_line_unknown_keys_first(document: dict[str, Any]) -> None:
    document["train"] |= {"epochs": 0, "dropout": "some"}
    document["tag"]["shard"] = document["tag"].pop("shards")
    with pytest.raises(ParamsError) as caught:
        parse(document)
    unknown, *rest = str(caught.value).splitlines()
    assert unknown.startswith("unknown key tag.shard: the keys here are schedule, shards, ")
    assert sorted(rest) == [
        "missing key tag.shards",
        "train.dropout: 'some' is not a number",
        "train.epochs: must be at least 1; it is 0",
    ]
    assert caught.value.faults == (unknown, *rest)


def test_a_file_of_before_some_keys_were_there_is_read_with_their_defaults(
    document: dict[str, Any],
) -> None:
    for key, default in (("max_missing", 0.9), ("max_hours_without_night", 26.0)):
        del document["tag"][key]
        assert getattr(parse(document).tag, key) == default


def test_the_hours_without_a_night_can_be_switched_off(document: dict[str, Any]) -> None:
    document["tag"]["max_hours_without_night"] = None
    assert parse(document).tag.max_hours_without_night is None
    document["tag"]["max_hours_without_night"] = "never"
    with pytest.raises(ParamsError, match="max_hours_without_night: 'never' is not a number"):
        parse(document)


def test_a_missing_key_is_named(document: dict[str, Any]) -> None:
    del document["split"]["seed"]
    with pytest.raises(ParamsError, match=r"^missing key split\.seed$"):
        parse(document)


def test_an_unknown_group_is_refused_with_the_groups_there_are() -> None:
    with pytest.raises(ParamsError, match=r"no group 'colour'.*color, style, detail"):
        load(OURS).group("colour")


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match="is missing: restore it"):
        load(path)
    path.write_text("train: [", encoding="utf-8")
    with pytest.raises(ParamsError, match="is not valid YAML"):
        load(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ParamsError, match=r"params\.yaml: the file: None is not a mapping"):
        load(path)
    path.write_text(OURS.read_text(encoding="utf-8") + "\nspare: 1\nkept: 2\n", encoding="utf-8")
    with pytest.raises(ParamsError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    keys = "the keys here are groups, split, "
    assert lines[0].startswith(f"params.yaml: unknown key spare: {keys}")
    assert lines[1].startswith(f"params.yaml: unknown key kept: {keys}")


def test_params_cannot_be_changed_by_those_who_get_them() -> None:
    params = load(OURS)
    assert isinstance(params, Params)
    with pytest.raises(AttributeError):
        params.split.seed = 2  # type: ignore[misc]
