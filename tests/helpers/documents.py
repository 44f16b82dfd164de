"""The documents of the project: the README and the pages in docs/, with their blocks and tables."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block of commands; `kind` is "fast", "slow" or "not tested"."""

    place: str  # page and line, for messages
    line: int
    kind: str
    reason: str
    commands: str


@dataclass(frozen=True)
class Document:
    """A Markdown file; `name` is its path from the root of the repo."""

    name: str
    text: str

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks of commands, with what the HTML comment before each says."""
        found = []
        pattern = re.compile(
            r"(?:^<!-- (?P<kind>slow|not tested)(?:: (?P<reason>[^>]*))? -->\n)?"
            r"^```sh\n(?P<commands>.*?)^```$",
            re.MULTILINE | re.DOTALL,
        )
        for match in pattern.finditer(self.text):
            line = self.text.count("\n", 0, match.start("commands")) + 1
            kind, reason = match["kind"] or "fast", match["reason"] or ""
            place = f"{self.name} line {line}"
            found.append(Block(place, line, kind, reason, match["commands"]))
        return found

    @property
    def code(self) -> list[str]:
        """Return all code: the spans in sentences, and the lines of command blocks."""
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```$", "", self.text))
        return [*spans, *(line for b in self.blocks for line in b.commands.splitlines())]

    @property
    def anchors(self) -> set[str]:
        """Return the anchors that GitHub gives the headings."""
        prose = re.sub(r"(?ms)^```.*?^```$", "", self.text)
        headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    @property
    def links(self) -> list[str]:
        return re.findall(r"\]\(([^)]+)\)", self.text)

    def first_column(self, header: str) -> list[str]:
        """Return the names in the first column of the table under this header; no name twice."""
        match = re.search(rf"^\| {header} \|.*\n\| ---.*\n((?:\|.*\n)+)", self.text, re.MULTILINE)
        assert match, f"{self.name} has no table whose first column is {header!r}"
        names = [row.split(" | ")[0].removeprefix("| ") for row in match[1].splitlines()]
        assert len(names) == len(set(names))
        return [name.strip("`") for name in names]


def documents(root: Path = ROOT) -> list[Document]:
    """Return the README, then the pages by name: the order in which their commands run."""
    paths = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return [
        Document(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        for path in paths
    ]


def document(name: str) -> Document:
    return next(page for page in documents() if page.name == name)


def missing_and_stale(documented: set[str], real: set[str]) -> dict[str, list[str]]:
    """Say what a table lacks, and which of its rows name nothing any more."""
    found = {"add a row": sorted(real - documented), "remove the row": sorted(documented - real)}
    return {what: names for what, names in found.items() if names}


def sources() -> list[Path]:
    return sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "dags").glob("*.py")])


def strings_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def names_of_tests() -> Counter[str]:
    """Return the names of all test functions, and how many functions have each."""
    trees = (ast.parse(p.read_text(encoding="utf-8")) for p in (ROOT / "tests").rglob("test_*.py"))
    return Counter(n.name for tree in trees for n in tree.body if isinstance(n, ast.FunctionDef))


def git(*arguments: str, cwd: Path = ROOT) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout
