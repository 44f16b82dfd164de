"""Tables and pages: what they hold, what is rewritten, and what strange names do to them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote, urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.works import DAY, GROUPS, NOW, Works, works_with
from PIL import Image

from shoetagger.config.operations import Articles
from shoetagger.config.recipe import Group
from shoetagger.config.settings import Settings
from shoetagger.images import decode
from shoetagger.publishing import pages, thumbnails
from shoetagger.publishing.announcing import take_unannounced
from shoetagger.publishing.csv_lines import csv_line
from shoetagger.publishing.export import export
from shoetagger.publishing.publication import PublishError, publish_changes
from shoetagger.publishing.rows import Cell, Row, shown_name
from shoetagger.publishing.thumbnails import thumbnail_name
from shoetagger.store.rows import Prediction

VOID = {"meta", "link", "img", "input", "br", "hr"}

STRANGE = [
    "two words.jpg",
    "dots.in.name.jpg_640x640.jpg",
    'it\'s "quoted", twice.jpg',
    "Stövel läder – grå.jpg",
    "50% off #1? a&b;c.jpg",
    "<script>alert(1)</script>.jpg".replace("/", "\u2215"),
    '"><img src=x onerror=alert(1)>.jpg',
    "{{ 7 * 7 }}{% raw %}.jpg",
    "=HYPERLINK(1).jpg",
    "line\nbreak.jpg",
    "tab\tand\rreturn.jpg",
    "gpj.\u202eexe.jpg",
    "back\\slash.jpg",
]


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list[Element] = field(default_factory=list)

    def all(self, tag: str, mark: str | None = None) -> list[Element]:
        """Find the elements below this one by tag, and by class if one is given."""
        found = []
        for child in self.inside:
            classes = child.attributes.get("class", "").split()
            if child.tag == tag and (mark is None or mark in classes):
                found.append(child)
            found += child.all(tag, mark)
        return found


class Page(HTMLParser):
    """Reads a page as a browser would, and holds it to be well-formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = [self.root]
        self.feed(text)
        self.close()
        assert [element.tag for element in self._open] == [""], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {key: value or "" for key, value in attrs})
        self._open[-1].inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


def row(image_id: str = "ab" * 32, file: str = "shoe.jpg", **groups: Cell) -> Row:
    return Row(image_id, file, "file:///inbox/shoe.jpg", datetime(2026, 1, 2, tzinfo=UTC), groups)


def cell(*tags: str, stale: bool = False, corrected: bool = False) -> Cell:
    return Cell(tags, dict.fromkeys(tags, 0.934), "3", stale, corrected)


def page_of(*rows: Row, **changes: object) -> Page:
    arguments = {"gone": set(), "number": 1, "pages": 1, "page_size": 200, "pictures": len(rows)}
    arguments["titles"] = {}
    text = pages.day_page("2026-01-02", rows, groups=GROUPS, **(arguments | changes))
    return Page(text)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b"/inbox/a b.jpg", "a b.jpg"),
        (b"/inbox/sub/a.jpg", "sub/a.jpg"),
        (b"/elsewhere/sub/a.jpg", "a.jpg"),
        (b"/inboxed/a.jpg", "a.jpg"),
        ("/inbox/grå 100%#?.jpg".encode(), "grå 100%#?.jpg"),
        (b"/inbox/caf\xe9.jpg", "caf\\xe9.jpg"),
        (b"/inbox/line\nbreak.jpg", "line\\nbreak.jpg"),
        ("/inbox/\u202egpj.exe".encode(), "\\u202egpj.exe"),
        ("/inbox/👩‍🔧.jpg".encode(), "👩‍🔧.jpg"),
        (b"/inbox//jpg", "/jpg"),
    ],
)
def test_a_name_is_shown_below_the_inbox_as_one_line_of_valid_text(path: bytes, shown: str) -> None:
    name = shown_name("file://" + quote_from_bytes(path), Path("/inbox"))
    assert name == shown
    assert name.encode("utf-8").decode("utf-8") == name


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "＝"])
def test_csv_cells_cannot_act_as_formulas(start: str) -> None:
    line = csv_line([f"{start}1+1", "plain", 'a,"b"'])
    assert next(csv.reader([line.decode()])) == [f"'{start}1+1", "plain", 'a,"b"']


def test_tags_are_the_caption_grouped_and_hinted() -> None:
    page = page_of(row(color=cell("black", "red"), style=cell("boot")))
    figure = page.root.all("figure")[0]
    shown = [(t.text, t.attributes["class"]) for t in figure.all("ul", "tags")[0].all("li")]
    assert shown == [("black", "g0"), ("red", "g0"), ("boot", "g1")]
    assert figure.all("li")[0].attributes["title"] == "color · score 0.93 · version 3"
    image = figure.all("img")[0]
    assert image.attributes["alt"] == "Picture tagged black, red, boot"
    assert image.attributes["src"] == f"../thumbs/ab/{'ab' * 32}.jpg"
    assert figure.all("span", "file")[0].text == "shoe.jpg"


def test_titles_are_shown_in_place_of_tags_and_groups() -> None:
    titles = {"boot": "Boots & more", "style": "Kind of shoe"}
    page = page_of(row(color=cell("red"), style=cell("boot")), row(), titles=titles)
    first, second = page.root.all("figure")
    assert [li.text for li in first.all("li")] == ["red", "Boots & more"]
    assert first.all("li")[1].attributes["title"].startswith("Kind of shoe · score")
    assert first.all("img")[0].attributes["alt"] == "Picture tagged red, Boots & more"
    assert [li.text for li in second.all("li")] == ["color?", "Kind of shoe?"]
    assert [legend.text for legend in page.root.all("legend")] == ["color", "Kind of shoe"]


def test_stale_corrected_and_missing_groups_are_marked() -> None:
    page = page_of(
        row(color=cell("black", stale=True), style=cell("boot", corrected=True)),
        row(color=cell("red")),
    )
    first, second = page.root.all("figure")
    assert [li.text for li in first.all("li", "stale")] == ["black"]
    assert "earlier version" in first.all("li", "stale")[0].attributes["title"]
    assert [li.text for li in first.all("li", "hand")] == ["boot"]
    assert [li.text for li in second.all("li", "wait")] == ["style?"]
    assert "1 picture here" in page.root.all("p", "sum")[0].text


def test_a_picture_that_is_gone_keeps_its_place_and_tags() -> None:
    page = page_of(row(color=cell("black")), gone={"ab" * 32})
    assert not page.root.all("img")
    assert page.root.all("div", "gone")[0].attributes["aria-label"].startswith("Picture tagged")
    assert page.root.all("li", "g0")[0].text == "black"


@pytest.mark.parametrize("name", [*STRANGE, "x" * 255, "<!-- ", "</ul></main>", "&lt;b&gt;", "]]>"])
def test_every_name_and_tag_is_text_on_the_page(name: str) -> None:
    strange = {"color": Group((name, "red")), "style": Group(("boot",))}
    rows = [row(file=name, color=cell(name), style=cell("boot"))]
    plain = pages.day_page(
        "2026-01-02", rows, groups=strange, titles={"boot": name}, gone=set(), number=1, pages=1,
        page_size=9, pictures=1,
    )  # fmt: skip
    page = Page(plain)
    written = name.replace("\r", "\n")  # as a parser of HTML reads it
    assert not page.root.all("script")
    assert len(page.root.all("img")) == 1
    assert page.root.all("span", "file")[0].text.replace("\r", "\n") == written
    shown = [li.text.replace("\r", "\n") for li in page.root.all("ul", "tags")[0].all("li")]
    assert shown == [written, written]  # a tag, and a title
    refused = Page(pages.rejected_page([pages.Refusal(name, name, datetime.now(UTC))], 1))
    assert [td.text.replace("\r", "\n") for td in refused.root.all("td")[:2]] == [written] * 2


def test_the_filter_has_a_box_for_every_tag_on_the_page_and_a_rule_for_each() -> None:
    page = page_of(row(color=cell("red"), style=cell("boot")), row(color=cell("red")))
    boxes = [box.attributes["id"] for box in page.root.all("input")]
    labels = [" ".join(label.text.split()) for label in page.root.all("label")]
    assert list(zip(boxes, labels, strict=True)) == [("t1", "red 2"), ("t2", "boot 1")]
    marked = [li.attributes["class"] for li in page.root.all("ul", "pictures")[0].inside]
    assert marked == ["t1 t2", "t1"]
    sheet = pages.style(GROUPS)
    assert all(f"main:has(#t{i}:checked) .pictures > :not(.t{i})" in sheet for i in range(4))


def test_a_bounded_day_says_what_its_pages_leave_out() -> None:
    page = page_of(row(color=cell("red")), number=1, pages=2, page_size=1, pictures=9)
    assert "first 2 of 9 pictures" in page.root.all("p", "note")[0].text
    assert not page_of(row(color=cell("red"))).root.all("p", "note")


def test_the_pager_links_neighbours_and_ends() -> None:
    page = page_of(row(), number=20, pages=500, page_size=1, pictures=500)
    links = [a.attributes["href"] for a in page.root.all("nav", "pager")[0].all("a")]
    assert links[:2] == ["019.html", "001.html"]
    assert links[-2:] == ["500.html", "021.html"]
    assert len(links) < 12


@pytest.fixture
def works(tmp_path: Path) -> Iterator[Works]:
    ours = works_with(Settings.from_environment({"SHOETAGGER_HOME": str(tmp_path / "home")}))
    yield ours
    ours.store.close()


def read_page(works: Works, *parts: str) -> Page:
    return Page(works.settings.published.joinpath("pages", *parts).read_text("utf-8"))


def test_an_arrival_day_becomes_a_table_for_analysis_and_one_for_spreadsheets(works: Works) -> None:
    works.arrive("b.png", "sub/a.png")
    works.tag()
    counts = works.publish()
    assert counts["days"] == counts["pages"] == 1
    assert counts["pictures"] == 2

    table = pq.read_table(works.settings.published / "parquet")
    columns = table.to_pydict()
    assert sorted(columns["file"]) == ["b.png", "sub/a.png"]
    assert columns["color_tags"] == [["black", "red"]] * 2
    assert columns["score_black"] == [0.75, 0.75]
    assert columns["score_flat"] == [0.25, 0.25]
    assert columns["style_version"] == ["1", "1"]
    assert columns["color_stale"] == columns["color_corrected"] == [False, False]
    assert table.schema.field("first_seen").type == pa.timestamp("us", tz="UTC")
    assert all(locator.startswith("file:///") for locator in columns["locator"])

    with (works.settings.published / "csv" / f"{DAY}.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["color"] for line in lines] == ["black, red"] * 2
    assert {line["file"] for line in lines} == {"b.png", "sub/a.png"}
    assert lines[0]["first_seen"] == "2026-01-02T02:00:00Z"
    assert lines[0]["image_id"] in columns["image_id"]


def test_what_is_not_a_shoe_says_so_in_place_of_tags(works: Works) -> None:
    works.arrive("face.png")
    works.tag()
    (picture,) = works.store.current.rows([])
    works.store.corrections.judge(picture.image_id, False, by="me", why="x", now=NOW)
    works.publish()
    (table,) = works.settings.published.glob("parquet/*/tags.parquet")
    (record,) = pq.read_table(table).to_pylist()
    columns = ("verdict", "color_tags", "color_corrected")
    assert [record[name] for name in columns] == ["not a shoe", [], True]
    (sheet,) = works.settings.published.glob("csv/*.csv")
    (line,) = csv.DictReader(sheet.open(newline=""))
    assert (line["verdict"], line["color"], line["style"]) == ("not a shoe", "", "")
    (figure,) = read_page(works, picture.day, "001.html").root.all("figure")
    assert [item.text for item in figure.all("li")] == ["not a shoe"]
    assert figure.all("img")[0].attributes["alt"] == "Picture judged as not a shoe"


def test_a_picture_far_from_all_labelled_ones_is_marked_unsure(works: Works) -> None:
    works.arrive("far.png")
    works.tag()
    (picture,) = works.store.current.rows([])
    works.promote("color", "2")
    digest = works.store.ledger.live()["color"]
    far = Prediction(picture.image_id, digest, (0.75, 0.25), ("black",), unsure=True)
    works.store.predictions.record(predictions=[far], run_id="r", now=NOW)
    works.publish()
    (table,) = works.settings.published.glob("parquet/*/tags.parquet")
    (record,) = pq.read_table(table).to_pylist()
    assert (record["color_unsure"], record["style_unsure"]) == (True, False)
    (sheet,) = works.settings.published.glob("csv/*.csv")
    (line,) = csv.DictReader(sheet.open(newline=""))
    assert line["unsure"] == "color"
    items = read_page(works, picture.day, "001.html").root.all("figure")[0].all("li")
    assert [item.text for item in items] == ["unsure", "black", "boot"]


def test_a_group_none_of_whose_tags_fits_says_so(works: Works) -> None:
    works.arrive("plain.png")
    works.tag()
    (picture,) = works.store.current.rows([])
    works.store.corrections.correct(picture.image_id, "style", [], by="me", why="x", now=NOW)
    works.publish()
    (sheet,) = works.settings.published.glob("csv/*.csv")
    (line,) = csv.DictReader(sheet.open(newline=""))
    assert (line["color"], line["style"], line["none"]) == ("black, red", "", "style")
    items = read_page(works, picture.day, "001.html").root.all("figure")[0].all("li")
    assert [item.text for item in items] == ["black", "red", "style: none"]


def test_strange_names_survive_to_the_last_page(works: Works) -> None:
    bytes_only = b"latin\xe91.png"
    works.arrive(*STRANGE, bytes_only)
    works.arrive("<b>.txt", "=cmd.txt")
    works.tag(thumbnails=False)
    counts = works.publish()
    assert (counts["thumbnails"], counts["without_thumbnail"]) == (len(STRANGE) + 1, 0)
    assert counts["rejected"] == 2

    page = read_page(works, DAY, "001.html")
    inbox = works.settings.inbox
    shown = {
        shown_name("file://" + quote_from_bytes(os.fsencode(inbox / os.fsdecode(n))), inbox)
        for n in [*STRANGE, bytes_only]
    }
    assert {name.text for name in page.root.all("span", "file")} == shown
    assert "latin\\xe91.png" in shown
    assert not page.root.all("script")
    rejected = read_page(works, "rejected.html")
    assert {td.text for td in rejected.root.all("td", "file")} == {"<b>.txt", "=cmd.txt"}
    with (works.settings.published / "csv" / f"{DAY}.csv").open(newline="") as file:
        named = {line["file"] for line in csv.DictReader(file)}
    assert named == {f"'{n}" if n.startswith("=") else n for n in shown}
    assert "'=cmd.txt" in (works.settings.published / "rejected.csv").read_text()


def test_every_link_of_every_page_leads_to_a_file_wherever_the_folder_lies(
    works: Works, tmp_path: Path
) -> None:
    works.arrive(*(f"{i}.png" for i in range(5)), "x.txt")
    works.tag()
    works.publish(page_size=2)
    moved = tmp_path / "a #copied? 100% folder"
    works.settings.published.rename(moved)
    followed = 0
    for file in moved.rglob("*.html"):
        page = Page(file.read_text("utf-8"))
        links = [e.attributes["href"] for e in (*page.root.all("a"), *page.root.all("link"))]
        for link in [*links, *(image.attributes["src"] for image in page.root.all("img"))]:
            assert not urlsplit(link).scheme
            assert str(tmp_path) not in link
            if not link.startswith("#"):
                assert (file.parent / unquote(urlsplit(link).path)).is_file(), link
                followed += 1
        assert str(works.settings.inbox) not in file.read_text("utf-8")
    assert followed > 20


@pytest.mark.slow
def test_only_what_changed_is_rewritten(works: Works) -> None:
    works.arrive("old.png")
    works.tag()
    works.publish()
    before = works.files()
    assert works.publish()["days"] == 0

    later = NOW + timedelta(days=1)
    works.arrive("new.png", shade=200)
    works.tag(now=later)
    counts = works.publish()
    assert (counts["days"], counts["pictures"], counts["thumbnails"]) == (1, 1, 0)
    after = works.files()
    kept = {name for name in before if DAY in name or "thumbs" in name}
    assert len(kept) == 4
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    days = [a.text for a in read_page(works, "index.html").root.all("a", "day")]
    assert days == ["2026-01-03", DAY]


@pytest.mark.slow
def test_a_promotion_marks_the_old_tags_stale_until_they_are_made_again(works: Works) -> None:
    works.arrive("a.png")
    works.tag(thumbnails=False)
    assert works.publish()["thumbnails"] == 1
    thumbnails = {name: at for name, at in works.files().items() if "thumbs" in name}
    works.promote("color", "2")
    assert works.publish()["thumbnails"] == 0
    assert thumbnails.items() <= works.files().items()
    page = read_page(works, DAY, "001.html")
    assert [li.text for li in page.root.all("li", "stale")] == ["black", "red"]
    frame = pq.read_table(works.settings.published / "parquet").to_pandas()
    assert (frame.color_stale[0], frame.color_version[0], frame.style_stale[0]) == (
        True,
        "1",
        False,
    )
    index = read_page(works, "index.html")
    assert [" ".join(p.text.split()) for p in index.root.all("p", "live")] == [
        "live: version 2 since 2026-01-02",
        "live: version 1 since 2026-01-02",
    ]


def test_pages_hold_so_many_pictures_and_a_smaller_day_loses_its_last_pages(works: Works) -> None:
    works.arrive(*(f"{i}.png" for i in range(5)))
    works.tag()
    assert works.publish(page_size=2)["pages"] == 3
    assert len(read_page(works, DAY, "003.html").root.all("figure")) == 1
    assert works.publish(page_size=3)["pages"] == 2
    folder = works.settings.published / "pages" / DAY
    assert sorted(p.name for p in folder.iterdir()) == ["001.html", "002.html"]
    assert works.publish(page_size=1, max_pages=2)["pages"] == 2
    assert (
        "first 2 of 5 pictures" in read_page(works, DAY, "001.html").root.all("p", "note")[0].text
    )
    assert pq.read_table(works.settings.published / "parquet").num_rows == 5


@pytest.mark.slow
def test_the_tags_per_article_are_published_over_all_days_where_names_tell(works: Works) -> None:
    works.arrive("7_1.png", "8_1.png", "other.png")
    works.tag()
    works.publish()
    tables = [works.settings.published / f"articles.{fmt}" for fmt in ("csv", "parquet")]
    assert not any(table.exists() for table in tables)
    named = replace(works.params, articles=Articles(r"(?P<article>\d+)_\d+\.png$"))
    works.publish_with(named)
    works.arrive("7_2.png", shade=9)
    works.tag(now=NOW + timedelta(days=1))
    works.publish_with(named)

    def rows() -> list[dict[str, str]]:
        with tables[0].open(newline="") as file:
            return list(csv.DictReader(file))

    seven, eight = rows()
    assert (seven["article"], seven["pictures"], seven["color"]) == ("7", "2", "black, red")
    assert (eight["article"], eight["pictures"]) == ("8", "1")
    (first, *_) = (
        row for row in works.store.current.rows(list(GROUPS)) if "8_1" in row.locators[0]
    )
    works.store.corrections.correct(first.image_id, "color", [], by="ann", why="", now=NOW)
    works.publish_with(named)
    assert (rows()[1]["color"], rows()[1]["corrected"]) == ("", "color")
    known = pq.read_table(tables[1]).to_pylist()
    assert [(row["article"], row["style_tags"]) for row in known] == [
        ("7", ["boot"]),
        ("8", ["boot"]),
    ]
    # Nothing changed: nothing is written again, but what was lost.
    before = works.files()["articles.csv"]
    works.publish_with(named)
    assert works.files()["articles.csv"] == before
    tables[1].unlink()
    works.publish_with(named)
    assert tables[1].exists()
    works.publish()
    assert not any(table.exists() for table in tables)


@pytest.mark.slow
def test_a_table_with_damaged_rows_is_written_again_where_articles_are_read_from_it(
    works: Works, caplog: pytest.LogCaptureFixture
) -> None:
    named = replace(works.params, articles=Articles(r"(?P<article>\d+)_\d+\.png$"))
    works.arrive("7_1.png", "8_1.png")
    works.tag()
    works.publish_with(named)
    take_unannounced(works.store, works.settings.published)
    table = works.settings.published / "parquet" / f"day={DAY}" / "tags.parquet"
    whole = table.read_bytes()
    footer = int.from_bytes(whole[-8:-4], "little") + 8
    table.write_bytes(whole[:4] + bytes(len(whole) - footer - 4) + whole[-footer:])
    works.arrive("7_2.png", shade=9)
    works.tag(now=NOW + timedelta(days=1))
    assert works.publish_with(named)["days"] == 2
    assert table.read_bytes() == whole
    assert f"the tables of {DAY} are missing or damaged" in caplog.text
    announced = take_unannounced(works.store, works.settings.published)
    assert announced == ["2026-01-03", DAY]
    articles = pq.read_table(works.settings.published / "articles.parquet").to_pylist()
    assert [(row["article"], row["pictures"]) for row in articles] == [("7", 2), ("8", 1)]


def test_the_thumbnail_of_a_replaced_picture_goes(works: Works) -> None:
    works.arrive("a.png", "b.png")
    thumbnails = [
        works.settings.published
        / thumbnail_name(decode.image_id((works.settings.inbox / name).read_bytes()))
        for name in ("a.png", "b.png")
    ]
    works.tag()
    works.publish()
    assert [thumbnail.exists() for thumbnail in thumbnails] == [True, True]
    works.arrive("a.png", shade=7)
    works.tag(now=NOW + timedelta(days=1))
    works.publish()
    assert [thumbnail.exists() for thumbnail in thumbnails] == [False, True]


@pytest.mark.slow
def test_only_the_latest_days_have_pages_and_older_ones_keep_their_tables(works: Works) -> None:
    days = [NOW + timedelta(days=n) for n in range(3)]
    pictures = {}
    for n, day in enumerate(days):
        works.arrive(f"{n}.png", shade=n)
        works.tag(now=day)
        data = (works.settings.inbox / f"{n}.png").read_bytes()
        pictures[n] = works.settings.published / thumbnail_name(decode.image_id(data))
        wanted = replace(works.params, keep=replace(works.params.keep, page_days=2))
        works.publish_with(wanted)
    pages_of = {p.parent.name for p in works.settings.published.glob("pages/2*/*.html")}
    assert pages_of == {day.date().isoformat() for day in days[1:]}
    assert [pictures[n].exists() for n in range(3)] == [False, True, True]
    assert pq.read_table(works.settings.published / "parquet").num_rows == 3
    assert len(list(works.settings.published.glob("csv/*.csv"))) == 3
    linked = {a.attributes["href"] for a in read_page(works, "index.html").root.all("a", "day")}
    assert linked == {f"{day}/001.html" for day in pages_of}
    works.publish_with(works.params)  # more days asked for: they are made again
    assert read_page(works, DAY, "001.html").root.all("figure")


def arrive_daily(works: Works, days: int) -> None:
    """Tag a picture of its own on each of some days."""
    for n in range(days):
        works.arrive(f"{n}.png", shade=n)
        works.tag(now=NOW + timedelta(days=n))


@pytest.mark.slow
def test_days_that_lose_their_pages_as_fewer_are_asked_for_lose_their_thumbnails_too(
    works: Works,
) -> None:
    arrive_daily(works, 3)
    works.publish()
    thumbs = works.settings.published / "pages" / "thumbs"
    assert len(list(thumbs.rglob("*.jpg"))) == 3
    works.publish_with(replace(works.params, keep=replace(works.params.keep, page_days=1)))
    last = decode.image_id((works.settings.inbox / "2.png").read_bytes())
    assert [thumb.stem for thumb in thumbs.rglob("*.jpg")] == [last]
    assert len(list(works.settings.published.glob("pages/2*/*.html"))) == 1


@pytest.mark.slow
def test_the_latest_days_with_pictures_have_pages_whichever_days_come_and_go(works: Works) -> None:
    wanted = replace(works.params, keep=replace(works.params.keep, page_days=2))

    def paged() -> list[int]:
        works.publish_with(wanted)
        days = [(NOW + timedelta(days=n)).date().isoformat() for n in range(4)]
        links = read_page(works, "index.html").root.all("a", "day")
        linked = {link.attributes["href"] for link in links}
        there = works.settings.published / "pages"
        assert linked == {str(page.relative_to(there)) for page in there.glob("2*/001.html")}
        return [n for n, day in enumerate(days) if f"{day}/001.html" in linked]

    for n, name in enumerate(("0.png", "1.png", "2.png", "nothing but rejected.txt")):
        works.arrive(name, shade=n)
        works.tag(now=NOW + timedelta(days=n))
        days = paged()
    assert days == [1, 2]
    works.store.files.forget(decode.image_id((works.settings.inbox / "2.png").read_bytes()), NOW)
    assert paged() == [0, 1]


def test_a_day_without_pictures_any_more_vanishes(works: Works) -> None:
    works.arrive("a.png")
    works.tag()
    works.publish()
    works.arrive("a.png", shade=7)  # the same name, other bytes: another picture, another day
    works.tag(now=NOW + timedelta(days=1))
    works.publish()
    assert not [name for name in works.files() if DAY in name]
    assert read_page(works, "index.html").root.all("b")[0].text == "1"


@pytest.mark.slow
def test_a_picture_that_is_gone_or_replaced_gets_a_placeholder(works: Works) -> None:
    works.arrive("gone.png", "replaced.png", "copied.png")
    (works.settings.inbox / "z copy.png").write_bytes(
        (works.settings.inbox / "copied.png").read_bytes()
    )
    works.tag(thumbnails=False)
    (works.settings.inbox / "gone.png").unlink()
    (works.settings.inbox / "copied.png").unlink()
    Image.new("RGB", (9, 9)).save(works.settings.inbox / "replaced.png")
    counts = works.publish()
    assert (counts["thumbnails"], counts["without_thumbnail"]) == (1, 2)
    page = read_page(works, DAY, "001.html")
    assert len(page.root.all("div", "gone")) == 2
    assert len(page.root.all("img")) == 1


def test_a_thumbnail_is_small_and_shows_the_whole_picture(works: Works) -> None:
    picture = Image.new("RGB", (600, 300), "red")
    picture.paste("blue", (0, 150, 600, 300))
    for x in range(0, 600, 60):
        picture.paste("black", (x, 0, x + 30, 10))
    picture.save(works.settings.inbox / "wide.png")
    works.tag(thumbnails=False)
    works.publish(thumbnail=100)
    (path,) = (works.settings.published / "pages" / "thumbs").rglob("*.jpg")
    with Image.open(path) as thumbnail:
        assert thumbnail.size == (100, 100)
        above, *inside, below = (thumbnail.getpixel((50, y)) for y in (5, 40, 60, 95))
    assert inside[0][0] > 200 > 60 > inside[0][2]
    assert inside[1][2] > 200 > 60 > inside[1][0]
    assert min(above) > 240, "an uneven edge is framed in white"
    assert below[2] > 200 > 60 > below[0], "an even one is continued"


def test_a_folder_that_cannot_be_written_costs_a_shard_its_thumbnails_alone(
    works: Works, caplog: pytest.LogCaptureFixture
) -> None:
    works.arrive("a.png")
    works.settings.published.mkdir(parents=True)
    (works.settings.published / "pages").write_text("in the way, as nothing else stops root")
    kept = thumbnails.of_shard(works.settings.published, works.params.publish)
    for number in range(3):
        kept.take(f"{number:064}", np.full((8, 8, 3), 200, np.uint8), b"preview", (8, 8))
    assert caplog.text.count("no more thumbnails from this shard: ") == 1
    assert str(works.settings.published / "pages") in caplog.text
    works.tag(thumbnails=False)
    with pytest.raises(PublishError, match=f"cannot publish into {works.settings.published}: "):
        works.publish()


def test_a_folder_that_was_deleted_is_made_again(works: Works) -> None:
    works.arrive("a.png", "b.txt")
    works.tag()
    works.publish()
    before = set(works.files())
    works.settings.published.rename(works.settings.home / "lost")
    assert works.publish()["thumbnails"] == 1
    assert set(works.files()) == before


@pytest.mark.slow
def test_lost_and_damaged_tables_of_old_days_are_written_again_and_stop_nothing(
    works: Works,
) -> None:
    arrive_daily(works, 6)
    works.publish()
    whole = {name for name in works.files() if "parquet" in name or "csv" in name}
    published = works.settings.published
    parquets = sorted(published.glob("parquet/day=*/tags.parquet"))
    sheets = sorted(published.glob("csv/*.csv"))
    data = parquets[0].read_bytes()
    parquets[0].write_bytes(data[: len(data) // 2])
    parquets[1].write_bytes(b"")
    parquets[2].unlink()
    shutil.rmtree(parquets[3].parent)
    sheets[4].write_bytes(sheets[4].read_bytes()[:-9])
    assert works.publish()["days"] == 5
    assert {name for name in works.files() if "parquet" in name or "csv" in name} == whole
    assert pq.read_table(published / "parquet").num_rows == 6
    assert works.publish()["days"] == 0
    assert parquets[0].read_bytes() == data
    # A day whose pictures were all erased has no tables, and none is missed.
    works.store.files.forget(decode.image_id((works.settings.inbox / "3.png").read_bytes()), NOW)
    assert works.publish()["days"] == 1
    assert works.publish()["days"] == 0


def test_what_is_published_is_on_the_disk_before_it_is_in_its_place(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    fsync, replaced = os.fsync, Path.replace

    def flush(descriptor: int) -> None:
        fsync(descriptor)
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115

    def replace_flushed(path: Path, place: Path) -> Path:
        if path.suffix != ".tmp":  # a thumbnail, which can be made again
            assert flushed.count(str(path)) == 1, path
        return replaced(path, place)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(Path, "replace", replace_flushed)
    works.arrive("a.png")
    works.tag()
    works.publish()
    for folder in ("csv", f"parquet/day={DAY}", f"pages/{DAY}"):
        assert str(works.settings.published / folder) in flushed


def test_an_empty_store_has_pages_that_say_what_to_do(works: Works) -> None:
    counts = works.publish()
    assert counts["days"] == 0
    assert "inbox" in read_page(works, "index.html").root.all("p", "note")[0].text
    assert "None" in read_page(works, "rejected.html").root.all("p", "note")[0].text


def test_a_day_counts_as_published_only_when_its_files_are_in_place(works: Works) -> None:
    works.arrive("a.png")
    works.tag()
    works.publish()
    before = works.files()
    works.promote("color", "2")
    blocked = works.settings.published / "pages" / DAY / "001.html"
    kept = blocked.read_bytes()
    blocked.unlink()
    (blocked / "in the way").mkdir(parents=True)
    with pytest.raises(PublishError, match="cannot publish into"):
        works.publish()
    assert [day for day, _ in works.store.days.changed()] == [DAY]
    table = f"parquet/day={DAY}/tags.parquet"
    assert works.files()[table] == before[table]
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    assert works.publish()["days"] == 1
    assert blocked.read_bytes() != kept
    assert not works.store.days.changed()


def test_what_a_killed_publisher_left_is_not_published(works: Works) -> None:
    left = works.settings.published / ".staging" / "pages" / DAY / "009.html"
    left.parent.mkdir(parents=True)
    left.write_text("half a pa")
    works.arrive("a.png")
    works.tag()
    works.publish()
    assert not left.exists()
    assert not [name for name in works.files() if name.endswith("009.html")]


def test_a_day_whose_files_were_swept_away_before_they_are_in_place_stays_unpublished(
    works: Works,
) -> None:
    works.arrive("a.png")
    works.tag()
    settings = works.settings

    def sweep(*_: object) -> None:  # as a publisher does in the end that has lost its turn
        for table in (settings.published / ".staging").rglob("*.parquet"):
            table.unlink()

    with pytest.raises(PublishError, match="cannot publish into"):
        publish_changes(
            works.store, works.params, published=settings.published, inbox=settings.inbox,
            progress=sweep,
        )  # fmt: skip
    assert [day for day, _ in works.store.days.changed()] == [DAY]
    assert works.publish()["days"] == 1


def test_a_half_written_thumbnail_is_swept_when_nobody_can_be_writing_it(works: Works) -> None:
    works.arrive("a.png")
    works.tag()
    works.publish()
    unfinished = works.settings.published / ".unfinished"
    left, being_written = unfinished / ".left.tmp", unfinished / ".now.tmp"
    for path in (left, being_written):
        path.write_bytes(b"half a JP")
    os.utime(left, (1e9, 1e9))
    works.publish()
    assert list(unfinished.iterdir()) == [being_written]


@pytest.mark.slow
def test_the_days_of_a_publication_are_announced_once_also_where_it_was_cut_off(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = works.settings.published
    works.arrive("a.png")
    works.tag(now=NOW)
    works.publish()
    assert take_unannounced(works.store, published) == ["2026-01-02"]
    assert take_unannounced(works.store, published) == []
    works.publish()
    assert take_unannounced(works.store, published) == []

    works.arrive("b.png", shade=1)
    works.tag(now=NOW + timedelta(days=1))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(works.store.days, "mark_published", killed)
        with pytest.raises(KeyboardInterrupt):
            works.publish()
    works.publish()
    works.promote("color", "2")
    works.publish()
    assert take_unannounced(works.store, published) == ["2026-01-03", "2026-01-02"]


def test_two_publishers_at_once_do_the_work_once(works: Works) -> None:
    works.arrive(*(f"{i}.png" for i in range(4)))
    works.tag()
    done: list[dict[str, int]] = []
    threads = [threading.Thread(target=lambda: done.append(works.publish())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts["days"] for counts in done) == [0, 0, 1]
    assert not list(works.settings.published.glob(".staging*"))


@pytest.mark.parametrize("fmt", ["csv", "jsonl", "parquet"])
def test_an_export_holds_every_picture_in_each_format(
    works: Works, tmp_path: Path, fmt: str
) -> None:
    works.arrive("a b.png", "=b.png")
    works.tag()
    out = tmp_path / f"all.{fmt}"
    inbox = works.settings.inbox
    assert export(works.store, GROUPS, fmt, out, inbox=inbox) == 2
    stream = io.BytesIO()
    assert export(works.store, GROUPS, fmt, stream, inbox=inbox) == 2
    assert stream.getvalue() == out.read_bytes()
    if fmt == "parquet":
        assert sorted(pq.read_table(out)["file"].to_pylist()) == ["=b.png", "a b.png"]
    elif fmt == "csv":
        names = [line["file"] for line in csv.DictReader(out.open(newline=""))]
        assert sorted(names) == ["'=b.png", "a b.png"]
        assert not any(name.startswith("score") for name in stream.getvalue().decode().split(","))
        export(works.store, GROUPS, fmt, out, inbox=inbox, scores=True)
        line = next(csv.DictReader(out.open(newline="")))
        scores = {name: line[f"score_{name}"] for name in ("black", "red", "boot", "flat")}
        assert {name: float(cell) for name, cell in scores.items()} == {
            "black": 0.75, "red": 0.75, "boot": 0.75, "flat": 0.25,
        }  # fmt: skip
    else:
        lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert {line["file"] for line in lines} == {"a b.png", "=b.png"}
        assert lines[0]["tags"] == {"color": ["black", "red"], "style": ["boot"]}
        assert lines[0]["scores"] == {"black": 0.75, "red": 0.75, "boot": 0.75, "flat": 0.25}
        assert lines[0]["versions"] == {"color": "1", "style": "1"}


def test_an_export_that_cannot_be_written_says_so_and_leaves_nothing(
    works: Works, tmp_path: Path
) -> None:
    inbox = works.settings.inbox
    with pytest.raises(PublishError, match="no format 'xls': the formats are parquet, csv, jsonl"):
        export(works.store, GROUPS, "xls", tmp_path / "x", inbox=inbox)
    with pytest.raises(PublishError, match=r"cannot write .*nowhere"):
        export(works.store, GROUPS, "csv", tmp_path / "nowhere" / "x.csv", inbox=inbox)
    with pytest.raises(PublishError, match="No space left"):
        export(works.store, GROUPS, "csv", Path("/dev/full"), inbox=inbox)
