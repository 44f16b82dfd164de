"""The documents are short, answer a question each, and hang together."""

from __future__ import annotations

import ast
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


@pytest.mark.parametrize("name", ["README.md", "docs/DESK.md"])
def test_pictures_are_there_and_small(name: str) -> None:
    page = document(name)
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.text)
    assert pictures
    for picture in pictures:
        assert 10_000 < (ROOT / target_of(page, picture)).stat().st_size < 200_000


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


def test_the_ways_through_the_code_name_what_there_is() -> None:
    text = document("docs/ARCHITECTURE.md").text
    hops = re.findall(r"`((?:\w+/)+\w+)\.([\w.]+)`", text)
    hops = [(module, name) for module, name in hops if name not in ("csv", "json", "safetensors")]
    assert len(hops) > 40
    for module, name in hops:
        path = ROOT / "src" / "shoetagger" / f"{module}.py"
        scope: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
        for part in name.split("."):
            found = definitions(scope)
            assert part in found, f"{module}: {name}"
            scope = found[part]


def definitions(scope: ast.AST) -> dict[str, ast.AST]:
    """Return what a module or class defines, by name."""
    found: dict[str, ast.AST] = {}
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign):
            found |= {t.id: node for t in node.targets if isinstance(t, ast.Name)}
    return found
