"""`shoetagger init` makes a project of somebody's pictures, or leaves everything as it was."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import openpyxl
import pytest
from PIL import Image
from typer.testing import CliRunner

from shoetagger.cli.app import app
from shoetagger.config.params import load
from shoetagger.errors import ShoetaggerError
from shoetagger.project.start import StartError, find_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def shoes(tmp_path: Path) -> Path:
    """Twelve pictures in a shop's folder, and a workbook of the shop about eleven of them."""
    folder = tmp_path / "shoes"
    (folder / "photos").mkdir(parents=True)
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    sheet.append(["SKU", "Photo", "red", "blue", "Lace", "price"])
    for number in range(12):
        name = f"{number:02d}.png"
        Image.new("RGB", (8, 6), (20 * number, 2, 3)).save(folder / "photos" / name)
        if number:
            row = [f"A{number}", name, number % 2, 1 - number % 2, int(number < 6), 9.5]
            sheet.append(row)
    book.save(folder / "stock.xlsx")
    return folder


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with data of before, as DVC has it."""
    folder = tmp_path / "repo"
    (folder / "data" / "images").mkdir(parents=True)
    (folder / "data" / "images" / "old.jpg").write_bytes(b"old")
    for name in ("params.yaml", "dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", "data"]):
        arguments = [sys.executable, "-m", *command] if command[0] == "dvc" else command
        subprocess.run(arguments, cwd=folder, check=True)
    monkeypatch.setenv("SHOETAGGER_REPO", str(folder))
    return folder


def call(*arguments: object) -> str:
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False).output


def test_a_source_is_found_or_what_there_is_is_named(shoes: Path, tmp_path: Path) -> None:
    source = find_source(shoes, None, shoes / "photos")
    assert source.sheet == shoes / "stock.xlsx"
    assert source.rows[0][0] == "SKU"
    (shoes / "more.csv").write_text("image_name,red\n")
    with pytest.raises(StartError, match=r"there is more\.csv, stock\.xlsx: name it"):
        find_source(shoes, None, None)
    (shoes / "labels.csv").write_text("image_name,red\n")
    assert find_source(shoes, None, None).sheet.name == "labels.csv"
    with pytest.raises(StartError, match="is no folder"):
        find_source(tmp_path / "none", None, None)
    tabs = shoes / "shoes.tsv"
    tabs.write_text("image_name\tred\n")
    with pytest.raises(StartError, match=r"shoes\.tsv is no sheet .*: save it as \.csv or \.xlsx"):
        find_source(shoes, tabs, None)


@pytest.mark.slow
def test_where_the_remote_cannot_be_written_all_is_as_before_and_the_cause_is_named(
    repo: Path, shoes: Path, tmp_path: Path
) -> None:
    def state() -> dict[str, bytes]:
        paths = [repo / "params.yaml", repo / "data.dvc", repo / ".dvc" / "config"]
        paths += (repo / "data").rglob("*.*")
        return {str(path): path.read_bytes() for path in paths}

    before = state()
    taken = tmp_path / "storage"
    taken.write_text("a file in its place")
    arguments = ["init", shoes, "--images", shoes / "photos", "--yes", "--remote", taken]
    with pytest.raises(StartError, match=r"nothing was changed.*`dvc push.*\n.*Not a directory"):
        call(*arguments)
    assert state() == before
    taken.unlink()
    assert "11 labelled pictures are in data/ now" in call(*arguments)


def test_a_sheet_that_is_named_and_not_there_is_called_so(
    shoes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shoes)
    assert "'nosuch.csv' does not exist" in call("init", ".", "--sheet", "nosuch.csv")


@pytest.mark.slow
def test_pictures_sheet_and_groups_become_the_project_or_nothing_does(
    repo: Path, shoes: Path, tmp_path: Path
) -> None:
    # Something that training would refuse: everything stays as it was.
    before = (repo / "params.yaml").read_bytes()
    broken = shoes / "photos" / "03.png"
    picture = broken.read_bytes()
    broken.write_bytes(picture[:40])
    arguments = ["init", shoes, "--images", shoes / "photos", "--group", "color=red,blue"]
    with pytest.raises(ShoetaggerError, match=r"row 4.*'03.png' can't be read: truncated PNG"):
        call(*arguments)
    broken.write_bytes(picture)
    stock = (shoes / "stock.xlsx").read_bytes()
    book = openpyxl.load_workbook(shoes / "stock.xlsx")
    book.worksheets[0]["F2"] = "=9+0.5"
    book.save(shoes / "stock.xlsx")
    with pytest.raises(ShoetaggerError, match=r"nothing was changed, .*\n.*cell F2 has a formula"):
        call(*arguments)
    (shoes / "stock.xlsx").write_bytes(stock)
    (repo / "data" / "note.txt").write_text("not in DVC")
    with pytest.raises(ShoetaggerError, match=r"holds what data.dvc does not have"):
        call(*arguments)
    (repo / "data" / "note.txt").unlink()
    assert (repo / "params.yaml").read_bytes() == before
    assert (repo / "data" / "images" / "old.jpg").is_file()

    said = call(*arguments, "--remote", tmp_path / "storage")
    assert "names its pictures in the column 'Photo'" in said
    assert (
        "kept, and not learned from:\n  SKU: row 2: 'A1' is no tick\n"
        "  price: row 2: '9.5' is no tick\n  Lace: no --group names it\n"
    ) in said
    assert "11 labelled pictures are in data/ now" in said
    assert "1 file without a row stayed in" in said
    assert load(repo / "params.yaml").tags == ("red", "blue")
    assert len(list((repo / "data" / "images").iterdir())) == 11
    assert "no faults" in call("validate")
    assert list((tmp_path / "storage").rglob("*.dir"))
    assert not list((repo / ".dvc" / "tmp").glob("init-*"))

    # Once more, with other groups: DVC has what is there.
    said = call("init", shoes, "--images", shoes / "photos", "--yes")
    assert "group color: red, blue\ngroup other: Lace\n" in said
    assert "the data is on this machine only" in said
