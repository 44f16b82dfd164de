"""The desk's page of the label audit: what the sheet says, and what the model says."""

from __future__ import annotations

import re

import pytest
from helpers.desk import Desk, image_id

from shoetagger.learning.audit.finding import TABLE, Finding

FINDINGS = [
    Finding("score", "color", "red", "<b>.jpg", "1", 0.02, "looks like no red"),
    Finding("score", "style", "boot", "x.jpg", "0", 0.93, "looks like boot", "", image_id("a.jpg")),
    Finding("exclusive", "detail", "above, below", "x.jpg", "1", None, "cannot both be true"),
    Finding("untagged", "style", "", "y.jpg", "", None, "no tag of style is ticked"),
    Finding("near_duplicate", "", "", "x.jpg", "", 0.99, "nearly the same picture", "y.jpg"),
]


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def test_without_an_audit_the_page_says_how_to_make_one(desk: Desk) -> None:
    assert "run shoetagger audit" in text_of(desk.client.get("/audit").text)


@pytest.mark.slow
def test_each_finding_says_what_the_sheet_and_what_the_model_says(desk: Desk) -> None:
    desk.arrive({"a.jpg": ("red", "boot")})
    desk.audit(FINDINGS)
    page = desk.client.get("/audit").text
    words = text_of(page)
    assert "5 findings of 20" in words
    assert "the sheet says red the model says no red (0.02)" in words
    assert "the sheet says no boot the model says boot (0.93)" in words
    assert "the sheet says above, below look at cannot both be true" in words
    assert "nearly the same picture (0.99)" in words
    assert "&lt;b&gt;.jpg" in page
    # A picture that arrived, too, leads to where it is corrected.
    assert page.count(f'href="picture/{image_id("a.jpg")}"') == 1
    shown = re.search(r'src="(audit/pictures/[0-9a-f]+\.jpg)" alt="x.jpg"', page)
    assert shown is not None
    assert desk.client.get(f"/{shown[1]}").content == b"a picture of x"
    assert desk.client.get(f"/audit/pictures/{'0' * 32}.jpg").status_code == 404
    assert desk.client.get("/audit/pictures/..%2f..%2fparams.yaml").status_code in (404, 422)


def test_a_damaged_table_is_named_with_what_to_do(desk: Desk) -> None:
    desk.audit(FINDINGS)
    (desk.settings.audit / TABLE).write_bytes(b"kind,group\nscore,color\n")
    response = desk.client.get("/audit")
    assert response.status_code == 500
    assert "audit.csv cannot be read" in response.text
    assert "run `shoetagger audit` again" in response.text
