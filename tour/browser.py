"""Debian's chromium, people who log in to Airflow there, and the desk in Airflow's UI."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

from playwright.sync_api import Browser, Frame, Locator, Page, Playwright, expect

from shoetagger.ops.environment import Ports

# Without the windows around the pages it takes a third of the CPU time of `chromium`.
PROGRAM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
MISSING = "chromium is missing: on Debian, apt-get install chromium-headless-shell"
VIEWPORT = {"width": 1360, "height": 900}  # pixels
PATIENCE = 60_000  # milliseconds


def chromium(playwright: Playwright, *options: str) -> Browser:
    """Start the machine's own chromium, as root too."""
    return playwright.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox", *options])


def log_in(
    browser: Browser, ports: Ports, passwords: Mapping[str, str], name: str, **options: Any
) -> Page:
    """Return the page of a browser of their own in which somebody has logged in to Airflow."""
    page = browser.new_context(**{"viewport": VIEWPORT, **options}).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(ports.airflow_url)
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(passwords[name])
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Pictures")).to_be_visible(timeout=PATIENCE)
    return page


def desk_of(page: Page) -> Frame:
    """Return the desk within Airflow's UI, once it is there."""
    frame = page.wait_for_selector("iframe").content_frame()
    assert frame is not None
    frame.wait_for_selector("main")
    frame.wait_for_load_state()
    return frame


def cards(desk: Frame) -> Locator:
    return desk.locator("[role=gridcell]")


def card(desk: Frame, image_id: str) -> Locator:
    return desk.locator(f'[role=gridcell][data-image="{image_id}"]')
