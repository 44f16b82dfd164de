"""Rows written into a label sheet leave all other cells, and the bytes of a CSV, as they are."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path

import openpyxl
import pytest
from openpyxl.cell.cell import Cell

from shoetagger.config.recipe import Split
from shoetagger.learning.dataset.image_files import ImageFiles
from shoetagger.learning.dataset.labels import read_labels
from shoetagger.learning.dataset.sheet import LabelsError
from shoetagger.learning.dataset.sheet_rows import (
    remove_rows,
    rename_column,
    spelled_names,
    write_rows,
)
from shoetagger.learning.dataset.split import split_group

COLUMNS = ("image_name", "red", "boot", "origin")
NEW = {"image_name": "new.jpg", "red": "1", "boot": "0", "origin": "queue"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "image_name,red,boot,origin\na.jpg,1,,\n",
            "image_name,red,boot,origin\na.jpg,1,,\nnew.jpg,1,0,queue\n",
        ),
        # Columns that it lacks come at the right; a short row stays short.
        (
            "image_name,red,boot\na.jpg,1\n",
            "image_name,red,boot,origin\na.jpg,1\nnew.jpg,1,0,queue\n",
        ),
        # As a spreadsheet of another language writes it, in another order, and without a last end.
        (
            "\ufeffBoot;Image_Name;red;price\r\n1;a.jpg;;12,50",
            "\ufeffBoot;Image_Name;red;price;origin\r\n1;a.jpg;;12,50\r\n0;new.jpg;1;;queue\r\n",
        ),
        # A row of the same picture is written over, and keeps what is not written.
        (
            'image_name,red,note,boot\nnew.jpg,0,"says ""hi"",\ntwice",1\nb.jpg,,,\n',
            'image_name,red,note,boot,origin\nnew.jpg,1,"says ""hi"",\ntwice",0,queue\nb.jpg,,,\n',
        ),
    ],
)
def test_a_csv_keeps_its_bytes(tmp_path: Path, before: str, after: str) -> None:
    sheet = tmp_path / "labels.csv"
    sheet.write_bytes(before.encode())
    other_name = tmp_path / "cached"
    other_name.hardlink_to(sheet)
    write_rows(sheet, [NEW], COLUMNS)
    assert sheet.read_bytes().decode() == after
    assert other_name.read_bytes().decode() == before


def test_a_workbook_keeps_its_other_cells(tmp_path: Path) -> None:
    sheet = tmp_path / "labels.xlsx"
    book = openpyxl.Workbook()
    for row in (["image_name", "red", "boot", "bought"], ["a.jpg", 1, None, date(2026, 1, 2)]):
        book.worksheets[0].append(row)
    book.worksheets[0]["B2"].font = openpyxl.styles.Font(bold=True)
    book.create_sheet("notes").append(["hello"])
    book.save(sheet)
    write_rows(sheet, [NEW, NEW | {"image_name": "a.jpg", "red": "0"}], COLUMNS)
    book = openpyxl.load_workbook(sheet)
    rows = [list(row) for row in book.worksheets[0].iter_rows(values_only=True)]
    assert rows[0] == ["image_name", "red", "boot", "bought", "origin"]
    assert rows[1][:3] == ["a.jpg", 0, 0]
    assert rows[1][3].date() == date(2026, 1, 2)
    assert rows[2] == ["new.jpg", 1, 0, None, "queue"]
    assert book.worksheets[0]["B2"].font.bold
    assert book["notes"]["A1"].value == "hello"


def test_a_row_is_removed_from_a_csv_of_which_all_else_keeps_its_bytes(tmp_path: Path) -> None:
    sheet = tmp_path / "labels.csv"
    before = 'Image_Name;red;note\r\n\r\na.jpg;1;"two\r\nlines"\r\nb.jpg;;"x"\r\nc.jpg;1'
    sheet.write_bytes(b"\xef\xbb\xbf" + before.encode())
    remove_rows(sheet, ["a.jpg"])
    after = 'Image_Name;red;note\r\n\r\nb.jpg;;"x"\r\nc.jpg;1'
    assert sheet.read_bytes() == b"\xef\xbb\xbf" + after.encode()


def test_a_removed_row_of_a_workbook_is_empty_and_moves_no_other(tmp_path: Path) -> None:
    sheet, images = tmp_path / "labels.xlsx", tmp_path / "images"
    book = openpyxl.Workbook()
    for row in (["image_name", "red", "boot", "of"], ["a.jpg", 1], ["b.jpg", 0, 1, "x"]):
        book.worksheets[0].append(row)
    book.worksheets[0].append(["c.jpg", 1, 0])
    book.create_sheet("counts").append(["=Sheet!B4"])
    book.save(sheet)
    remove_rows(sheet, ["a.jpg"])
    book = openpyxl.load_workbook(sheet)
    rows = list(book.worksheets[0].iter_rows(values_only=True))
    assert rows[1] == (None,) * 4
    assert rows[2:] == [("b.jpg", 0, 1, "x"), ("c.jpg", 1, 0, None)]
    assert book["counts"]["A1"].value == "=Sheet!B4"
    images.mkdir()
    for name in ("b.jpg", "c.jpg"):
        (images / name).touch()
    labels = read_labels(sheet, images, ("red", "boot"), unreadable=lambda _: None)
    assert labels.names == ("b.jpg", "c.jpg")


def test_a_workbook_with_formulas_is_refused_before_they_lose_their_values(
    tmp_path: Path,
) -> None:
    sheet = tmp_path / "labels.xlsx"
    book = openpyxl.Workbook()
    for row in (["image_name", "red", "boot"], ["a.jpg", 1, "=1-B2"], ["b.jpg", 0, "=1-B3"]):
        book.worksheets[0].append(row)
    book.save(sheet)
    before = sheet.read_bytes()
    for edit in (
        lambda: write_rows(sheet, [NEW], COLUMNS),
        lambda: remove_rows(sheet, ["b.jpg"]),
        lambda: rename_column(sheet, "image_name", "photo"),
    ):
        with pytest.raises(LabelsError, match=r"C2 has a formula, and 1 more .*paste values only"):
            edit()
        assert sheet.read_bytes() == before


def test_a_row_with_a_merged_cell_is_refused_by_that_cell(tmp_path: Path) -> None:
    sheet = tmp_path / "labels.xlsx"
    book = openpyxl.Workbook()
    for row in (["image_name", "red", "boot"], ["a.jpg", 1], ["b.jpg"], ["c.jpg", 0, 1]):
        book.worksheets[0].append(row)
    book.worksheets[0].merge_cells("B2:B3")
    book.save(sheet)
    before = sheet.read_bytes()
    for name, cell in (("a.jpg", "B2"), ("b.jpg", "B3")):
        with pytest.raises(LabelsError, match=f"cell {cell} is merged with others: unmerge"):
            remove_rows(sheet, [name])
        with pytest.raises(LabelsError, match=f"cell {cell} is merged with others: unmerge"):
            write_rows(sheet, [NEW | {"image_name": name}], COLUMNS)
    assert sheet.read_bytes() == before
    remove_rows(sheet, ["c.jpg"])
    assert sheet.read_bytes() != before


def test_what_begins_as_a_formula_is_written_as_text(tmp_path: Path) -> None:
    sheet = tmp_path / "labels.xlsx"
    book = openpyxl.Workbook()
    book.worksheets[0].append(["image_name", "red", "boot"])
    book.save(sheet)
    link = '=HYPERLINK("http://example","x")'
    write_rows(sheet, [NEW | {"labelled_by": link}], (*COLUMNS, "labelled_by"))
    cell = openpyxl.load_workbook(sheet).worksheets[0]["E2"]
    assert isinstance(cell, Cell)
    assert (cell.value, cell.data_type) == (link, "s")
    # As text it is no reason to refuse the next row.
    write_rows(sheet, [NEW | {"image_name": "other.jpg"}], COLUMNS)


def test_a_sheet_may_spell_a_picture_otherwise_than_the_disk(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("sto\u0308vel.jpg", "b.jpg"):
        (tmp_path / "images" / name).touch()
    sheet = tmp_path / "labels.csv"
    sheet.write_text("red,image_name\n1,st\u00f6vel.jpg\n,./b.jpg\n,gone.jpg\n")
    spelled = spelled_names(sheet, ImageFiles(tmp_path / "images"))
    assert spelled == {"sto\u0308vel.jpg": "st\u00f6vel.jpg", "b.jpg": "./b.jpg"}


def test_rows_that_the_queue_drew_may_validate_and_those_it_chose_may_not(tmp_path: Path) -> None:
    sheet, images = tmp_path / "labels.csv", tmp_path / "images"
    images.mkdir()
    sheet.write_text("image_name,boot,flat\n")
    rows = [
        {"image_name": f"{origin}{n}.jpg", "boot": str(n % 2), "flat": "01"[n % 3 == 0]}
        | {"origin": origin}
        for origin in ("random", "queue", "browse")
        for n in range(40)
    ]
    for row in rows:
        (images / row["image_name"]).touch()
    write_rows(sheet, rows, ("image_name", "boot", "flat", "origin"))
    labels = read_labels(sheet, images, ("boot", "flat"), unreadable=lambda _: None)
    ids = [hashlib.sha256(name.encode()).hexdigest() for name in labels.names]
    split = Split(seed=1, validation=0.2, folds=5)
    table, report = split_group(labels, ids, ("boot", "flat"), split)
    assert report == []
    validating = set(table.loc[table["side"] == "validation", "image_name"])
    assert 2 < len(validating) < 16
    assert all(name.startswith("random") for name in validating)
