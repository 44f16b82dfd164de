from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openpyxl
import pytest

from shoetagger.learning.dataset.labels import Labels, read_labels
from shoetagger.learning.dataset.sheet import LabelsError, find_sheet

TAGS = ("black", "red", "boot")


def readable(_: Path) -> str | None:
    return None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    return tmp_path


def picture(data: Path, *names: str) -> None:
    for name in names:
        path = data / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a picture")


def write_csv(data: Path, text: str, encoding: str = "utf-8") -> Path:
    sheet = data / "labels.csv"
    sheet.write_bytes(text.encode(encoding))
    return sheet


def write_xlsx(data: Path, rows: Sequence[Sequence[object]]) -> Path:
    book = openpyxl.Workbook()
    for row in rows:
        book.worksheets[0].append(list(row))
    book.save(data / "labels.xlsx")
    return data / "labels.xlsx"


def read(sheet: Path, tags: Sequence[str] = TAGS) -> Labels:
    return read_labels(sheet, sheet.parent / "images", tags, unreadable=readable)


def faults(sheet: Path, tags: Sequence[str] = TAGS) -> tuple[str, ...]:
    with pytest.raises(LabelsError) as caught:
        read(sheet, tags)
    assert str(caught.value) == "\n".join(caught.value.faults)
    return caught.value.faults


def test_rows_become_names_and_a_matrix_in_the_order_of_the_tags_given(data: Path) -> None:
    picture(data, "a.jpg", "b.jpg")
    labels = read(write_csv(data, "image_name,boot,black,red\nb.jpg,1,,\na.jpg,,1,0\n"))
    assert labels.names == ("b.jpg", "a.jpg")
    assert labels.tags == TAGS
    assert labels.matrix.dtype == np.uint8
    assert labels.matrix.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert labels.warnings == ()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_csv_that_spreadsheets_write_is_read(
    data: Path, encoding: str, delimiter: str, newline: str
) -> None:
    picture(data, "ä.jpg")
    text = newline.join([" Image_Name ,BLACK, red ,Boot", "ä.jpg, 1 ,FALSE,X", ""])
    labels = read(write_csv(data, text.replace(",", delimiter), encoding))
    assert labels.names == ("ä.jpg",)
    assert labels.matrix.tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("cell", ["1", "1.0", "x", "X", "true", "TRUE", " 1 "])
def test_a_tick_may_be_written_in_several_ways(data: Path, cell: str) -> None:
    picture(data, "a.jpg")
    assert read(write_csv(data, f"image_name,boot\na.jpg,{cell}\n"), ["boot"]).matrix[0, 0] == 1


@pytest.mark.parametrize("cell", ["0", "0.0", "", " ", "false", "False"])
def test_no_tick_may_be_written_in_several_ways(data: Path, cell: str) -> None:
    picture(data, "a.jpg")
    assert read(write_csv(data, f"image_name,boot\na.jpg,{cell}\n"), ["boot"]).matrix[0, 0] == 0


def test_a_workbook_gives_numbers_booleans_and_text(data: Path) -> None:
    picture(data, "a.jpg", "b.jpg", "12")
    sheet = write_xlsx(
        data,
        [
            ["Boot", "image_name", "red ", "black"],
            [1, "a.jpg", True, 1.0],
            [None, None, None, None],
            [0, " b.jpg ", False, "x"],
            ["", 12, None, " "],
        ],
    )
    labels = read(sheet)
    assert labels.names == ("a.jpg", "b.jpg", "12")
    assert labels.matrix.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_a_formula_that_was_never_computed_is_no_silent_zero(data: Path) -> None:
    picture(data, "a.jpg")
    sheet = write_xlsx(data, [["image_name", "boot"], ["a.jpg", "=1+0"]])
    (fault,) = faults(sheet, ["boot"])
    assert fault.startswith("labels.xlsx row 2, column 'boot': the formula '=1+0'")


def test_rows_are_counted_as_the_spreadsheet_counts_them(data: Path) -> None:
    picture(data, "a.jpg")
    broken = [["image_name", "boot"], ["a.jpg", 1], [None, None], ["a\nb.jpg", 0], ["c.jpg", "?"]]
    assert [f.split(":")[0] for f in faults(write_xlsx(data, broken), ["boot"])] == [
        "labels.xlsx row 4, column 'image_name'",
        "labels.xlsx row 5, column 'boot'",
        "labels.xlsx row 5, column 'image_name'",
    ]
    text = 'image_name,boot\na.jpg,1\n\n"a\nb.jpg",0\nc.jpg,?\n'
    assert [f.split(":")[0] for f in faults(write_csv(data, text), ["boot"])] == [
        "labels.csv row 4, column 'image_name'",
        "labels.csv row 5, column 'boot'",
        "labels.csv row 5, column 'image_name'",
    ]


def test_all_faults_come_in_one_report_with_file_row_column_and_value(data: Path) -> None:
    picture(data, "a.jpg", "b.jpg", "broken.jpg", "A.PNG")
    sheet = write_csv(
        data,
        "image_name,boot,green,black,Boot,\n"
        "a.jpg,yes?,,2,\n"
        "a.jpg,,,,\n"
        "gone.jpg,,,,\n"
        "../labels.csv,,,,\n"
        "/etc/hostname,,,,\n"
        "broken.jpg,1,,,\n"
        ",1,,,\n"
        "b.jpg,,,,,7\n"
        "a.png,,,,\n",
    )
    with pytest.raises(LabelsError) as caught:
        read_labels(
            sheet,
            data / "images",
            TAGS,
            unreadable=lambda p: "truncated JPEG" if p.name == "broken.jpg" else None,
        )
    images = str(data / "images")
    assert [fault.replace(images, "images") for fault in caught.value.faults] == [
        "labels.csv row 1: column 'boot' is there twice: remove one",
        "labels.csv row 1: no column 'red': add it",
        "labels.csv row 2, column 'black': '2' is neither 1 (or true, x) nor 0 (or false, empty)",
        "labels.csv row 2, column 'boot': 'yes?' is neither 1 (or true, x) nor 0 (or false, empty)",
        "labels.csv row 3, column 'image_name': 'a.jpg' is in row 2 already: keep one row",
        "labels.csv row 4, column 'image_name': 'gone.jpg' is no file in images; "
        "add the picture, or remove the row",
        "labels.csv row 5, column 'image_name': '../labels.csv' leaves images: name a file in it",
        "labels.csv row 6, column 'image_name': '/etc/hostname' leaves images: name a file in it",
        "labels.csv row 7, column 'image_name': 'broken.jpg' can't be read: truncated JPEG",
        "labels.csv row 8, column 'image_name': '' is no file name: name the picture, "
        "or clear the row",
        "labels.csv row 9: the value '7' is under no column name: name or clear it",
        "labels.csv row 10, column 'image_name': 'a.png' is no file in images; there is 'A.PNG'",
    ]


@pytest.mark.parametrize(
    "name",
    [
        "a b.jpg",
        "-.jpg_640x640.jpg",
        "it's.jpg",
        'size 12".jpg',
        "boot, black & white.jpg",
        "a;b.jpg",
        "Stövlett (4147390).jpg",
        "靴.jpg",
        "au%2FShoes.jpg",
        "NA",
        "sub/folder/a.jpg",
        " leading space.jpg",
        "a\u2028b.jpg",
    ],
)
def test_any_file_name_survives_both_kinds_of_sheet(data: Path, name: str) -> None:
    picture(data, name)
    cell = '"' + name.replace('"', '""') + '"'
    assert read(write_csv(data, f"image_name,boot\n{cell},1\n"), ["boot"]).names == (name,)
    sheet = write_xlsx(data, [["image_name", "boot"], [name, 1]])
    assert read(sheet, ["boot"]).names == (name,)


@pytest.mark.parametrize(("on_disk", "in_sheet"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_accents_match_however_they_are_encoded(data: Path, on_disk: str, in_sheet: str) -> None:
    name = "Stövlett.jpg"
    stored = unicodedata.normalize(on_disk, name)  # type: ignore[arg-type]
    picture(data, stored)
    written = unicodedata.normalize(in_sheet, name)  # type: ignore[arg-type]
    labels = read(write_csv(data, f"image_name,boot\n{written},1\n"), ["boot"])
    assert labels.names == (stored,)
    assert labels.warnings == ()


def test_two_spellings_of_one_file_are_a_duplicate(data: Path) -> None:
    picture(data, "ö.jpg", "sub/a.jpg")
    text = "image_name,boot\nö.jpg,1\no\u0308.jpg,1\nsub/a.jpg,1\n./sub//a.jpg,1\n"
    assert [f.split(":")[0] for f in faults(write_csv(data, text), ["boot"])] == [
        "labels.csv row 3, column 'image_name'",
        "labels.csv row 5, column 'image_name'",
    ]


def test_files_that_differ_in_accent_encoding_alone_need_the_exact_name(
    data: Path,
) -> None:
    picture(data, "\u00f6\u00f6.jpg", "o\u0308o\u0308.jpg")
    exact = "image_name,boot\n\u00f6\u00f6.jpg,1\no\u0308o\u0308.jpg,0\n"
    assert len(read(write_csv(data, exact), ["boot"]).names) == 2
    (fault,) = faults(write_csv(data, "image_name,boot\n\u00f6o\u0308.jpg,1\n"), ["boot"])
    assert "any of 2 files" in fault


def test_files_without_a_row_are_a_warning_and_hidden_ones_are_nothing(data: Path) -> None:
    picture(data, "a.jpg", "new.jpg", "sub/newer.jpg", ".DS_Store")
    labels = read(write_csv(data, "image_name,boot\na.jpg,1\n"), ["boot"])
    assert [w.split(" in ")[0] for w in labels.warnings] == ["'new.jpg'", "'sub/newer.jpg'"]


def test_pictures_may_be_links_as_dvc_makes_them_but_not_links_to_nothing(data: Path) -> None:
    picture(data, "real.jpg")
    (data / "images" / "linked.jpg").symlink_to(data / "images" / "real.jpg")
    (data / "images" / "dangling.jpg").symlink_to(data / "nowhere")
    text = "image_name,boot\nlinked.jpg,1\ndangling.jpg,1\nreal.jpg,0\n"
    (fault,) = faults(write_csv(data, text), ["boot"])
    assert "row 3" in fault


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "row 1: no header"),
        (b"\n\n", "row 1: no header"),
        (b"image_name,boot\n", "no row below its header"),
        (b"image_name,boot\n,\n", "no row below its header"),
        (b"name,boot\na.jpg,1\n", "no column 'image_name'"),
        ("image_name,boot\nä.jpg,1\n".encode("latin-1"), "row 2: not UTF-8"),
        ("image_name,boot\na.jpg,1\n".encode("utf-16"), "row 1: not UTF-8"),
        (b'image_name,boot\na.jpg,1\n"b" c.jpg,1\n', "row 3: broken quoting"),
        (b'image_name,boot\na.jpg,1\n"b.jpg,1\nc.jpg,1\n', "row 3: broken quoting"),
    ],
)
def test_a_sheet_that_is_none_is_refused_in_a_line(
    data: Path, content: bytes, expected: str
) -> None:
    picture(data, "a.jpg")
    (data / "labels.csv").write_bytes(content)
    assert any(expected in fault for fault in faults(data / "labels.csv", ["boot"]))


def test_a_workbook_that_is_none_is_refused_in_a_line(data: Path) -> None:
    (data / "labels.xlsx").write_bytes(b"image_name,boot\n")
    (fault,) = faults(data / "labels.xlsx")
    assert "labels.xlsx is not an Excel workbook" in fault


def test_missing_things_are_one_line_that_says_what_to_do(data: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match=r"no label sheet: .*dvc pull data"):
        find_sheet(data)
    with pytest.raises(LabelsError, match=r"no label sheet: .*dvc pull data"):
        find_sheet(tmp_path / "nowhere")
    (fault,) = faults(data / "labels.csv")
    assert "is missing: run `dvc pull data`" in fault
    sheet = write_csv(data, "image_name,boot\na.jpg,1\n")
    with pytest.raises(LabelsError, match=r"nowhere is missing: run `dvc pull data`"):
        read_labels(sheet, data / "nowhere", ["boot"], unreadable=readable)


def test_the_sheet_is_found_under_either_name_but_not_under_both(data: Path) -> None:
    sheet = write_csv(data, "image_name\n")
    assert find_sheet(data) == sheet
    write_xlsx(data, [["image_name"]])
    with pytest.raises(LabelsError, match="two label sheets"):
        find_sheet(data)
    sheet.unlink()
    assert find_sheet(data).name == "labels.xlsx"


def test_further_columns_are_kept_and_nothing_is_learned_from_them(data: Path) -> None:
    picture(data, "a.jpg", "b.jpg")
    rows = [
        ["image_name", "Article", "black", "boot", "price", "notes"],
        ["a.jpg", 4711, 1, 0, 19.9, None],
        [None, None, None, None, None, None],
        ["b.jpg", "A-12", 0, 1, None, "left shoe\nonly"],
    ]
    labels = read(write_xlsx(data, rows), ["black", "boot"])
    assert labels.matrix.tolist() == [[1, 0], [0, 1]]
    assert labels.tags == ("black", "boot")
    assert labels.extra == {
        "Article": ("4711", "A-12"), "price": ("19.9", ""), "notes": ("", "left shoe\nonly"),
    }  # fmt: skip
    assert labels.notes()["b.jpg"] == {"Article": "A-12", "notes": "left shoe\nonly"}
    assert labels.warnings == ()


def test_a_tag_column_with_a_typo_is_refused_with_the_column_that_is_like_it(data: Path) -> None:
    picture(data, "a.jpg")
    (fault,) = faults(write_csv(data, "image_name,Blakc,red,boot,price\na.jpg,1,0,0,9\n"))
    assert fault == "labels.csv row 1: no column 'black': correct 'Blakc' to 'black', or add it"
    twice = write_csv(data, "image_name,black,red,boot,price,price\na.jpg,1,0,0,9,9\n")
    assert faults(twice) == ("labels.csv row 1: column 'price' is there twice: remove one",)


def test_a_further_column_that_is_like_a_tag_is_a_warning(data: Path) -> None:
    picture(data, "a.jpg")
    sheet = write_csv(data, "image_name,black,red,boot,boots\na.jpg,1,0,0,1\n")
    (warning,) = read(sheet).warnings
    assert "'boots' is no tag of params.yaml" in warning
    assert "the tag 'boot' has one of its own" in warning


def test_the_columns_of_a_collection_may_be_there_and_say_where_a_row_comes_from(
    data: Path,
) -> None:
    picture(data, "a.jpg", "b.jpg", "c.jpg")
    header = "image_name,black,red,boot,Origin,labelled_by,labelled_at"
    rows = ["a.jpg,1,,1", "b.jpg,,1,,queue,ann,2026-11-25", "c.jpg,,1,,RANDOM,bo,"]
    labels = read(write_csv(data, "\n".join([header, *rows])))
    assert labels.origins == ("", "queue", "random")
    assert labels.matrix.tolist() == [[1, 0, 1], [0, 1, 0], [0, 1, 0]]
    (fault,) = faults(write_csv(data, "\n".join([header, "a.jpg,1,,1,guess"])))
    assert fault.startswith("labels.csv row 2, column 'origin': 'guess' is no origin")
