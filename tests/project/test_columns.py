"""The columns of somebody's spreadsheet are told apart, and become groups in params.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from shoetagger.config.params import load
from shoetagger.config.recipe import Group, NoneBelow
from shoetagger.errors import ShoetaggerError
from shoetagger.learning.dataset.image_files import ImageFiles
from shoetagger.project.columns import (
    Columns,
    ColumnsError,
    columns_of,
    groups_of,
    named_groups,
    named_tags,
)
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


def columns(*tags: str, **others: str) -> Columns:
    return Columns("Photo", tags, others, {})


def test_pictures_tags_and_other_columns_are_told_apart_and_each_other_one_says_why(
    files: ImageFiles,
) -> None:
    found = columns_of(ROWS, files)
    assert found.picture == "Photo"
    assert found.tags == ("red", "lace")
    assert found.others == {
        "SKU": "row 2: 'A1' is no tick",
        "price": "row 2: '9.90' is no tick",
        "tags": "every table has a column of that title, or it is too long for a tag",
    }
    assert found.rare == {"one": "a tag needs 2 pictures at least, and 1 has it"}


def test_a_mistyped_cell_in_a_column_of_ticks_is_refused_by_row_and_column(
    files: ImageFiles,
) -> None:
    rows = [
        ["image_name", "boot", "tan, hell", "note"],
        ["a.jpg", 1, 1, "ja"],
        [None] * 4,
        ["b.jpg", "ja", 1, None],
        ["c.jpg", 0, 0, "x"],
        *[[f"{name}.jpg", 1, 0, None] for name in "de"],
    ]
    fault = "row 4, column 'boot': 'ja' is neither 1 (or true, x) nor 0 (or false, empty)"
    with pytest.raises(ColumnsError) as refused:
        columns_of(rows, files)
    assert str(refused.value) == (
        f"{fault}\nnothing was changed: correct this, or leave a column aside by naming the tags "
        "with --group"
    )
    with pytest.raises(ColumnsError, match="row 2, column 'note': 'ja' is neither"):
        columns_of(rows, files, ["Note"])

    rows[3][1] = None
    rows[4][1] = 1
    rows[1][1] = "x"
    found = columns_of(rows, files)
    assert found.tags == ("boot",)
    assert found.others == {
        "tan, hell": "a tag has no comma in its title, for lists of tags have commas in between",
        "note": "row 2: 'ja' is no tick",
    }


def test_a_sheet_without_pictures_or_tags_is_refused_with_its_columns(files: ImageFiles) -> None:
    with pytest.raises(ColumnsError, match=r"no column names pictures in .*; there are name, red"):
        columns_of([["name", "red"], ["gone.jpg", 1], ["gone too.jpg", 1]], files)
    with pytest.raises(ColumnsError, match="no column is a tag"):
        columns_of([["image_name", "price"], ["a.jpg", "9.90"]], files)
    with pytest.raises(ColumnsError, match="there are no columns"):
        columns_of([], files)


def test_groups_come_from_what_is_known_then_from_titles() -> None:
    known = {"color": Group(("red", "blue"), {"epochs": 3}), "style": Group(("boot", "heel"))}
    known["sole"] = Group(("sole: gone",), decide=NoneBelow(0.2))
    tags = ["Red", "blue", "boot", "sole: flat", "sole: wedge", "trim.bow", "lace"]
    assert groups_of(columns(*tags), known) == {
        "color": known["color"],
        "sole": Group(("sole: flat", "sole: wedge"), decide=NoneBelow(0.2)),
        "other": Group(("boot", "trim.bow", "lace")),
    }
    assert groups_of(columns("lace", "bow"), known) == {"all": Group(("lace", "bow"))}


def test_a_known_group_goes_without_a_tag_that_too_few_pictures_have(files: ImageFiles) -> None:
    rows = [["image_name", "red", "white"], ["a.jpg", 1, 1], ["b.jpg", 1, 0], ["c.jpg", 0, 0]]
    found = columns_of(rows, files)
    assert found.rare == {"white": "a tag needs 2 pictures at least, and 1 has it"}
    known = {"color": Group(("white", "red"), {"epochs": 3})}
    assert groups_of(found, known) == {"color": Group(("red",), {"epochs": 3})}


def test_groups_may_be_named_and_known_ones_keep_their_recipes() -> None:
    found = columns("red", "blue", "lace", price="row 2: '9.90' is no tick")
    named = named_tags(["color=Red, blue", "form=lace"])
    known = {"form": Group(("boot",), {"epochs": 3}, NoneBelow(0.2))}
    assert named_groups(named, found, known) == {
        "color": Group(("red", "blue")),
        "form": Group(("lace",), {"epochs": 3}, NoneBelow(0.2)),  # its recipe stays
    }
    for pair, message in {
        "color": "write NAME=TAG,TAG",
        "2=red": "write NAME=TAG,TAG",
        "color=bleu": r"'bleu' is no column of ticks; did you mean 'blue'\?",
        "color=xyz": "'xyz' is no column of ticks: there are red, blue, lace",
        "color=Price": "'Price' cannot be learned: row 2: '9.90' is no tick",
    }.items():
        with pytest.raises(ColumnsError, match=message):
            named_groups(named_tags([pair]), found, {})


def test_only_what_names_tags_changes_in_params_yaml() -> None:
    path = ROOT / "params.yaml"
    text = path.read_text(encoding="utf-8")
    before = load(path)
    same, params = with_groups(text, before.groups, path)
    assert (same, params) == (text, before)

    odd = Group(('a "b": c', "größe 4½", "yes", "1"), {"epochs": 3}, NoneBelow(0.2))
    groups = {"color": before.groups["color"], "odd": odd}
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
