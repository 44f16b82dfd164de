"""The published pages in a real browser: without a script, and from the disk."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright
from tour.browser import MISSING, PROGRAM, chromium

from shoetagger.config.recipe import Group
from shoetagger.publishing.pages import day_page, style
from shoetagger.publishing.tables import Cell, Row

GROUPS = {"color": Group(tags=("black", "red")), "style": Group(tags=("boot",))}

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason=MISSING)]


def picture(name: str, color: tuple[str, ...], style: tuple[str, ...]) -> Row:
    cells = {
        group: Cell(tags, dict.fromkeys(tags, 0.9), "1", stale=False, corrected=False)
        for group, tags in (("color", color), ("style", style))
    }
    seen = datetime(2026, 1, 2, tzinfo=UTC)
    return Row(name.ljust(64, "0"), f"{name}.jpg", f"file:///inbox/{name}.jpg", seen, cells)


def test_a_choice_of_tags_says_how_many_pictures_have_them_all_even_where_none_has(
    tmp_path: Path,
) -> None:
    rows = [
        picture("a", ("black",), ("boot",)),
        picture("b", ("black",), ()),
        picture("c", ("red",), ("boot",)),
    ]
    page = day_page(
        "2026-01-02", rows, groups=GROUPS, titles={}, gone={row.image_id for row in rows}, number=1,
        pages=1, page_size=200, pictures=len(rows),
    )  # fmt: skip
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "001.html").write_text(page)
    (tmp_path / "style.css").write_text(style(GROUPS))
    with sync_playwright() as playwright:
        browser = chromium(playwright)
        shown = browser.new_page(java_script_enabled=False)
        shown.goto((tmp_path / "day" / "001.html").as_uri())
        tree = shown.context.new_cdp_session(shown)
        count = shown.get_by_role("status")
        expect(count).to_be_hidden()
        for tag, words in (("black", "2"), ("boot", "1"), ("red", "none")):
            shown.get_by_text(tag, exact=False).and_(shown.locator("label")).click()
            expect(count).to_be_visible()
            # What screen readers read has the number, too, which the style sheet makes.
            nodes = tree.send("Accessibility.getFullAXTree")["nodes"]
            read = " ".join(node["name"]["value"] for node in nodes if node.get("name"))
            assert f"Pictures on this page with all the chosen tags:  {words} " in f"{read} ", read
        browser.close()
