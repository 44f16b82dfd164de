"""The code in a version is imported whole, beside other versions', and leaves no trace."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from shoetagger.tracking.served_model import load_core

SOURCES = {
    "__init__.py": "",
    "errors.py": "class Rejected(Exception): ...\n",
    "images/__init__.py": "",
    "images/decode.py": "from ..errors import Rejected\nWIDTH = 64\n",
    "inference/__init__.py": "",
    "inference/engine.py": "import time\ntime.sleep(0.05)\nfrom ..images.decode import WIDTH\n",
}


def write(folder: Path, **changed: str) -> Path:
    for name, source in (
        SOURCES | {k.replace("__", "/") + ".py": v for k, v in changed.items()}
    ).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
    return folder


def width(package: str) -> int:
    found: int = importlib.import_module(f"{package}.inference.engine").WIDTH
    return found


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("shoetagger_"):
            del sys.modules[name]


def test_the_modules_of_a_core_import_each_other(tmp_path: Path) -> None:
    package = load_core(write(tmp_path))
    decode = importlib.import_module(f"{package}.images.decode")
    assert decode.Rejected is importlib.import_module(f"{package}.errors").Rejected
    assert width(package) == 64


def test_cores_with_different_code_work_side_by_side(tmp_path: Path) -> None:
    one = load_core(write(tmp_path / "one"))
    other = load_core(write(tmp_path / "other", images__decode="WIDTH = 32\n"))
    assert (width(one), width(other)) == (64, 32)


def test_equal_code_is_imported_once_wherever_it_lies(tmp_path: Path) -> None:
    one = load_core(write(tmp_path / "one"))
    shutil.rmtree(tmp_path / "one")
    assert load_core(write(tmp_path / "other")) == one
    file = importlib.import_module(f"{one}.errors").__file__
    assert file == str(tmp_path / "one" / "errors.py")


def test_a_core_works_after_its_folder_went_away(tmp_path: Path) -> None:
    package = load_core(write(tmp_path / "core"))
    shutil.rmtree(tmp_path / "core")
    for name in SOURCES:
        if not name.endswith("__init__.py"):
            module = name.removesuffix(".py").replace("/", ".")
            importlib.import_module(f"{package}.{module}")
    assert width(package) == 64


def test_nothing_is_written_to_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    load_core(write(tmp_path))
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()} == set(
        SOURCES
    )
    assert sys.dont_write_bytecode is False


def test_a_read_only_folder_will_do(tmp_path: Path) -> None:
    folder = write(tmp_path / "core")
    folders = [folder, *(p for p in folder.rglob("*") if p.is_dir())]
    for place in folders:
        place.chmod(0o555)
    try:
        assert width(load_core(folder)) == 64
    finally:
        for place in folders:
            place.chmod(0o755)


def test_threads_that_load_at_once_share_one_core(tmp_path: Path) -> None:
    folders = [write(tmp_path / str(number)) for number in range(4)]
    start = Barrier(4)

    def load(folder: Path) -> tuple[str, int]:
        start.wait()
        package = load_core(folder)
        return package, id(importlib.import_module(f"{package}.inference.engine"))

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(load, folders))) == 1


def test_after_a_failed_import_another_copy_can_be_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a library was missing at first."""
    source = "import not_yet_there\nWIDTH = 64\n"
    with pytest.raises(ModuleNotFoundError, match="not_yet_there"):
        load_core(write(tmp_path / "one", images__decode=source))
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "not_yet_there.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "lib")
    assert width(load_core(write(tmp_path / "other", images__decode=source))) == 64
