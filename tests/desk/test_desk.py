"""The desk: what people find, correct and take back, and what nobody else can do."""

from __future__ import annotations

import html
import json
import re
from threading import Thread

import httpx
import pytest
import yaml
from fastapi.routing import APIRoute
from helpers.desk import COLOR, COLORS, Desk, access, image_id

from shoetagger.desk.gallery import Gallery
from shoetagger.desk.pages import SCREENS
from shoetagger.publishing.thumbnails import preview_name
from shoetagger.storage.places import published_at
from shoetagger.store.rows import Prediction
from shoetagger.store.store import Store

SHOES = {"a.jpg": ("red", "boot"), "b.jpg": ("black", "boot"), "Sandal.JPG": ("red", "flat")}


def names(response: httpx.Response) -> list[str]:
    """The pictures on a page of the gallery, in order."""
    assert response.status_code == 200, response.text
    ids = re.findall(r'data-image="([0-9a-f]{64})"', response.text)
    return [bytes.fromhex(found).rstrip(b"\0").decode() for found in ids]


def seen(page: str, name: str, group: str = "color") -> dict[str, object]:
    """What a browser knows of a group of a picture, from a page or a card."""
    pattern = rf'data-image="{image_id(name)}" data-groups="([^"]*)"'
    (data,) = re.findall(pattern, page)
    return json.loads(html.unescape(data))[group]


def edit(desk: Desk, name: str, *tags: str, who: str = "ann", at: str | None = None, **change):
    """Send one edit from the page `at`, or from the gallery as it is now."""
    known = seen(at or desk.client.get("/").text, name)
    wanted = {"image_id": image_id(name), "group": "color", "tags": list(tags)}
    return desk.post("/edits", {"edits": [wanted | {"seen": known["seen"]} | change]}, who)


# Finding


def test_tags_are_or_within_a_group_and_and_between_groups(desk: Desk) -> None:
    desk.arrive(SHOES)
    get = desk.client.get
    assert set(names(get("/"))) == SHOES.keys()
    assert set(names(get("/?g.color=red"))) == {"a.jpg", "Sandal.JPG"}
    assert names(get("/?g.color=red&g.style=boot")) == ["a.jpg"]
    assert set(names(get("/?g.color=red&g.color=black&g.style=boot"))) == {"a.jpg", "b.jpg"}


def test_counts_say_what_each_choice_would_show(desk: Desk) -> None:
    desk.arrive(SHOES)
    page = desk.client.get("/?g.color=red&g.style=boot").text
    counts = dict(re.findall(r"<span>(\w+) <small>(\d+)</small>", page))
    assert counts["red"] == "1"
    assert counts["black"] == "1"
    assert counts["boot"] == "1"
    assert counts["flat"] == "1"
    assert counts["corrected"] == "0"


def test_names_are_found_in_any_case_and_days_narrow(desk: Desk) -> None:
    desk.arrive(SHOES)
    desk.arrive({"late.jpg": ("red", "boot")})
    get = desk.client.get
    assert names(get("/?q=sAND")) == ["Sandal.JPG"]
    assert names(get("/?from=2026-01-02")) == ["late.jpg"]
    assert set(names(get("/?to=2026-01-01"))) == SHOES.keys()
    assert names(get("/"))[0] == "late.jpg"  # the latest first


def test_no_match_says_so_and_leads_out(desk: Desk) -> None:
    desk.arrive(SHOES)
    page = desk.client.get("/?g.color=black&g.style=flat").text
    assert "0 pictures match" in page
    assert 'href="?g.style=flat"' in page
    assert "No pictures yet" not in page


@pytest.mark.slow
def test_pictures_of_one_article_are_shown_together(desk: Desk) -> None:
    params = yaml.safe_load(desk.settings.params_file.read_text())
    params["articles"] = {"pattern": r"(?P<article>\d+)_\d+\.jpg$"}
    desk.arrive({"71_1.jpg": ("red", "boot"), "c.jpg": ("black", "flat")})
    assert "Article" not in desk.client.get("/").text
    desk.settings.params_file.write_text(yaml.safe_dump(params))
    desk.arrive({"71_2.jpg": ("red", "flat"), "7_1.jpg": ("black", "boot")})
    assert names(desk.client.get("/?article=71")) == ["71_2.jpg", "71_1.jpg"]
    assert names(desk.client.get("/?article=71&g.style=flat")) == ["71_2.jpg"]
    assert names(desk.client.get("/?article=1")) == []
    page = desk.client.get(f"/picture/{image_id('71_1.jpg')}").text
    assert "Article 71 <small>2 pictures · color: red · style: boot, flat</small>" in page
    assert f'href="../picture/{image_id("71_2.jpg")}"' in page
    assert 'href="../?article=71"' in page
    assert "Article" not in desk.client.get(f"/picture/{image_id('c.jpg')}").text
    sheet = (desk.settings.published / "csv" / "2026-01-01.csv").read_text()
    assert ",71," in sheet.splitlines()[1]


@pytest.mark.slow
def test_a_wrong_address_is_refused_by_name(desk: Desk) -> None:
    for query, word in (
        ("g.color=blue", "color"),
        ("state=odd", "state"),
        ("from=soon", "from"),
        ("page=0", "page"),
    ):
        response = desk.client.get(f"/?{query}")
        assert response.status_code == 400
        assert word in response.text
    response = desk.client.get(f"/picture/{'0' * 64}")
    assert response.status_code == 404
    assert "there is no picture" in response.text


@pytest.mark.slow
def test_many_pictures_come_in_pages(desk: Desk) -> None:
    desk.arrive({f"{n:03d}.jpg": ("red", "boot") for n in range(70)})
    first, second = names(desk.client.get("/")), names(desk.client.get("/?page=2"))
    assert (len(first), len(second)) == (60, 10)
    assert not set(first) & set(second)
    assert 'href="?page=2"' in desk.client.get("/").text
    assert "There is no page 3" in desk.client.get("/?page=3").text


def test_a_desk_without_pictures_says_how_they_come(desk: Desk) -> None:
    page = desk.client.get("/").text
    assert "No pictures yet" in page
    assert "tag_new_images" in page


# Correcting


def test_a_correction_shows_at_once_in_filters_on_cards_and_in_the_store(desk: Desk) -> None:
    desk.arrive(SHOES)
    response = edit(desk, "b.jpg", "red")
    assert response.status_code == 200
    assert seen(response.json()["cards"][image_id("b.jpg")], "b.jpg")["tags"] == ["red"]
    assert desk.tags("b.jpg") == (("red",), True)
    assert set(names(desk.client.get("/?g.color=red"))) == SHOES.keys()
    assert names(desk.client.get("/?state=corrected")) == ["b.jpg"]
    (row,) = desk.store.corrections.history(image_id("b.jpg"))
    assert (row.by, row.origin) == ("ann", "browse")
    assert "set by ann" in desk.client.get(f"/picture/{image_id('b.jpg')}").text


@pytest.mark.slow
def test_a_correction_still_shows_after_another_day_was_published(desk: Desk) -> None:
    desk.arrive(SHOES)
    edit(desk, "b.jpg", "red")
    desk.arrive({"late.jpg": ("black", "flat")})
    assert names(desk.client.get("/?g.color=black")) == ["late.jpg"]
    assert names(desk.client.get("/?state=corrected")) == ["b.jpg"]


def test_a_desk_that_starts_later_shows_what_was_edited_before(desk: Desk) -> None:
    desk.arrive(SHOES)
    with Store(desk.settings.store_url) as other:
        other.corrections.correct(
            image_id("b.jpg"), "color", ["red"], by="bo", why="", now=desk.now
        )
    assert names(desk.client.get("/?state=corrected")) == ["b.jpg"]


def test_undo_brings_back_what_was_before(desk: Desk) -> None:
    desk.arrive(SHOES)
    first = edit(desk, "a.jpg", "black").json()["ids"]
    second = edit(desk, "a.jpg").json()["ids"]
    assert desk.tags("a.jpg") == ((), True)
    assert desk.post("/undo", {"ids": second}).status_code == 200
    assert desk.tags("a.jpg") == (("black",), True)
    response = desk.post("/undo", {"ids": first})
    assert seen(response.json()["cards"][image_id("a.jpg")], "a.jpg")["state"] == "tagged"
    assert desk.tags("a.jpg") == (("red",), False)
    assert names(desk.client.get("/?state=corrected")) == []


@pytest.mark.slow
def test_of_two_people_on_one_picture_the_second_is_told_who_was_first(desk: Desk) -> None:
    desk.arrive(SHOES)
    page = desk.client.get("/").text
    assert edit(desk, "a.jpg", "black", who="bo", at=page).status_code == 200
    response = edit(desk, "a.jpg", "red", "black", at=page)
    assert response.status_code == 409
    assert "bo edited color" in response.json()["detail"]
    assert seen(response.json()["cards"][image_id("a.jpg")], "a.jpg")["tags"] == ["black"]
    assert desk.tags("a.jpg") == (("black",), True)
    mine = desk.store.corrections.history(image_id("a.jpg"))[0].id
    assert desk.post("/undo", {"ids": [mine]}).status_code == 409


def test_similar_pictures_that_people_labelled_are_shown_beside_one(desk: Desk) -> None:
    desk.arrive(SHOES)
    for name, number in (("a.jpg", 100), ("b.jpg", 101), ("Sandal.JPG", -100)):
        vector = b"12345678" + bytes([number % 256, 50] * 32)
        seen_so = Prediction(image_id(name), COLOR, (0.9, 0.1), ("red",), vector)
        desk.store.predictions.record(predictions=[seen_so], run_id="run", now=desk.now)
    address = f"/picture/{image_id('a.jpg')}"
    assert "Similar pictures" not in desk.client.get(address).text
    edit(desk, "b.jpg", "red")
    edit(desk, "Sandal.JPG", "black")
    similar = desk.client.get(address).text.partition("Similar pictures that people labelled")[2]
    found = re.findall(r'href="\.\./picture/([0-9a-f]{64})"', similar)
    assert found == [image_id("b.jpg"), image_id("Sandal.JPG")]


def test_many_pictures_are_edited_all_or_none(desk: Desk) -> None:
    desk.arrive(SHOES)
    edits = [
        {"image_id": image_id(name), "group": "color", "tags": ["black"], "seen": None}
        for name in SHOES
    ]
    unknown = edits[0] | {"image_id": "f" * 64}
    response = desk.post("/edits", {"edits": [*edits, unknown]})
    assert response.status_code == 422
    assert "no picture" in response.json()["detail"]
    assert desk.tags("a.jpg") == (("red",), False)
    assert desk.post("/edits", {"edits": edits}).status_code == 200
    assert all(desk.tags(name) == (("black",), True) for name in SHOES)


def test_confirmed_tags_are_a_persons_and_withdrawn_ones_the_models(desk: Desk) -> None:
    desk.arrive(SHOES)
    edit(desk, "a.jpg", "red", kind="confirm")
    assert desk.tags("a.jpg") == (("red",), True)
    assert "confirmed by ann" in desk.client.get("/").text
    edit(desk, "a.jpg", tags=None)
    assert desk.tags("a.jpg") == (("red",), False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"group": "size"}, "no group 'size'"),
        ({"tags": ["green"]}, "color has no tag 'green'"),
    ],
)
def test_what_params_do_not_know_is_refused_by_name(desk: Desk, change, words: str) -> None:
    desk.arrive(SHOES)
    response = edit(desk, "a.jpg", "red", **change)
    assert response.status_code == 422
    assert words in response.json()["detail"]


@pytest.mark.slow
def test_a_forgotten_picture_leaves_the_desk_at_once(desk: Desk) -> None:
    desk.arrive(SHOES)
    edit(desk, "a.jpg", "black")
    desk.store.files.forget(image_id("a.jpg"), desk.now)
    assert set(names(desk.client.get("/"))) == SHOES.keys() - {"a.jpg"}
    assert desk.client.get(f"/picture/{image_id('a.jpg')}").status_code == 404


def test_rejected_files_are_listed_and_tried_again(desk: Desk) -> None:
    locator = desk.reject("<script>.jpg", "truncated")
    page = desk.client.get("/rejected").text
    assert "&lt;script&gt;.jpg" in page
    assert "truncated" in page
    assert desk.post("/rejected/retry", {"locators": [locator]}).json() == {"retried": 1}
    assert "No file is rejected" in desk.client.get("/rejected").text


@pytest.mark.slow
def test_threads_share_one_desk(desk: Desk) -> None:
    desk.arrive({f"{n:03d}.jpg": ("red", "boot") for n in range(16)})
    page, failures = desk.client.get("/").text, []

    def work(number: int) -> None:
        response = edit(desk, f"{number:03d}.jpg", "black", at=page)
        shown = names(desk.client.get("/?g.color=black"))
        if response.status_code != 200 or f"{number:03d}.jpg" not in shown:
            failures.append((number, response.text))

    threads = [Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(names(desk.client.get("/?state=corrected"))) == 16


def test_pictures_with_none_of_a_groups_tags_can_be_found(desk: Desk) -> None:
    desk.arrive(SHOES)
    edit(desk, "a.jpg")
    assert names(desk.client.get("/?state=none+of+these")) == ["a.jpg"]
    desk.publish()
    assert names(desk.client.get("/?state=none+of+these")) == ["a.jpg"]
    judge(desk, "a.jpg")
    assert names(desk.client.get("/?state=none+of+these")) == []
    desk.publish()
    assert names(desk.client.get("/?state=none+of+these")) == []


def test_pictures_far_from_all_labelled_ones_can_be_found(desk: Desk) -> None:
    desk.arrive(SHOES)
    now = desk.now
    desk.store.ledger.add_version(
        digest="9" * 64,
        group="color",
        tags=COLORS,
        registry_name="shoetagger-color",
        version="2",
        now=now,
    )
    move = desk.store.ledger.begin(
        "color", "9" * 64, expect_from=COLOR, kind="promote", by="me", why="x", now=now
    )
    desk.store.ledger.finish(move, now)
    far = Prediction(image_id("a.jpg"), "9" * 64, (0.1, 0.9), ("red",), unsure=True)
    desk.store.predictions.record(predictions=[far], run_id="run", now=now)
    desk.publish()
    assert names(desk.client.get("/?state=unsure")) == ["a.jpg"]
    assert "far from all labelled pictures: color" in desk.client.get("/?state=unsure").text
    edit(desk, "a.jpg", "red", kind="confirm")
    assert names(desk.client.get("/?state=unsure")) == []


# Judging


def judge(desk: Desk, name: str, *, is_shoe: bool = False, who: str = "ann", at: str | None = None):
    """Say of one picture that it is not a shoe, or take that back."""
    page = at or desk.client.get("/").text
    pattern = rf'data-image="{image_id(name)}" data-groups="[^"]*" data-whole="([^"]*)"'
    (data,) = re.findall(pattern, page)
    whole = json.loads(html.unescape(data))
    wanted = {"image_id": image_id(name), "group": "", "tags": None if is_shoe else []}
    verdict = wanted | {"seen": whole["seen"], "kind": "verdict"}
    return desk.post("/edits", {"edits": [verdict]}, who)


@pytest.mark.slow
def test_contradictions_are_tags_that_exclude_each_other_and_where_people_disagree(
    desk: Desk,
) -> None:
    desk.arrive(SHOES)
    document = yaml.safe_load(desk.settings.params_file.read_text())
    document["audit"]["exclusive"] = [["red", "flat"]]
    desk.settings.params_file.write_text(yaml.safe_dump(document))
    get = desk.client.get
    assert names(get("/?state=contradiction")) == ["Sandal.JPG"]
    assert "contradiction <small>1</small>" in get("/").text
    edit(desk, "a.jpg", "black")
    edit(desk, "b.jpg", "black", who="bo")
    assert names(get("/?state=contradiction")) == ["Sandal.JPG"]
    edit(desk, "a.jpg", "red", who="bo")
    edit(desk, "Sandal.JPG", "black")
    assert names(get("/?state=contradiction")) == ["a.jpg"]
    edit(desk, "a.jpg", "red")
    assert names(get("/?state=contradiction")) == []


def test_what_is_not_a_shoe_has_no_tags_on_the_desk_and_can_be_found(desk: Desk) -> None:
    desk.arrive(SHOES)
    response = judge(desk, "a.jpg")
    assert "not a shoe" in response.json()["cards"][image_id("a.jpg")]
    assert desk.tags("a.jpg") == ((), True)
    assert names(desk.client.get("/?state=not+a+shoe")) == ["a.jpg"]
    assert set(names(desk.client.get("/?g.color=red"))) == {"Sandal.JPG"}
    page = desk.client.get(f"/picture/{image_id('a.jpg')}").text
    assert "no tags, since ann judged it as not a shoe" in page
    desk.publish()
    assert names(desk.client.get("/?state=not+a+shoe")) == ["a.jpg"]
    assert desk.post("/undo", {"ids": response.json()["ids"]}).status_code == 200
    assert names(desk.client.get("/?state=not+a+shoe")) == []
    assert desk.tags("a.jpg") == (("red",), False)


@pytest.mark.slow
def test_nobody_judges_or_tags_what_another_judged_meanwhile(desk: Desk) -> None:
    desk.arrive(SHOES)
    page = desk.client.get("/").text
    edit(desk, "b.jpg", "red", who="bo")
    response = judge(desk, "b.jpg", at=page)
    assert (response.status_code, response.json()["detail"][:15]) == (409, "bo edited color")
    verdict = judge(desk, "a.jpg", who="bo").json()
    response = desk.post("/undo", {"ids": verdict["ids"]}, "ann")
    assert response.status_code == 409
    assert image_id("a.jpg") in response.json()["cards"]
    response = edit(desk, "a.jpg", "black", at=page)
    assert response.status_code == 409
    assert "take that back before you tag it" in response.json()["detail"]
    assert judge(desk, "a.jpg", is_shoe=True).status_code == 200
    assert desk.tags("a.jpg") == (("red",), False)


@pytest.mark.slow
def test_leaving_all_to_the_models_is_undone_in_one_go(desk: Desk) -> None:
    desk.arrive(SHOES)
    edit(desk, "a.jpg", "black")
    judge(desk, "a.jpg")
    about = {"image_id": image_id("a.jpg"), "tags": None}
    rows = desk.store.corrections.in_force([image_id("a.jpg")])
    color, whole = (rows[image_id("a.jpg"), group].id for group in ("color", ""))
    withdrawn = [
        about | {"group": "", "seen": whole, "kind": "verdict"},
        about | {"group": "color", "seen": color},
    ]
    ids = desk.post("/edits", {"edits": withdrawn}).json()["ids"]
    assert desk.tags("a.jpg") == (("red",), False)
    assert desk.post("/undo", {"ids": ids}).status_code == 200
    assert names(desk.client.get("/?state=not+a+shoe")) == ["a.jpg"]
    judge(desk, "a.jpg", is_shoe=True)
    assert desk.tags("a.jpg") == (("black",), True)


@pytest.mark.parametrize("change", [{"group": "color"}, {"tags": ["red"]}])
def test_a_verdict_is_on_a_whole_picture(desk: Desk, change) -> None:
    desk.arrive(SHOES)
    verdict = {"image_id": image_id("a.jpg"), "group": "", "tags": [], "kind": "verdict"}
    response = desk.post("/edits", {"edits": [verdict | {"seen": None} | change]})
    assert response.status_code == 422
    assert "on the whole picture" in response.json()["detail"]


# Who may do what


@pytest.mark.slow
def test_every_route_asks_who_it_is(desk: Desk) -> None:
    routes = [route for route in desk.client.app.routes if isinstance(route, APIRoute)]
    assert len(routes) == len(desk.client.app.routes)  # nothing is mounted beside them
    for route in routes:
        first = route.dependant.dependencies[0]  # the guard, before all that the route needs
        assert access in [needed.call for needed in first.dependencies], route.path
        path = route.path.replace("{image_id}", "0" * 64).replace("{name}", "desk.css")
        for method in route.methods:
            response = desk.anonymous.request(method, path, json={})
            assert response.status_code == 401, (method, path)


def writing(desk: Desk) -> list[str]:
    """The routes that write."""
    routes = [route for route in desk.client.app.routes if isinstance(route, APIRoute)]
    found = [route.path for route in routes if route.methods != {"GET"}]
    assert {"/edits", "/undo", "/queue/skip", "/rejected/retry"} <= set(found)
    return found


def test_who_may_only_look_sees_no_edits_and_cannot_write(desk: Desk) -> None:
    desk.arrive(SHOES)
    page = desk.client.get("/", headers={"x-user": "kim"}).text
    assert set(names(desk.client.get("/", headers={"x-user": "kim"}))) == SHOES.keys()
    assert "palette" not in page
    for path in writing(desk):
        assert desk.post(path, {}, who="kim").status_code == 403, path
    assert edit(desk, "a.jpg", "black", who="kim").status_code == 403
    assert desk.tags("a.jpg") == (("red",), False)


@pytest.mark.parametrize(
    "sent",
    [
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "http://testserver"},
        {"sec-fetch-site": "none"},
        {},
        {"origin": "http://testserver:5000"},  # MLflow's port, say
        {"origin": "null"},
    ],
)
def test_a_page_of_another_origin_cannot_write(desk: Desk, sent: dict[str, str]) -> None:
    desk.arrive(SHOES)
    body = {"edits": [{"image_id": image_id("a.jpg"), "group": "color", "tags": [], "seen": None}]}
    headers = {"x-user": "ann"} | sent
    assert desk.client.post("/edits", json=body, headers=headers).status_code == 403
    for path in writing(desk):
        assert desk.client.post(path, json={}, headers=headers).status_code == 403, path
    plain = headers | {"sec-fetch-site": "same-origin", "content-type": "text/plain"}
    response = desk.client.post("/edits", content=json.dumps(body), headers=plain)
    assert response.status_code in (415, 422)
    assert desk.tags("a.jpg") == (("red",), False)


def test_a_page_of_the_desk_can_write_over_plain_http(desk: Desk) -> None:
    """Browsers name the origin alone there, unless the server is on this machine."""
    desk.arrive(SHOES)
    body = {"edits": [{"image_id": image_id("a.jpg"), "group": "color", "tags": [], "seen": None}]}
    headers = {"x-user": "ann", "origin": "http://shoes.example:8080", "host": "shoes.example:8080"}
    assert desk.client.post("/edits", json=body, headers=headers).status_code == 200
    assert desk.tags("a.jpg") == ((), True)


def test_pages_run_no_script_but_their_own_and_names_are_text(desk: Desk) -> None:
    name = "<script>alert(1)<\u2215script>"
    desk.arrive({name[:31]: ("red", "boot")})
    response = desk.client.get("/")
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert "frame-ancestors 'self'" in response.headers["content-security-policy"]
    assert "&lt;script&gt;alert(1)" in response.text
    assert re.findall(r"<script[^>]*>", response.text) == [
        '<script src="static/desk.js" type="module">'
    ]
    assert not re.findall(r"\son\w+=|style=", response.text)


def test_only_the_desks_own_files_are_served(desk: Desk) -> None:
    for name in ("desk.css", "desk.js"):
        assert desk.client.get(f"/static/{name}").status_code == 200
    for name in ("..%2Fapp.py", "app.py", "%2e%2e/app.py"):
        assert desk.client.get(f"/static/{name}").status_code == 404
    assert desk.client.get("/thumbs/..%2f..%2fstore.jpg").status_code in (404, 422)
    assert desk.client.get(f"/thumbs/{'0' * 64}.jpg").status_code == 404


@pytest.mark.slow
def test_a_params_file_that_was_never_right_is_named_and_mended_without_a_restart(
    desk: Desk,
) -> None:
    desk.arrive(SHOES)
    good = desk.settings.params_file.read_text()
    desk.settings.params_file.write_text("groups: 1\n")
    response = desk.client.get("/")
    assert response.status_code == 500
    assert "groups" in response.text
    desk.settings.params_file.write_text(good)
    assert set(names(desk.client.get("/"))) == SHOES.keys()


@pytest.mark.slow
def test_with_a_fault_in_params_the_desk_goes_by_the_last_good_ones_and_says_so(desk: Desk) -> None:
    desk.settings.home.mkdir()
    desk.arrive(SHOES)
    good = desk.settings.params_file.read_text()
    assert "params.yaml has a fault" not in desk.client.get("/").text
    desk.settings.params_file.write_text(good + "<b>: 1\n")
    screens = [f"/{screen}" for screen in SCREENS]
    for path in (*screens, f"/picture/{image_id('a.jpg')}"):
        page = desk.client.get(path).text
        assert "params.yaml has a fault, and the last good one" in page
        assert "unknown key &lt;b&gt;" in page
    assert edit(desk, "b.jpg", "red").status_code == 200
    desk.settings.params_file.unlink()
    assert "is missing" in desk.client.get("/").text
    desk.settings.params_file.write_text(good)
    assert "params.yaml has a fault" not in desk.client.get("/").text


@pytest.mark.slow
def test_titles_are_read_in_place_of_tags_which_edits_and_addresses_keep(desk: Desk) -> None:
    desk.arrive(SHOES)
    good = desk.settings.params_file.read_text().replace("titles: {}\n", "")
    titles = "titles: {red: Rot & more, color: Farbe}\n"
    desk.settings.params_file.write_text(good + titles)
    page = desk.client.get("/?g.color=red").text
    assert set(names(desk.client.get("/?g.color=red"))) == {"a.jpg", "Sandal.JPG"}
    for shown in (
        "<legend>Farbe</legend>",
        "<span>Rot &amp; more <small>",
        'title="Farbe · score',
        'data-tag="red"',
        "a.jpg: Rot &amp; more, boot",
    ):
        assert shown in page, shown
    assert edit(desk, "b.jpg", "red").status_code == 200
    page = desk.client.get(f"/picture/{image_id('b.jpg')}").text
    assert "ann: Farbe Rot &amp; more</li>" in page


def test_a_large_picture_is_its_preview_or_else_the_thumbnail(desk: Desk) -> None:
    desk.arrive(SHOES)
    address = f"/previews/{image_id('a.jpg')}.jpg"
    assert address[1:] in desk.client.get(f"/picture/{image_id('a.jpg')}").text
    thumbnail = desk.client.get(address)
    assert thumbnail.content == desk.client.get(address.replace("previews", "thumbs")).content
    name = preview_name(image_id("a.jpg"))
    published_at(desk.settings.published).write(name, b"large")
    assert desk.client.get(address).content == b"large"
    assert desk.client.get(f"/previews/{'0' * 64}.jpg").status_code == 404


def test_a_gallery_closes_what_it_opened(desk: Desk) -> None:
    gallery = Gallery(desk.settings)
    gallery.rejected()
    gallery.close()
