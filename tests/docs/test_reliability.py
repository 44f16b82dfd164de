"""The page of promises names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "RELIABILITY.md").read_text(encoding="utf-8")


def rows() -> list[tuple[str, str]]:
    """Return promise and tests of every row of the page's tables."""
    cells = [re.findall(r"[^|]+", line) for line in PAGE.splitlines() if line.startswith("| ")]
    return [(a.strip(), b.strip()) for a, b in cells if a.strip() not in ("promise", "---")]


def functions_of(file: str) -> set[str]:
    path = ROOT / file
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_promise_names_tests_that_there_are() -> None:
    assert len(rows()) >= 30
    for promise, named in rows():
        tests = re.findall(r"`([\w/.]+)::(\w+)`", named)
        assert tests, promise
        assert re.sub(r"`[^`]+`|[, ]", "", named) == "", promise
        for file, test in tests:
            assert test in functions_of(file), f"{promise}: there is no {file}::{test}"
