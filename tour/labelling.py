"""A person who checks pictures of the queue by keyboard, and knows what the shoes show."""

from __future__ import annotations

import json
from collections.abc import Mapping

from playwright.sync_api import Frame, Page, expect

from .browser import card


def check(page: Page, desk: Frame, truth: Mapping[str, frozenset[str]], most: int) -> int:
    """Correct and confirm the first `most` pictures that the queue has drawn at random, and others.

    Those that were drawn at random come first, as they alone measure. Return how many were checked.
    """
    asked = desk.locator(".asked:has(.random)"), desk.locator(".asked:not(:has(.random))")
    ids = [
        image_id
        for part in asked
        for image_id in part.locator("[role=gridcell]").evaluate_all(
            "all => all.map(card => card.dataset.image)"
        )
    ]
    for image_id in ids[:most]:
        _check_one(page, desk, image_id, truth)
    return len(ids[:most])


def _check_one(page: Page, desk: Frame, image_id: str, truth: Mapping[str, frozenset[str]]) -> None:
    shown = card(desk, image_id)
    shown.focus()
    right = truth[shown.locator(".file").get_attribute("title") or ""]
    for group, state in json.loads(shown.get_attribute("data-groups") or "{}").items():
        keys = desk.locator(f'.palette [data-group="{group}"] [data-tag]')
        for key in keys.all():
            tag = key.get_attribute("data-tag") or ""
            if (tag in right) != (tag in state["tags"]):
                page.keyboard.press(key.get_attribute("data-key") or "")
                words = "with" if tag in right else "without"
                expect(desk.locator("#toast")).to_contain_text(f"{words} {tag}")
    page.keyboard.press("Enter")
    expect(shown.locator(".tags li:not(.none):not(:has(.mark))")).to_have_count(0)
