"""Labels of other tools become rows of the label sheet: all of a file's, or none."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import openpyxl
import pytest
from PIL import Image
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.collection.exports import export_labels
from shoetagger.collection.imports import Imported, import_labels
from shoetagger.config.params import Params, load
from shoetagger.config.recipe import Group
from shoetagger.exchange import formats
from shoetagger.exchange.labelled import ExchangeError

ROOT = Path(__file__).parents[2]
HEADER = "image_name,black,red,boot,price\n"
SHEET = HEADER + "a.jpg,1,,1,9.90\n./2024//b.jpg,,1,,\n"


@pytest.fixture
def params() -> Params:
    groups = {"color": Group(("black", "red")), "style": Group(("boot",))}
    return dataclasses.replace(load(ROOT / "params.yaml"), groups=groups, titles={"boot": "Boots"})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images = tmp_path / "data" / "images"
    for name in ("a.jpg", "2024/b.jpg", "2025/b.jpg", "new one.jpg"):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (len(name), 2, 3)).save(images / name)
    (tmp_path / "data" / "labels.csv").write_text(SHEET)
    return tmp_path / "data"


def coco(*pictures: tuple[str, list[str]], categories: str = "black red boot") -> dict[str, object]:
    names = categories.split()
    return {
        "images": [{"id": i, "file_name": name} for i, (name, _) in enumerate(pictures)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {"image_id": i, "category_id": names.index(label)}
            for i, (_, labels) in enumerate(pictures)
            for label in labels
        ],
    }


def task(image: str, *choices: str, number: int = 1) -> dict[str, object]:
    result = {"type": "choices", "from_name": "tags", "value": {"choices": list(choices)}}
    annotation = {
        "id": number,
        "result": [result],
        "completed_by": {"email": "ann@example.com"},
        "updated_at": "2026-03-02T10:00:00Z",
    }
    return {"id": number, "data": {"image": image}, "annotations": [annotation]}


def imported(data: Path, params: Params, document: object, **options: object) -> Imported:
    file = data.parent / "labels.json"
    file.write_text(json.dumps(document))
    arguments = {"renamed": {}, "ignored": ()} | options
    return import_labels(file, data, params, **arguments)  # type: ignore[arg-type]


def refused(data: Path, params: Params, document: object, **options: object) -> tuple[str, ...]:
    before = (data / "labels.csv").read_bytes()
    with pytest.raises(ExchangeError) as caught:
        imported(data, params, document, **options)
    assert (data / "labels.csv").read_bytes() == before
    assert sorted(path.name for path in data.iterdir()) == ["images", "labels.csv"]
    return caught.value.faults


def rows(data: Path) -> dict[str, dict[str, str]]:
    with (data / "labels.csv").open(newline="", encoding="utf-8") as file:
        return {row["image_name"]: row for row in csv.DictReader(file)}


def test_rows_are_changed_and_added_and_other_cells_stay(data: Path, params: Params) -> None:
    labels = coco(("a.jpg", ["red", "boot"]), ("2024/b.jpg", ["red"]), ("new one.jpg", []))
    done = imported(data, params, labels)
    assert (done.new, done.changed, done.same) == (1, 1, 1)
    assert (data / "labels.csv").read_text() == (
        HEADER + "a.jpg,0,1,1,9.90\n./2024//b.jpg,0,1,0,\nnew one.jpg,0,0,0\n"
    )
    assert imported(data, params, labels).same == 3


def test_tags_that_were_not_asked_for_stay_as_they_are(data: Path, params: Params) -> None:
    done = imported(data, params, coco(("a.jpg", ["red"]), categories="black red"))
    assert done.changed == 1
    assert rows(data)["a.jpg"]["boot"] == "1"
    (fault,) = refused(data, params, coco(("new one.jpg", ["red"]), categories="black red"))
    assert fault.startswith("labels.json asks for none of boot, and 1 of its pictures have no row")
    assert "'new one.jpg'" in fault


def test_label_studio_names_pictures_by_address_and_says_who_and_when(
    data: Path, params: Params
) -> None:
    tasks = [
        task("/data/upload/3/1a2b3c4d-a.jpg", "black", "Boots"),
        task("/data/upload/3/5e6f7a8b-new%20one.jpg", "red", number=2),
    ]
    assert imported(data, params, tasks).new == 1
    row = rows(data)["new one.jpg"]
    assert (row["red"], row["boot"], row["black"]) == ("1", "0", "0")
    assert (row["labelled_by"], row["labelled_at"]) == ("ann@example.com", "2026-03-02")
    local = [task("/data/local-files/?d=shoes/images/2025/b.jpg", "black", "boot")]
    local.append(task("/data/local-files/?d=shoes/images/a.jpg", "black", "boot", number=2))
    assert imported(data, params, local).new == 1
    assert rows(data)["2025/b.jpg"]["black"] == "1"


def test_a_folder_is_never_left_out_where_pictures_of_several_are_named(
    data: Path, params: Params
) -> None:
    done = imported(data, params, coco(("x/2024/b.jpg", ["red"]), ("x/2025/b.jpg", ["black"])))
    assert (done.new, done.same) == (1, 1)
    (fault,) = refused(data, params, coco(("2023/a.jpg", []), ("2024/b.jpg", ["red"])))
    assert fault.startswith("labels.json, image 0: '2023/a.jpg' is no file in")


def test_what_the_sheet_cannot_take_is_refused_with_place_tag_and_next_step(
    data: Path, params: Params
) -> None:
    labels = coco(
        ("a.jpg", ["black"]),
        ("gone.jpg", []),
        ("a.jpg", ["boott", "red"]),
        ("2024/b.jpg", ["lace"]),
        categories="black red boot boott lace unused",
    )
    missing, near, other, unknown = refused(data, params, labels)
    assert missing.startswith("labels.json, image 1: 'gone.jpg' is no file in")
    assert missing.endswith("add the picture, or remove the row")
    assert near.startswith(
        "labels.json, image 2: 'boott' is no tag of params.yaml; did you mean 'boot'"
    )
    assert "--rename 'boott=TAG'" in near
    assert other == (
        "labels.json, image 2: another answer for 'a.jpg' than image 0, which differs in black, "
        "red: keep one of the two there, and export again"
    )
    assert unknown.startswith("labels.json, image 3: 'lace' is no tag of params.yaml; --rename")


def test_labels_may_be_renamed_or_left_out(data: Path, params: Params) -> None:
    labels = coco(("a.jpg", ["Stiefel", "lace"]), categories="black red Stiefel lace")
    done = imported(data, params, labels, renamed={"Stiefel": "boot"}, ignored=["lace"])
    assert done.changed == 1
    assert rows(data)["a.jpg"]["boot"] == "1"
    (fault,) = refused(data, params, labels, renamed={"Stiefel": "boott"})
    assert fault == "--rename: 'boott' is no tag of params.yaml; did you mean 'boot'?"


def test_a_tag_that_is_left_out_keeps_its_cells(data: Path, params: Params) -> None:
    assert imported(data, params, coco(("a.jpg", ["red", "boot"])), ignored=["boot"]).changed == 1
    assert rows(data)["a.jpg"]["boot"] == "1"
    assert imported(data, params, coco(("a.jpg", ["red"])), ignored=["boot"]).same == 1


def test_a_name_that_looks_like_an_address_is_a_name(data: Path, params: Params) -> None:
    odd = "10:30 100%25?d=x.jpg"
    (data / "images" / "new one.jpg").rename(data / "images" / odd)
    assert imported(data, params, coco((odd, ["red"]))).new == 1


def test_the_same_answer_twice_is_one(data: Path, params: Params) -> None:
    assert imported(data, params, coco(("a.jpg", ["red"]), ("a.jpg", ["red"]))).changed == 1


def test_a_sheet_with_faults_is_left_alone(data: Path, params: Params) -> None:
    (data / "labels.csv").write_text(SHEET.replace("9.90", "9.90\nelsewhere.jpg,1,,,"))
    first, fault = refused(data, params, coco(("a.jpg", ["red"])))
    assert "has faults already: mend them first" in first
    assert "elsewhere.jpg" in fault
    (data / "images" / "new one.jpg").write_bytes(b"no picture")
    (data / "labels.csv").write_text(SHEET)
    first, fault = refused(data, params, coco(("new one.jpg", ["red"])))
    assert "would have faults" in first
    assert "not a picture" in fault


def test_what_a_workbook_cannot_take_is_refused_with_its_cell(data: Path, params: Params) -> None:
    (data / "labels.csv").unlink()
    book = openpyxl.Workbook()
    for row in (["image_name", "black", "red", "boot"], ["a.jpg", 1, None, 1]):
        book.worksheets[0].append(row)
    book.save(data / "labels.xlsx")
    before = (data / "labels.xlsx").read_bytes()
    answer = task("/data/upload/3/1a2b3c4d-a.jpg", "red")
    answer["annotations"][0]["completed_by"]["email"] = "an\x01n"  # type: ignore[index]
    with pytest.raises(ExchangeError) as caught:
        imported(data, params, [answer])
    first, fault = caught.value.faults
    assert first == "nothing was imported, for the label sheet cannot take it"
    assert fault.startswith(r"labels.xlsx: cell E2 cannot hold 'an\x01n': take the control")
    assert (data / "labels.xlsx").read_bytes() == before


def test_without_a_sheet_one_is_begun(data: Path, params: Params) -> None:
    (data / "labels.csv").unlink()
    assert imported(data, params, coco(("a.jpg", ["red"]))).new == 1
    assert rows(data) == {"a.jpg": {"image_name": "a.jpg", "black": "0", "red": "1", "boot": "0"}}


@pytest.mark.parametrize("fmt", list(formats.WRITERS))
def test_an_export_comes_back_as_it_went(data: Path, params: Params, fmt: str) -> None:
    out = data.parent / "out.json"
    export_labels(out, data, params, fmt)
    done = import_labels(out, data, params, renamed={}, ignored=[])
    assert (done.new, done.changed, done.same) == (0, 0, 2)
    if fmt == "csv":
        assert out.read_text() == HEADER + "a.jpg,1,0,1,9.90\n2024/b.jpg,0,1,0,\n"


def test_the_commands_say_what_dvc_lacks(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = data.parent
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    begin, end = text.index("groups:"), text.index("# What people read")
    groups = "groups:\n  color: {tags: [black, red]}\n  style: {tags: [boot]}\n\n"
    quiet = text[:begin] + groups + text[end:]
    (repo / "params.yaml").write_text(quiet, encoding="utf-8")
    monkeypatch.setenv("SHOETAGGER_REPO", str(repo))

    def call(*arguments: str) -> str:
        return CliRunner().invoke(app, ["labels", *arguments], catch_exceptions=False).output

    out = repo / "shoes.json"
    assert "shoes.interface.xml" in call("export", str(out), "--format", "label-studio")
    call("export", str(out.with_suffix(".xml")))
    assert out.with_suffix(".xml").read_text().startswith("<?xml")
    assert call("import", str(out)) == "0 new rows, 0 changed, 2 as they were\n"
    tasks = json.loads(out.read_text())
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["rot"]
    tasks.append({"data": {"image": "/data/local-files/?d=images/2025/b.jpg"}, "annotations": []})
    out.write_text(json.dumps(tasks))
    said = call("import", str(out), "--rename", "rot=red")
    assert said.startswith(
        "0 new rows, 1 changed, 1 as they were\n1 pictures of shoes.json have no"
    )
    assert "data/ is not versioned yet: `dvc add data`" in said
    (repo / "data.dvc").touch()
    tasks[0]["annotations"][0]["result"][0]["value"]["choices"] = ["black"]
    out.write_text(json.dumps(tasks))
    assert "data/labels.csv is no longer what data.dvc says: `dvc add data`" in call(
        "import", str(out)
    )
