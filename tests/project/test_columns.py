"""The columns of somebody's spreadsheet are told apart, and become groups in params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shoetagger.config.params import load
from shoetagger.config.recipe import Group
from shoetagger.errors import ShoetaggerError
from shoetagger.learning.dataset.image_files import ImageFiles
from shoetagger.project.columns import ColumnsError, columns_of, groups_of, named_groups
from shoetagger.project.params_file import with_groups

ROOT = Path(__file__).parents[2]
ROWS: list[list[object]] = [
    ["SKU", "Photo", "red", "lace", "price", "tags", "one", None],
    ["A1", "a.jpg", 1, "x", "9.90", 1, 1, None],
    ["A2", "b.jpg", 1, None, 0, 1, 0, None],
    [None] * 8,
    ["A3", "c.jpg", 0, "TRUE", None, 0],
]


@pytest.fixture
def files(tmp_path: Path) -> ImageFiles:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()
    return ImageFiles(tmp_path)


def test_pictures_tags_and_other_columns_are_told_apart(files: ImageFiles) -> None:
    columns = columns_of(ROWS, files, ())
    assert columns.picture == "Photo"
    assert columns.tags == ("red", "lace")
    assert columns.others == ("SKU", "price", "tags")  # `tags` is taken in every table
    assert columns.rare == ("one",)
    assert columns_of(ROWS, files, ["one"]).tags == ("red", "lace", "one")


def test_a_sheet_without_pictures_or_tags_is_refused_with_its_columns(files: ImageFiles) -> None:
    with pytest.raises(ColumnsError, match=r"no column names pictures in .*; there are name, red"):
        columns_of([["name", "red"], ["gone.jpg", 1], ["gone too.jpg", 1]], files, ())
    with pytest.raises(ColumnsError, match="no column is a tag"):
        columns_of([["image_name", "price"], ["a.jpg", "9.90"]], files, ())
    with pytest.raises(ColumnsError, match="there are no columns"):
        columns_of([], files, ())


def test_groups_come_from_what_is_known_then_from_titles() -> None:
    known = {"color": Group(("red", "blue"), {"epochs": 3}), "style": Group(("boot", "heel"))}
    tags = ["Red", "blue", "boot", "sole: flat", "sole: wedge", "trim.bow", "lace"]
    groups = groups_of(tags, known)
    assert groups == {
        "color": known["color"],
        "sole": Group(("sole: flat", "sole: wedge")),
        "other": Group(("boot", "trim.bow", "lace")),
    }
    assert groups_of(["lace", "bow"], known) == {"all": Group(("lace", "bow"))}


def test_groups_may_be_named() -> None:
    tags = ["red", "blue", "lace"]
    assert named_groups(["color=Red, blue"], tags) == {"color": Group(("red", "blue"))}
    for pair, message in {
        "color": "write NAME=TAG,TAG",
        "2=red": "write NAME=TAG,TAG",
        "color=bleu": r"'bleu' is no column of ticks; did you mean 'blue'\?",
        "color=xyz": "'xyz' is no column of ticks: there are red, blue, lace",
    }.items():
        with pytest.raises(ColumnsError, match=message):
            named_groups([pair], tags)


def test_only_what_names_tags_changes_in_params_yaml() -> None:
    path = ROOT / "params.yaml"
    text = path.read_text(encoding="utf-8")
    before = load(path)
    same, params = with_groups(text, before.groups, path)
    assert (same, params) == (text, before)

    groups = {"color": before.groups["color"], "odd": Group(('a "b": c', "größe 4½", "yes", "1"))}
    changed, params = with_groups(text.replace("titles: {}", "titles: {boot: Boots}"), groups, path)
    assert params.groups == groups
    assert params.audit.exclusive == ()
    assert params.titles == {}
    comments = [line for line in text.splitlines() if "#" in line]
    assert [line for line in changed.splitlines() if "#" in line] == [
        line.replace("[[above_ankle, below_ankle]]", "[]") for line in comments
    ]
    wanted = yaml.safe_load(text)
    del wanted["groups"], wanted["audit"]["exclusive"]
    written = yaml.safe_load(changed)
    del written["groups"], written["audit"]["exclusive"]
    assert written == wanted


def test_a_params_yaml_of_an_unusual_layout_is_left_to_its_owner() -> None:
    path = ROOT / "params.yaml"
    text = path.read_text(encoding="utf-8")
    unusual = text.replace("exclusive: [[", "exclusive:\n    [[")
    with pytest.raises(ShoetaggerError, match=r"unusual way.*color: \['red'\]"):
        with_groups(unusual, {"color": Group(("red",))}, path)
