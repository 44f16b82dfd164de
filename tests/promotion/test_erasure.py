"""A forgotten picture leaves the comparisons that showed it."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import pytest

from shoetagger.promotion import report
from shoetagger.promotion.erasure import erase_from_comparisons
from shoetagger.rendering import TEMPLATES
from shoetagger.tracking.connection import Connection

SHOWN, OTHER = "ab" * 32, "cd" * 32
SHEET = b"\x89PNG and its pixels"
INLINE = base64.b64encode(SHEET).decode()
PAGE = f'<h1>Red shoes</h1><p><img src="data:image/png;base64,{INLINE}" alt="Pictures"></p>'


@pytest.fixture
def uri(tmp_path: Path, empty_mlflow: Path) -> str:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.mark.slow
def test_a_forgotten_picture_leaves_the_comparisons_in_mlflow(uri: str, tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    versions = {
        "1": {"changed": 1, "shown": [OTHER]},
        "2": {"changed": 2, "shown": [SHOWN, OTHER]},
        "3": {"changed": 1},  # of an older version, which did not note what it shows
        "4": None,  # compared on no arrivals
        "5": None,  # the same, beside the sheet of an earlier comparison
        "6": {"changed": 0, "shown": []},  # likewise
    }
    with Connection(uri, artifacts, seconds=5).open() as (client, experiment):
        run_id = client.create_run(experiment).info.run_id
        for number, arrivals in versions.items():
            folder = tmp_path / number
            folder.mkdir()
            (folder / report.DOCUMENT).write_text(json.dumps({"title": "t", "arrivals": arrivals}))
            (folder / report.PAGE).write_text(PAGE if number in "123" else "<h1>Red shoes</h1>")
            if number != "4":
                (folder / report.SHEET).write_bytes(SHEET)
            client.log_artifacts(run_id, str(folder), f"versions/{number}")
        client.delete_run(run_id)  # which deletes no file

    assert erase_from_comparisons(uri, artifacts, SHOWN) == 4

    left = {path: path.read_bytes() for path in artifacts.rglob("*") if path.is_file()}
    assert not any(SHOWN.encode() in content for content in left.values())
    for sign in (SHEET, INLINE.encode()):
        assert {path.parent.name for path, content in left.items() if sign in content} == {"1"}
    pages = {path.parent.name: content for path, content in left.items() if path.suffix == ".html"}
    assert pages["2"] == pages["3"]
    assert pages["2"].startswith(b"<h1>Red shoes</h1><p>The pictures were removed, as one")
    # A second time there is nothing left to erase.
    assert erase_from_comparisons(uri, artifacts, SHOWN) == 0


def test_the_page_of_a_comparison_holds_its_sheet_as_erasing_expects() -> None:
    (image,) = [
        line for line in (TEMPLATES / report.PAGE).read_text().splitlines() if "{{ sheet }}" in line
    ]
    assert report._INLINE_SHEET.search(image.replace("{{ sheet }}", INLINE).encode())
