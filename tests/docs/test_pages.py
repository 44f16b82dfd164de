"""The documents are short, answer a question each, and hang together."""

from __future__ import annotations

import posixpath
import re

import pytest
from helpers.documents import ROOT, Document, document, documents

# Written by `make bench`.
GENERATED = {"docs/BENCHMARKS.md"}


def test_the_readme_is_short() -> None:
    assert len(document("README.md").text.splitlines()) <= 180


@pytest.mark.parametrize(
    "page", [p for p in documents() if p.name != "README.md"], ids=lambda page: str(page.name)
)
def test_every_page_begins_with_the_question_it_answers(page: Document) -> None:
    if page.name not in GENERATED:
        assert re.match(r"# [^\n]+\n\n\*\*[^*]+\?\*\*", page.text)


def test_the_picture_of_the_result_is_there_and_small() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", document("README.md").text)
    assert 10_000 < (ROOT / picture).stat().st_size < 200_000


def test_links_lead_somewhere() -> None:
    pages = {page.name: page for page in documents()}
    for page in pages.values():
        for link in page.links:
            if link.startswith("https://"):
                continue
            path, _, anchor = link.partition("#")
            target = target_of(page, path) if path else page.name
            assert (ROOT / target).exists(), f"{page.name}: {link}"
            if anchor:
                assert anchor in pages[target].anchors, f"{page.name}: {link}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    pages = {page.name: page for page in documents()}
    reached, waiting = set(), ["README.md"]
    while waiting:
        name = waiting.pop()
        if name in pages and name not in reached:
            reached.add(name)
            waiting += [target_of(pages[name], link.split("#")[0]) for link in pages[name].links]
    assert reached == set(pages)


def target_of(page: Document, path: str) -> str:
    """Return the path from the root that a link of a page leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page.name), path))
