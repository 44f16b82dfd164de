"""Every test that docs/RELIABILITY.md names for a promise is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_promise_names_tests_that_exist() -> None:
    document = (ROOT / "docs" / "RELIABILITY.md").read_text()
    rows = [line for line in document.splitlines() if re.match(r"\| (?!promise|---)", line)]
    assert len(rows) > 30
    there = {
        f"{path.name}::{node.name}"
        for path in (ROOT / "tests").glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
    }
    named = {row: re.findall(r"`(test_\w+\.py::\w+)`", row) for row in rows}
    assert [row for row, tests in named.items() if not tests] == []
    assert {name for tests in named.values() for name in tests} - there == set()
