"""The tour's page, its pictures and its script tell of the same steps and screens."""

from __future__ import annotations

import re

import pytest
from helpers.documents import ROOT, document, documents, missing_and_stale
from PIL import Image
from tour import page
from tour.newcomer import TourError
from tour.plan import SCREENS, STEPS

FOLDER = ROOT / "docs" / "tour"
MOST = 1_600_000  # bytes of all pictures

DEMO = """[6/6] result
      a.jpg  red
      24 pictures tagged by color v1

      color  17 of 24 right
      done after 0:01

Pages    file:///home/ann/pages/index.html
"""


def shown(text: str) -> list[str]:
    """Return the names of the tour's pictures that a page shows."""
    return re.findall(r"!\[[^\]]+\]\((?:docs/)?tour/([\w-]+)\.png\)", text)


def test_every_picture_is_taken_by_the_script_and_shown_by_the_page() -> None:
    there = {path.stem for path in FOLDER.iterdir()}
    assert missing_and_stale(there, set(SCREENS)) == {}
    tour = shown(document("docs/TOUR.md").text)
    assert missing_and_stale(set(tour), there) == {}
    assert len(tour) == len(set(tour))
    for other in documents():
        assert set(shown(other.text)) <= there, other.name


def test_the_pictures_are_small() -> None:
    sizes = [path.stat().st_size for path in FOLDER.iterdir()]
    assert sum(sizes) < MOST
    for path in FOLDER.iterdir():
        with Image.open(path) as picture:
            assert picture.mode == "P", path.name


def test_the_steps_of_the_page_are_those_of_the_script() -> None:
    assert page.steps_of(document("docs/TOUR.md").text) == list(STEPS.values())


def test_what_the_tour_writes_takes_the_place_of_what_it_wrote_before() -> None:
    before = document("docs/TOUR.md").text
    seconds = {name: 61.0 * number for number, name in enumerate(STEPS)}
    parts = {
        "times": page.times(seconds, "2 cores and no GPU", installed=5_990_000_000),
        "demo": page.closing_words(DEMO),
    }
    text = page.with_parts(before, parts)
    assert page.steps_of(text) == list(STEPS.values())
    assert f"| {STEPS['demo']} | 2:02 |\n" in text
    assert "| all of it | 21:21 |" in text
    assert "Measured on 2 cores and no GPU. `.venv` takes 6.0 GB." in text
    assert "```\n24 pictures tagged by color v1\n\ncolor  17 of 24 right\n```\n" in text
    assert page.with_parts(text, parts) == text
    with pytest.raises(TourError, match=r"no markers around the part 'times'"):
        page.with_parts("# Tour\n", parts)


def test_a_demo_that_ends_otherwise_stops_the_tour() -> None:
    with pytest.raises(TourError, match="the demo's end is not as it was"):
        page.closing_words("[6/6] result\nnothing\n")
