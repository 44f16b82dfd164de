"""The desk in a real browser: by keyboard and by mouse, in dark mode, on a small screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from threading import Thread

import pytest
import uvicorn
from axe_playwright_python.sync_playwright import Axe
from helpers.desk import Desk, image_id
from playwright.sync_api import Browser, Page, expect, sync_playwright
from tour.browser import MISSING, PROGRAM, chromium

from shoetagger.learning.audit.finding import Finding

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason=MISSING)]

ELSEWHERE = "shoes.example"  # not this machine, as far as the browser knows

SHOES = {"a.jpg": ("red", "boot"), "b.jpg": ("black", "boot"), "c.jpg": ("red", "flat")}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = chromium(playwright, f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")
        yield browser
        browser.close()


@pytest.fixture
def address(desk: Desk) -> Iterator[str]:
    """Where a server shows the desk to browsers."""
    desk.arrive(SHOES)
    server = uvicorn.Server(uvicorn.Config(desk.client.app, port=0, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


def opened(browser: Browser, address: str, who: str = "ann", **options: object) -> Page:
    """A page of a browser in which somebody is logged in; a script's error fails the test."""
    page = browser.new_context(extra_http_headers={"x-user": who}, **options).new_page()
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.set_default_timeout(15_000)
    page.goto(address)
    return page


def card(page: Page, name: str):
    return page.locator(f'[data-image="{image_id(name)}"]')


def chips(page: Page, name: str) -> list[str]:
    """The tags on a card, those that a person set with a mark."""
    return card(page, name).locator(".tags li").all_inner_texts()


def test_a_picture_is_corrected_and_undone_by_keyboard_alone(
    browser: Browser, address: str, desk: Desk
) -> None:
    page = opened(browser, address)
    order = page.locator("[role=gridcell]").evaluate_all("all => all.map(c => c.dataset.image)")
    page.keyboard.press("ArrowRight")  # to the first picture
    page.keyboard.press("ArrowRight")
    expect(page.locator(":focus")).to_have_attribute("data-image", order[1])
    second = bytes.fromhex(order[1]).rstrip(b"\0").decode()
    before = SHOES[second][0]
    other = {"red": "black", "black": "red"}[before]
    keys = {"black": "1", "red": "2"}
    page.keyboard.press(keys[other])
    expect(page.locator("#toast")).to_contain_text(f"with {other}")
    page.keyboard.press(keys[before])
    expect(page.locator("#toast")).to_contain_text(f"without {before}")
    assert desk.tags(second) == ((other,), True)
    expect(page.locator(":focus")).to_have_attribute("data-image", order[1])
    page.reload()
    assert f"{other}✓" in chips(page, second)
    page.keyboard.press("u")
    page.keyboard.press("u")
    expect(page.locator("[data-do=undo]")).to_be_disabled()
    expect(card(page, second).locator(".corrected")).to_have_count(0)
    assert desk.tags(second) == ((before,), False)


def test_enter_confirms_and_goes_on_and_several_are_edited_at_once(
    browser: Browser, address: str, desk: Desk
) -> None:
    page = opened(browser, address)
    page.keyboard.press("ArrowRight")
    first = page.locator(":focus").get_attribute("data-image")
    page.keyboard.press("Enter")
    expect(page.locator(f'[data-image="{first}"] .corrected')).to_have_count(2)
    assert page.locator(":focus").get_attribute("data-image") != first
    for name in SHOES:
        card(page, name).locator(".file").click()
    expect(page.locator("#aim")).to_have_text("3 pictures selected")
    page.get_by_role("button", name=re.compile("^flat")).click()
    expect(page.locator("#toast")).to_contain_text("with flat (3 pictures)")
    assert all("flat" in desk.tags(name, "style")[0] for name in SHOES)


def test_what_is_not_a_shoe_is_judged_and_taken_back_by_one_key(
    browser: Browser, address: str, desk: Desk
) -> None:
    page = opened(browser, address)
    card(page, "a.jpg").locator(".file").click()
    page.keyboard.press("n")
    expect(page.locator("#toast")).to_contain_text("not a shoe")
    assert chips(page, "a.jpg") == ["not a shoe✓"]
    expect(page.get_by_role("button", name="Not a shoe")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("1")
    expect(page.locator("#toast")).to_contain_text("n takes that back")
    assert desk.tags("a.jpg") == ((), True)
    page.keyboard.press("n")
    expect(page.locator("#toast")).to_contain_text("a shoe after all")
    assert desk.tags("a.jpg") == (("red",), False)


def test_the_address_holds_the_choice_and_names_are_text(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    page.locator(".chip", has_text="black").first.click()
    page.wait_for_url("**/?**")
    assert page.locator("[role=gridcell]").count() == 1
    again = opened(browser, page.url)
    assert again.locator("[role=gridcell]").count() == 1
    again.get_by_text("clear all filters").click()
    expect(again.locator("[role=gridcell]")).to_have_count(3)


def test_of_two_browsers_the_second_is_told_and_shown_what_the_first_did(
    browser: Browser, address: str, desk: Desk
) -> None:
    first, second = opened(browser, address, "bo"), opened(browser, address)
    for page, key in ((first, "1"), (second, "1")):
        card(page, "a.jpg").focus()
        page.keyboard.press(key)
        expect(page.locator("#toast")).not_to_be_empty()
    expect(second.locator("#toast")).to_contain_text("bo edited color of picture")
    assert "black✓" in chips(second, "a.jpg")
    assert desk.tags("a.jpg") == (("red", "black"), True)


def test_on_a_pictures_own_page_the_second_is_told_as_well(browser: Browser, address: str) -> None:
    own = f"{address}picture/{image_id('a.jpg')}"
    first, second = opened(browser, own, "bo"), opened(browser, own)
    first.keyboard.press("1")
    expect(first.locator("#toast")).to_contain_text("with black")
    with second.expect_navigation():
        second.keyboard.press("1")
    expect(second.locator("#toast")).to_contain_text("bo edited color of picture")
    second.reload()
    expect(second.locator("#toast")).to_be_empty()


def test_an_edit_can_be_undone_after_the_server_was_away(
    browser: Browser, address: str, desk: Desk
) -> None:
    page = opened(browser, address)
    card(page, "a.jpg").focus()
    page.keyboard.press("1")
    expect(page.locator("#toast")).to_contain_text("with black")
    page.route("**/undo", lambda route: route.abort())
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("does not respond")
    page.unroute("**/undo")
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("undone")
    assert desk.tags("a.jpg") == (("red",), False)


def test_an_edit_is_saved_over_plain_http_from_another_machine(
    browser: Browser, address: str, desk: Desk
) -> None:
    page = opened(browser, address.replace("127.0.0.1", ELSEWHERE))
    card(page, "a.jpg").focus()
    page.keyboard.press("1")
    expect(page.locator("#toast")).to_contain_text("with black")
    assert desk.tags("a.jpg") == (("red", "black"), True)


def test_in_a_single_row_there_is_nothing_above_and_below(browser: Browser, address: str) -> None:
    page = opened(browser, address)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    second = page.locator(":focus").get_attribute("data-image")
    for key in ("ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
        expect(page.locator(":focus")).to_have_attribute("data-image", second)


def test_who_may_only_look_gets_no_buttons(browser: Browser, address: str, desk: Desk) -> None:
    page = opened(browser, address, "kim")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    assert page.locator(".palette").count() == 0
    assert not any(desk.tags(name)[1] for name in SHOES)


def test_pictures_of_the_queue_are_checked_by_keyboard_here_and_large(
    browser: Browser, address: str, desk: Desk
) -> None:
    page = opened(browser, address + "queue")
    page.keyboard.press("ArrowRight")
    first = page.locator(":focus").get_attribute("data-image")
    page.keyboard.press("Enter")
    expect(page.locator(f'[data-image="{first}"] .corrected')).to_have_count(2)
    why = page.locator(f'[data-image="{first}"]').get_attribute("aria-describedby")
    assert page.locator(f"#{why}").is_visible()
    second = page.locator(":focus").get_attribute("data-image")
    page.keyboard.press("z")
    page.wait_for_url(f"**/picture/{second}")
    page.keyboard.press("Enter")
    expect(page.locator("#single .corrected")).to_have_count(2)
    for picture in (first, second):
        assert {row.origin for row in desk.store.corrections.history(picture)} == {"queue"}
    page.goto(address + "queue")
    expect(page.locator("[role=gridcell]")).to_have_count(1)


def test_a_picture_of_the_queue_is_skipped_and_taken_back_by_keyboard(
    browser: Browser, address: str, desk: Desk
) -> None:
    page = opened(browser, address + "queue")
    page.keyboard.press("ArrowRight")
    first = page.locator(":focus").get_attribute("data-image")
    page.keyboard.press("s")
    expect(page.locator("#toast")).to_contain_text("skipped")
    expect(page.locator(".skipped")).to_have_attribute("data-image", first)
    assert page.locator(":focus").get_attribute("data-image") != first
    assert desk.store.skips.of("ann") == {first}
    page.keyboard.press("u")
    expect(page.locator("#toast")).to_contain_text("undone")
    expect(page.locator(".skipped")).to_have_count(0)
    assert desk.store.skips.of("ann") == set()
    page.get_by_role("button", name=re.compile("^Skip")).click()
    expect(page.locator(".skipped")).to_have_count(1)
    page.reload()
    expect(page.locator("[role=gridcell]")).to_have_count(2)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "?g.color=black&g.style=flat",
        "picture",
        "rejected",
        "queue",
        "collection",
        "quality",
        "audit",
        "challengers",
        "challengers/color/1",
    ],
)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_screen(
    browser: Browser, address: str, desk: Desk, path: str, scheme: str
) -> None:
    desk.reject("bad.jpg", "truncated")
    desk.audit([Finding("score", "style", "boot", "x.jpg", "0", 0.93, "looks like boot")])
    desk.compare()
    desk.store.corrections.judge(image_id("c.jpg"), is_shoe=False, by="bo", why="", now=desk.now)
    path = f"picture/{image_id('a.jpg')}" if path == "picture" else path
    small = {"width": 390, "height": 844}
    page = opened(browser, address + path, color_scheme=scheme, viewport=small)
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 390
    found = Axe().run(page).response
    assert len(found["passes"]) > 10, "it did not look"
    serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert serious == [], [(v["id"], [n["html"] for n in v["nodes"][:2]]) for v in serious]
