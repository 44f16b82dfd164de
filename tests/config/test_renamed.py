"""A renamed key is refused with its new name; in an older commit's file it may have the old one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shoetagger.config.params import Params, parse
from shoetagger.config.reading import read_yaml
from shoetagger.config.renamed import RENAMED, new_key, old_key, old_names
from shoetagger.config.strict import ParamsError, fields_of

OURS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = read_yaml(OURS.read_text(encoding="utf-8"))
    return loaded


def as_before(document: dict[str, Any]) -> dict[str, Any]:
    """Give every renamed key its old name, in place."""
    for old, new in RENAMED.items():
        section = document[new.partition(".")[0]]
        section[old.partition(".")[2]] = section.pop(new.partition(".")[2])
    return document


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_new_names_are_keys_and_old_names_are_not(old: str, new: str) -> None:
    section, _, key = new.partition(".")
    fields = fields_of(fields_of(Params)[section].annotation)
    assert key in fields
    assert old.partition(".")[0] == section
    assert old.partition(".")[2] not in fields


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_refused_with_the_new_one(
    document: dict[str, Any], old: str, new: str
) -> None:
    section, _, key = old.partition(".")
    message = f"unknown key {old}: it is called {new} now"
    document[section][key] = document[section][new.partition(".")[2]]
    with pytest.raises(ParamsError) as caught:
        parse(document)  # both names, as with an override of a run
    assert str(caught.value) == message
    del document[section][new.partition(".")[2]]
    with pytest.raises(ParamsError) as caught:
        parse(document)  # and not that the new name is missing
    assert str(caught.value) == message


def test_an_old_name_in_a_groups_own_train_is_refused_with_the_new_one(
    document: dict[str, Any],
) -> None:
    document["groups"]["color"]["train"] = {"trunk_lr": 0.1}
    with pytest.raises(ParamsError) as caught:
        parse(document)
    assert str(caught.value) == (
        "unknown key groups.color.train.trunk_lr: it is called groups.color.train.backbone_lr now"
    )


def test_other_keys_have_no_other_name() -> None:
    assert new_key("train.epochs") is old_key("train.epochs") is None
    assert new_key("trunk_lr") is new_key("images.train.trunk_lr") is None
    assert old_key("groups.color.train.backbone_lr") == "groups.color.train.trunk_lr"


def test_the_file_of_an_older_commit_is_read_with_its_names(document: dict[str, Any]) -> None:
    assert old_names(document) == {}
    document["groups"]["color"]["train"]["backbone_lr"] = 0.5
    now = parse(document)
    document["groups"]["color"]["train"]["trunk_lr"] = document["groups"]["color"]["train"].pop(
        "backbone_lr"
    )
    before = as_before(document)
    assert old_names(before) == RENAMED
    assert parse(before, old_names(before)) == now
    assert "trunk_lr" in before["train"], "the original was changed"


def test_the_file_of_an_older_commit_has_no_new_names(document: dict[str, Any]) -> None:
    before = as_before(document)
    renamed = old_names(before)
    before["train"]["backbone_lr"] = 0.1
    before["groups"]["style"]["train"] = {"backbone_lr": 0.1}
    with pytest.raises(ParamsError) as caught:
        parse(before, renamed)
    assert str(caught.value).splitlines() == [
        "unknown key train.backbone_lr: in this commit it is called train.trunk_lr",
        "unknown key groups.style.train.backbone_lr: in this commit it is called "
        "groups.style.train.trunk_lr",
    ]


@pytest.mark.parametrize("document", [None, [], "text", {"groups": []}, {"train": None}, {1: 2}])
def test_what_is_no_params_file_has_no_old_names(document: object) -> None:
    assert old_names(document) == {}
    with pytest.raises(ParamsError):
        parse(document, RENAMED)
