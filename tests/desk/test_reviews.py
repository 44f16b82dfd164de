"""The desk's queue of pictures to check, and the quality that the random ones of them show."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from datetime import timedelta

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers.bundles import LAYERS
from helpers.desk import COLOR, COLORS, COMPARISON, STYLE, Desk, go_live, image_id

from shoetagger.config.operations import Queue
from shoetagger.config.params import load
from shoetagger.images.views import Transform
from shoetagger.inference.bundle import BUNDLE_FILE, Bundle, save_bundle
from shoetagger.review.label_queue import LabelQueue
from shoetagger.store.rows import TagChange

# Ids are names in hex: the first one is of the fifth that is drawn from, which ends at 33.
SHOES = {"1.jpg": ("red", "boot"), "b.jpg": ("black", "boot"), "c.jpg": ("red", "flat")}


def asked(desk: Desk, who: str = "ann") -> dict[str, str]:
    """The pictures of the queue, in order, with their reasons."""
    page = desk.client.get("/queue", headers={"x-user": who}).text
    ids = re.findall(r'data-image="([0-9a-f]{64})"', page)
    reasons = re.findall(r'<span class="why \w+" id="why-\d+">([^<]*)</span>', page)
    assert len(ids) == len(reasons)
    names = [bytes.fromhex(found).rstrip(b"\0").decode() for found in ids]
    return dict(zip(names, reasons, strict=True))


def check(desk: Desk, name: str, *groups: str, **right: str) -> httpx.Response:
    """Confirm groups of a picture of the queue, or say what is right, as its page does."""
    page = desk.client.get("/queue").text
    (data,) = re.findall(rf'data-image="{image_id(name)}" data-groups="([^"]*)"', page)
    known = json.loads(html.unescape(data))
    edits = [
        {
            "image_id": image_id(name),
            "group": group,
            "tags": right[group].split() if group in right else known[group]["tags"],
            "seen": known[group]["seen"],
            "digest": known[group]["digest"],
            "kind": "correct" if group in right else "confirm",
        }
        for group in (*groups, *right)
    ]
    return desk.post("/edits", {"edits": edits, "origin": "queue"})


def test_what_is_not_a_shoe_is_asked_for_no_more_and_counts_in_no_quality(desk: Desk) -> None:
    desk.arrive(SHOES)
    check(desk, "1.jpg", "color", "style")
    assert {row.group for row in desk.store.corrections.at_random()} == {"color", "style"}
    for name in ("1.jpg", "b.jpg"):
        desk.store.corrections.judge(image_id(name), is_shoe=False, by="ann", why="", now=desk.now)
    assert set(asked(desk)) == {"c.jpg"}
    assert desk.store.corrections.at_random() == []
    desk.publish()
    assert set(asked(desk)) == {"c.jpg"}


def test_the_queue_names_a_reason_beside_each_picture(desk: Desk) -> None:
    desk.arrive(SHOES)
    found = asked(desk)
    assert found["1.jpg"] == "drawn at random"
    assert found["b.jpg"] == "least sure about black (0.90, threshold 0.50)"
    assert found["c.jpg"].startswith("may show ")
    assert set(found) == SHOES.keys()
    page = desk.client.get("/queue").text
    assert "1 of them drawn at random" in page
    described = re.findall(r'aria-describedby="(why-\d+)"', page)
    assert described == [f"why-{number}" for number in (1, 2, 3)]


@pytest.mark.slow
def test_reasons_name_tags_as_people_read_them(desk: Desk) -> None:
    desk.arrive(SHOES)
    document = yaml.safe_load(desk.settings.params_file.read_text())
    document["titles"] = {tag: f"Is {tag}" for tag in (*COLORS, "boot", "flat")}
    desk.settings.params_file.write_text(yaml.safe_dump(document))
    reasons = asked(desk)
    assert re.match(r"may show Is \w+ \(", reasons["c.jpg"])
    assert reasons["b.jpg"].startswith("least sure about Is black (0.90")


def test_what_is_checked_leaves_the_queue_and_its_origin_is_kept(desk: Desk) -> None:
    desk.arrive(SHOES)
    assert check(desk, "1.jpg", "color", "style").status_code == 200
    assert check(desk, "b.jpg", style="flat", color="red").status_code == 200
    check(desk, "c.jpg", "color")
    assert set(asked(desk)) == {"c.jpg"}  # a word is lacking on its style
    for name, origin in (("1.jpg", "random"), ("b.jpg", "queue")):
        rows = desk.store.corrections.history(image_id(name))
        assert {row.origin for row in rows} == {origin}
    ids = [row.id for row in desk.store.corrections.history(image_id("1.jpg"))]
    assert desk.post("/undo", {"ids": ids}).status_code == 200
    assert set(asked(desk)) == {"1.jpg", "c.jpg"}


@pytest.mark.slow
def test_the_queue_is_of_what_is_published_and_goes_on_the_next_day(desk: Desk) -> None:
    assert "Nothing to check." in desk.client.get("/queue").text
    desk.arrive(SHOES)
    for name in SHOES:
        check(desk, name, "color", "style")
    assert "Nothing to check." in desk.client.get("/queue").text
    desk.arrive({"late.jpg": ("red", "boot")})
    assert set(asked(desk)) == {"late.jpg"}


def test_what_a_person_skips_is_asked_of_others_and_of_them_once_taken_back(desk: Desk) -> None:
    desk.arrive(SHOES)
    skipped = {"image_ids": [image_id("1.jpg"), image_id("b.jpg")]}
    assert desk.post("/queue/skip", skipped).status_code == 200
    assert set(asked(desk)) == {"c.jpg"}
    assert set(asked(desk, "bo")) == SHOES.keys()
    assert desk.tags("b.jpg") == (("black",), False)
    back = {"image_ids": [image_id("b.jpg")], "back": True}
    assert desk.post("/queue/skip", back).status_code == 200
    assert set(asked(desk)) == {"b.jpg", "c.jpg"}
    assert desk.post("/queue/skip", skipped, "kim").status_code == 403
    assert desk.post("/queue/skip", {"image_ids": ["x"]}).status_code == 422


def test_what_a_challenger_would_change_is_a_reason_until_it_is_live(desk: Desk) -> None:
    desk.arrive(SHOES)
    now = desk.now
    new = "9" * 64
    version = {"group": "color", "tags": COLORS, "registry_name": "shoetagger-color"}
    desk.store.ledger.add_version(digest=new, version="2", now=now, **version)
    change = TagChange(image_id("b.jpg"), ("black",), ("red",))
    desk.store.comparisons.record(new, COMPARISON, [change], now=now)
    assert asked(desk)["b.jpg"] == "version 2 of color, not live, says red, not black"
    go_live(desk.store, new, "color", COLORS, "2", now + timedelta(hours=1))
    assert "version 2" not in asked(desk)["b.jpg"]


def test_tags_that_exclude_each_other_are_a_reason(desk: Desk) -> None:
    desk.arrive(SHOES)
    document = yaml.safe_load(desk.settings.params_file.read_text())
    document["audit"]["exclusive"] = [["black", "boot"], ["red", "nowhere"]]
    desk.settings.params_file.write_text(yaml.safe_dump(document))
    assert asked(desk)["b.jpg"] == "black (0.90) and boot (0.90) exclude each other"


@pytest.mark.slow
def test_what_will_be_collected_is_shown_with_who_checked_it(desk: Desk) -> None:
    desk.arrive(SHOES)
    assert "Nothing to collect." in desk.client.get("/collection").text
    check(desk, "1.jpg", "color", "style")
    check(desk, "c.jpg", "color")
    desk.store.corrections.judge(image_id("b.jpg"), is_shoe=False, by="bo", why="", now=desk.now)
    page = desk.client.get("/collection").text
    assert "2 pictures that people checked" in page
    words = re.findall(r'<span class="why" id="by-\d+">([^<]*)</span>', page)
    assert words == ["ann · random", "bo"]
    rows = desk.store.corrections.in_force([image_id("1.jpg")]).values()
    desk.store.corrections.mark_collected([row.id for row in rows], "a commit")
    assert "1 picture that people checked" in desk.client.get("/collection").text


def test_who_may_only_look_sees_the_queue_without_edits(desk: Desk) -> None:
    desk.arrive(SHOES)
    assert set(asked(desk, "kim")) == SHOES.keys()
    assert "palette" not in desk.client.get("/queue", headers={"x-user": "kim"}).text


def test_what_is_far_from_all_labelled_pictures_is_not_chosen(desk: Desk) -> None:
    desk.arrive(SHOES)
    (table,) = desk.settings.published.glob("parquet/*/tags.parquet")
    rows = pq.read_table(table)
    far = pa.array([image == image_id("b.jpg") for image in rows["image_id"].to_pylist()])
    place = rows.schema.get_field_index("style_unsure")
    pq.write_table(rows.set_column(place, rows.schema.field(place), far), table)
    assert set(asked(desk)) == {"1.jpg", "c.jpg"}


def rarest_first(desk: Desk, **support: tuple[int, ...]) -> Callable[[], str]:
    """Make bundles with this support live; return what tells why the rarest tag is asked for."""
    for digest, group, tags in ((COLOR, "color", COLORS), (STYLE, "style", ("boot", "flat"))):
        bundle = Bundle(
            group, tags, "resnet18", ("layer4",), Transform(size=32), (0.5, 0.5), support[group],
            dict.fromkeys(LAYERS, ""), None, "",
        )  # fmt: skip
        (desk.settings.bundles / digest).mkdir(parents=True)
        save_bundle(bundle, desk.settings.bundles / digest / BUNDLE_FILE)
    groups = load(desk.settings.params_file).groups

    def first() -> str:
        queue = LabelQueue(desk.store, desk.settings.published, desk.settings.bundles)
        choice = queue.choose(groups, Queue(size=1, random=0.0, rare=1.0))
        return choice.pictures[0].reason

    return first


def test_rarity_is_what_the_live_version_learned_from_and_people_said_since(desk: Desk) -> None:
    desk.arrive(SHOES)
    first = rarest_first(desk, color=(20, 4), style=(30, 40))
    assert first() == "may show red (0.90), learned from 4 so far"
    check(desk, "c.jpg", "color", "style")
    assert first() == "may show red (0.90), learned from 5 so far"


@pytest.mark.slow
def test_a_version_without_cross_validation_is_not_said_to_have_learned_from_nothing(
    desk: Desk,
) -> None:
    desk.arrive(SHOES)
    first = rarest_first(desk, color=(0, 0), style=(30, 40))
    assert first() == "may show black (0.90)"
    check(desk, "c.jpg", "color", "style")
    assert first() == "may show black (0.90)"


def test_a_group_that_the_tables_lack_is_asked_for_once_it_is_there(desk: Desk) -> None:
    desk.arrive(SHOES)
    document = yaml.safe_load(desk.settings.params_file.read_text())
    document["groups"]["use"] = {"tags": ["indoors", "outdoors"]}
    desk.settings.params_file.write_text(yaml.safe_dump(document))
    assert set(asked(desk)) == SHOES.keys()
    check(desk, "b.jpg", "color", "style")
    assert set(asked(desk)) == SHOES.keys()


@pytest.mark.slow
def test_quality_begins_with_the_first_random_review(desk: Desk) -> None:
    desk.arrive(SHOES)
    assert "No random reviews yet" in desk.client.get("/quality").text
    check(desk, "b.jpg", "color", "style")
    assert "No random reviews yet" in desk.client.get("/quality").text
    check(desk, "1.jpg", "style", color="black")
    page = desk.client.get("/quality").text
    assert "By 1 picture that the queue drew" in page
    assert "1 (live)" in page
    assert "2026-W01" in page
    assert "0.00 <small>[0.00, 0.79] of 1</small>" in page  # the colour was wrong
    assert "1.00 <small>[0.21, 1.00] of 1</small>" in page  # the style was right


def test_a_chosen_version_is_shown_by_tag_and_week(desk: Desk) -> None:
    desk.arrive(SHOES)
    new = "9" * 64
    desk.promote(new, "2", desk.now, {name: color for name, (color, _) in SHOES.items()})
    check(desk, "1.jpg", "color", "style")
    page = desk.client.get("/quality").text
    assert "Version 2 by tag" in page
    assert f'href="?version={COLOR}&amp;version={STYLE}"' in page
    page = desk.client.get(f"/quality?version={COLOR}&version={STYLE}").text
    assert page.count("Version 1 by tag") == 2
