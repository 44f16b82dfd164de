"""What a collection writes into a folder of pictures and their label sheet."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import openpyxl
import pytest
import yaml
from PIL import Image

from shoetagger.collection.gather import Checked, NoShoe
from shoetagger.collection.sheet_edits import SheetEdits, edit_sheet
from shoetagger.config import params
from shoetagger.config.params import Params
from shoetagger.images.decode import image_id
from shoetagger.ingest.folder import locator_of
from shoetagger.learning.dataset.sheet import LabelsError
from shoetagger.learning.dataset.split import side

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 25, 9, tzinfo=UTC)
HEADER = "image_name,black,red,boot,flat"


def picture(number: int, brighter: int = 0) -> bytes:
    """A pattern of blocks; a brighter one is nearly the same picture."""
    blocks = np.random.default_rng(number).integers(0, 200, (6, 6, 3), dtype=np.uint8)
    out = io.BytesIO()
    pixels = blocks.repeat(8, axis=0).repeat(8, axis=1) + np.uint8(brighter)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


class Data:
    """A folder with images/ and a label sheet, an inbox beside it, and what people said."""

    def __init__(self, folder: Path, options: Params) -> None:
        self.folder, self.inbox, self.params = folder / "data", folder / "inbox", options
        self.images = self.folder / "images"
        for made in (self.images, self.inbox):
            made.mkdir(parents=True)

    def label(self, name: str, data: bytes, ticks: str) -> None:
        (self.images / name).write_bytes(data)
        sheet = self.folder / "labels.csv"
        before = sheet.read_text() if sheet.exists() else HEADER + "\n"
        sheet.write_text(f"{before}{name},{ticks}\n")

    def checked(self, name: str, data: bytes, *tags: str, origin: str = "browse") -> Checked:
        (self.inbox / name).write_bytes(data)
        locators = (locator_of(self.inbox / name),)
        return Checked(image_id(data), locators, frozenset(tags), (1,), origin, "ann", NOW)

    def judged(self, data: bytes) -> NoShoe:
        return NoShoe(image_id(data), (), 1, "bo")

    def edit(self, *checked: Checked, judged: tuple[NoShoe, ...] = ()) -> SheetEdits:
        return edit_sheet(self.folder, checked, judged, self.inbox, self.params)

    @property
    def rows(self) -> list[str]:
        return (self.folder / "labels.csv").read_text().splitlines()[1:]


@pytest.fixture
def data(tmp_path: Path) -> Data:
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["groups"] = {
        "color": {"tags": ["black", "red"]},
        "style": {"tags": ["boot", "flat"]},
    }
    document["audit"]["exclusive"] = [["boot", "flat"]]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    made = Data(tmp_path, params.load(tmp_path / "params.yaml"))
    made.label("old.png", picture(0), "1,,1,")
    return made


@pytest.fixture
def on_side(data: Data) -> Callable[[str], int]:
    """Find the number of a picture that the split puts on a side."""

    def found(wanted: str) -> int:
        numbers = range(100, 200)
        return next(n for n in numbers if side(image_id(picture(n)), data.params.split) == wanted)

    return found


def test_a_picture_of_the_sheet_is_corrected_there_however_the_sheet_spells_it(data: Data) -> None:
    data.label("sto\u0308vel.png", picture(1), "1,,1,")
    sheet = data.folder / "labels.csv"
    sheet.write_text(sheet.read_text().replace("sto\u0308vel", "st\u00f6vel"))
    edits = data.edit(data.checked("a.png", picture(1), "red", "boot"))
    assert data.rows == ["old.png,1,,1,", "st\u00f6vel.png,0,1,1,0,,ann,2026-11-25"]
    assert edits.changes == ("sto\u0308vel.png: + red, - black (ann)",)
    assert edits.summary == "1 checked picture, 0 of them new"


def test_a_workbook_with_formulas_is_left_alone_where_nothing_is_written(data: Data) -> None:
    (data.folder / "labels.csv").unlink()
    book = openpyxl.Workbook()
    for row in ([*HEADER.split(","), "sku"], ["old.png", 1, 0, 1, 0, '="A"&1']):
        book.worksheets[0].append(row)
    book.save(data.folder / "labels.xlsx")
    before = (data.folder / "labels.xlsx").read_bytes()
    assert not data.edit(judged=(data.judged(picture(9)),))
    with pytest.raises(LabelsError, match="cell F2 has a formula"):
        data.edit(data.checked("a.png", picture(1), "red", "boot"))
    assert (data.folder / "labels.xlsx").read_bytes() == before


def test_all_rows_of_a_picture_say_what_people_say(data: Data) -> None:
    data.label("again.png", picture(0), ",1,1,")
    data.edit(data.checked("a.png", picture(0), "red", "flat"))
    assert {row.partition(",")[2] for row in data.rows} == {"0,1,0,1,,ann,2026-11-25"}


def test_a_picture_that_lies_there_without_a_row_gets_one_with_its_origin(data: Data) -> None:
    (data.images / "spare.png").write_bytes(picture(2))
    edits = data.edit(data.checked("a.png", picture(2), "red", "boot", origin="queue"))
    assert data.rows[1] == "spare.png,0,1,1,0,queue,ann,2026-11-25"
    assert edits.summary == "1 checked picture, 1 of them new"
    assert sorted(path.name for path in data.images.iterdir()) == ["old.png", "spare.png"]


def test_what_is_not_a_shoe_loses_its_rows_and_files(data: Data) -> None:
    data.label("face.png", picture(3), ",1,,1")
    data.label("copy.png", picture(3), ",1,,1")
    edits = data.edit(judged=(data.judged(picture(3)), data.judged(picture(4))))
    assert data.rows == ["old.png,1,,1,"]
    assert [path.name for path in data.images.iterdir()] == ["old.png"]
    assert edits.summary == "0 checked pictures, 0 of them new, 1 removed"
    assert edits.removed[0].names == ("copy.png", "face.png")
    assert list(edits.pictures(str)) == [(image_id(picture(3)), "not a shoe: removed (bo)")]


def test_a_sheet_of_which_nothing_would_be_left_is_refused(data: Data) -> None:
    with pytest.raises(LabelsError, match="no row below its header"):
        data.edit(judged=(data.judged(picture(0)),))


def test_a_tag_without_a_column_is_no_no_for_all_rows_of_before(data: Data) -> None:
    sheet = data.folder / "labels.csv"
    sheet.write_text(sheet.read_text().replace(",flat", "").replace("1,,1,", "1,,1"))
    with pytest.raises(LabelsError, match="no column 'flat': add it"):
        data.edit(data.checked("a.png", picture(6), "red", "flat"))


def test_nearly_the_same_picture_on_the_other_side_or_with_other_tags_is_named(
    data: Data, on_side: Callable[[str], int]
) -> None:
    number = on_side("validation")
    data.label("validating.png", picture(number), ",1,1,")
    new = data.checked("new.png", picture(number, brighter=9), "red", "boot")
    name = f"collected/new-{new.image_id[:8]}.png"
    (doubt,) = data.edit(new).doubts
    assert doubt == (
        f"{name} and validating.png are nearly the same picture, and one is on the train side, "
        "the other on the validation side"
    )
    (doubt,) = data.edit(replace(new, tags=frozenset({"black", "boot"}))).doubts
    assert doubt.endswith("the validation side; they differ in black, red")


def test_nearly_the_same_picture_on_one_side_with_the_same_tags_is_no_doubt(
    data: Data, on_side: Callable[[str], int]
) -> None:
    number = on_side("train")
    data.label("training.png", picture(number), ",1,1,")
    assert not data.edit(data.checked("new.png", picture(number, 9), "red", "boot")).doubts
    far = data.checked("far.png", picture(number + 1000), "black", "boot")
    assert not data.edit(far).doubts


def test_tags_that_exclude_each_other_are_named(data: Data) -> None:
    new = data.checked("new.png", picture(5), "red", "boot", "flat")
    assert data.edit(new).doubts == (
        f"collected/new-{new.image_id[:8]}.png: boot and flat cannot both be true "
        "(audit.exclusive)",
    )
