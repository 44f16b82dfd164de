"""Files as labelling tools write them are read, and what is written is read back the same."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from shoetagger.exchange import formats, label_studio
from shoetagger.exchange.labelled import ExchangeError, LabelFile, LabelledImage, Vocabulary

WORDS = Vocabulary({"color": ("black", "red"), "style": ("boot",)}, {"boot": "Boots & more"})

# Two questions; the second person skipped the picture, the third answer is the ground truth.
LABEL_STUDIO = [
    {
        "id": 7,
        "annotations": [
            {
                "id": 31,
                "completed_by": 1,
                "result": [
                    {
                        "value": {"choices": ["black"]},
                        "id": "kTz1",
                        "from_name": "color",
                        "to_name": "image",
                        "type": "choices",
                        "origin": "manual",
                    },
                    {
                        "value": {"choices": ["boot"]},
                        "id": "kTz2",
                        "from_name": "style",
                        "to_name": "image",
                        "type": "choices",
                        "origin": "manual",
                    },
                ],
                "was_cancelled": False,
                "ground_truth": False,
                "created_at": "2026-03-01T10:00:00.000000Z",
                "updated_at": "2026-03-02T10:00:00.000000Z",
                "draft_created_at": None,
                "lead_time": 4.2,
                "prediction": {},
                "result_count": 2,
                "unique_id": "5e0a",
                "task": 7,
                "project": 3,
            }
        ],
        "file_upload": "1a2b3c4d-a.jpg",
        "drafts": [],
        "predictions": [{"result": [], "model_version": "x"}],
        "data": {"image": "/data/upload/3/1a2b3c4d-a.jpg"},
        "meta": {},
        "inner_id": 1,
        "total_annotations": 1,
        "project": 3,
    },
    {
        "id": 8,
        "annotations": [
            {"id": 32, "completed_by": 2, "result": [], "was_cancelled": True},
            {
                "id": 33,
                "completed_by": {"id": 2, "email": "ann@example.com"},
                "result": [
                    {
                        "value": {"choices": ["red", "black"]},
                        "from_name": "color",
                        "to_name": "image",
                        "type": "choices",
                    }
                ],
                "ground_truth": False,
            },
            {"id": 34, "completed_by": None, "result": [], "ground_truth": True},
        ],
        "data": {"image": "s3://bucket/b%20c.jpg"},
    },
    {"id": 9, "annotations": [], "data": {"image": "/data/upload/3/55555555-d.jpg"}},
]

COCO = {
    "info": {"year": 2026},
    "licenses": [{"id": 0, "name": ""}],
    "images": [
        {"id": 11, "file_name": "a.jpg", "height": 80, "width": 120},
        {"id": 12, "file_name": "sub/b.jpg", "height": 80, "width": 120},
    ],
    "annotations": [
        {"id": 1, "image_id": 11, "category_id": 2},
        {"id": 2, "image_id": 11, "category_id": 3, "bbox": [1, 2, 3, 4], "area": 12, "iscrowd": 0},
    ],
    "categories": [
        {"id": 1, "name": "black", "supercategory": "color"},
        {"id": 2, "name": "red", "supercategory": "color"},
        {"id": 3, "name": "boot", "supercategory": ""},
    ],
}

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>4</id>
      <name>shoes</name>
      <size>2</size>
      <mode>annotation</mode>
      <labels>
        <label><name>black</name><color>#000000</color><type>tag</type><attributes></attributes></label>
        <label><name>boot</name><color>#33ddff</color><type>any</type><attributes></attributes></label>
      </labels>
      <owner><username>ann</username><email></email></owner>
    </task>
    <dumped>2026-03-02 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="a.jpg" width="120" height="80">
    <tag label="black" source="manual"></tag>
    <box label="boot" source="manual" occluded="0" xtl="1" ytl="2" xbr="3" ybr="4"></box>
  </image>
  <image id="1" name="sub/b.jpg" width="120" height="80"></image>
</annotations>
"""

# As Label Studio writes CSV: a column per question, with JSON where there are several labels.
LABEL_STUDIO_CSV = (
    "annotation_id,annotator,color,created_at,id,image,lead_time,style,updated_at\n"
    '31,ann@example.com,"{""choices"":[""black"",""red""]}",2026-03-01T10:00:00Z,7,'
    "/data/upload/3/1a2b3c4d-a.jpg,4.2,boot,2026-03-02T10:00:00Z\n"
    "33,ann@example.com,,2026-03-01T10:00:00Z,8,/data/upload/3/1a2b3c4d-b.jpg,3.1,,\n"
)


def read(folder: Path, name: str, content: object) -> LabelFile:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return formats.read(path, WORDS)


def plain(found: LabelFile) -> list[tuple[str, list[str], str]]:
    return [(a.file, sorted(a.labels), a.where) for a in found.answers]


def test_label_studios_json(tmp_path: Path) -> None:
    found = read(tmp_path, "project-3.json", LABEL_STUDIO)
    assert plain(found) == [
        ("/data/upload/3/1a2b3c4d-a.jpg", ["black", "boot"], "task 7, annotation 31"),
        ("s3://bucket/b%20c.jpg", [], "task 8, annotation 34"),
    ]
    assert found.questions == {"color", "style"}
    assert (found.answers[0].by, found.answers[0].at) == ("annotator 1", "2026-03-02")
    assert found.without == 1


def test_without_a_ground_truth_every_answer_counts(tmp_path: Path) -> None:
    tasks = json.loads(json.dumps(LABEL_STUDIO))
    del tasks[1]["annotations"][2]
    found = read(tmp_path, "project-3.json", tasks)
    assert sorted(found.answers[1].labels) == ["black", "red"]
    assert found.answers[1].by == "ann@example.com"


def test_coco_with_categories_of_whole_pictures(tmp_path: Path) -> None:
    found = read(tmp_path, "labels.json", COCO)
    assert plain(found) == [("a.jpg", ["boot", "red"], "image 11"), ("sub/b.jpg", [], "image 12")]
    assert found.choices == {"black", "red", "boot"}


def test_cvats_tags_of_pictures(tmp_path: Path) -> None:
    found = read(tmp_path, "annotations.xml", CVAT)
    assert plain(found) == [("a.jpg", ["black", "boot"], "image 0"), ("sub/b.jpg", [], "image 1")]
    assert found.choices == {"black", "boot"}


def test_tables_with_a_column_per_label_or_per_question(tmp_path: Path) -> None:
    found = read(
        tmp_path, "a.csv", "file_name;black;Boots & more;price\na.jpg;1;x;9,90\nb.jpg;;0;\n"
    )
    assert plain(found) == [("a.jpg", ["Boots & more", "black"], "row 2"), ("b.jpg", [], "row 3")]
    assert found.choices == {"black", "Boots & more"}
    found = read(tmp_path, "b.csv", LABEL_STUDIO_CSV)
    assert [sorted(answer.labels) for answer in found.answers] == [["black", "boot", "red"], []]
    assert found.questions == {"color", "style"}
    assert (found.answers[0].by, found.answers[0].at) == ("ann@example.com", "2026-03-02")
    found = read(tmp_path, "c.csv", "image_name,color\na.jpg,red | black\n")
    assert plain(found) == [("a.jpg", ["black", "red"], "row 2")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", [{"id": 7, "image": "a.jpg", "color": "red"}], "a.json, 0.data: Field required"),
        (
            "a.json",
            [{"data": {"x": 1}, "annotations": []}],
            "a.json, task ?: its data names no pic",
        ),
        (
            "a.json",
            [{"data": {"image": "a"}, "annotations": [{"result": [{"type": "brush"}]}]}],
            "no result is of the type `choices`",
        ),
        ("a.json", {"images": []}, "a.json, categories: Field required"),
        ("a.json", COCO | {"images": []}, "a.json, annotation 1: there is no image 11"),
        ("a.json", COCO | {"categories": []}, "a.json, annotation 1: there is no category 2"),
        ("a.json", "{broken", "a.json is no JSON that can be read"),
        ("a.xml", "<annotations>", "a.xml is no XML that can be read"),
        ("a.xml", "<annotations><track/></annotations>", "a.xml: not CVAT's XML of pictures"),
        ("a.csv", "price,black\n1,1\n", "a.csv row 1: no column names the pictures"),
        ("a.csv", "file,price\na.jpg,1\n", "a.csv row 1: no column is a tag or a group"),
        ("a.csv", "file,black\na.jpg,maybe\n", "a.csv row 2, column 'black': 'maybe' is neither"),
        ("a.csv", "", "a.csv row 1: no header"),
        ("a.zip", "PK\x03\x04", "a.zip is an archive: unpack it"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_place_and_reason(
    tmp_path: Path, name: str, content: object, message: str
) -> None:
    with pytest.raises(ExchangeError) as caught:
        read(tmp_path, name, content)
    assert any(message in fault for fault in caught.value.faults), caught.value.faults


@pytest.mark.parametrize("fmt", list(formats.WRITERS))
def test_what_is_written_is_read_back_the_same(tmp_path: Path, fmt: str) -> None:
    images = [
        LabelledImage("größe 4½.jpg", (4, 3), {"color": ("black", "red"), "style": ()}),
        LabelledImage("sub/<b>&.jpg", (4, 3), {"color": (), "style": ("boot",)}, {"price": "9"}),
    ]
    path = tmp_path / "out"
    path.write_bytes(formats.WRITERS[fmt](images, WORDS))
    found = formats.read(path, WORDS)
    assert [sorted(answer.labels) for answer in found.answers] == [["black", "red"], ["boot"]]
    if fmt != "label-studio":  # which has addresses
        assert [answer.file for answer in found.answers] == [image.name for image in images]
    if fmt in ("csv", "label-studio"):
        assert "price" in path.read_text(encoding="utf-8")


def test_label_studio_asks_by_titles_and_answers_with_tags() -> None:
    view = ElementTree.fromstring(label_studio.interface(WORDS))
    asked = {
        question.get("name"): [(c.get("value"), c.get("alias")) for c in question]
        for question in view.iterfind("Choices")
    }
    assert asked == {
        "color": [("black", "black"), ("red", "red")],
        "style": [("Boots & more", "boot")],
    }
    (shown,) = view.iterfind("Image")
    assert {question.get("toName") for question in view.iterfind("Choices")} == {shown.get("name")}
