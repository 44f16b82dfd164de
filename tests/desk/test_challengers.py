"""The desk's pages of what challengers would change."""

from __future__ import annotations

import re

import pytest
from helpers.desk import Desk, image_id


def test_a_challenger_is_shown_with_each_picture_that_it_would_change(desk: Desk) -> None:
    desk.arrive({"a.jpg": ("red", "boot"), "b.jpg": ("red", "flat")})
    assert "No version was compared yet" in desk.client.get("/challengers").text
    desk.compare()
    assert 'href="challengers/color/1"' in desk.client.get("/challengers").text
    page = desk.client.get("/challengers/color/1").text
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "It passes the gate" in words
    assert "a person has to approve: tags change" in words
    assert "macro F1 is &lt;higher&gt;" in page
    assert "2 pictures of 9 looked at would have other tags" in words
    assert "black: 2 gain it, 0 lose it" in words
    assert page.count("loses red") == 1
    assert page.count("gains black") == 2
    assert "not measurable" in words
    for name in ("a.jpg", "b.jpg"):
        assert f'href="../../picture/{image_id(name)}"' in page


@pytest.mark.slow
def test_a_picture_that_was_erased_is_not_shown(desk: Desk) -> None:
    desk.arrive({"a.jpg": ("red", "boot"), "b.jpg": ("red", "flat")})
    desk.compare()
    desk.store.files.forget(image_id("a.jpg"), desk.now)
    page = desk.client.get("/challengers/color/1").text
    assert image_id("a.jpg") not in page
    assert image_id("b.jpg") in page


def test_an_unknown_challenger_is_not_found(desk: Desk) -> None:
    for path in ("color/1", "color/99", "no/1", "..%2f..%2fx/1"):
        assert desk.client.get(f"/challengers/{path}").status_code == 404
