"""Which of the package's files a module runs: what DVC stages have to depend on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "shoetagger"
# They say where things are and tell MLflow what happened: no output of a stage depends on them.
REPORTING = {"settings.py", "tracking.py", "stages/runs.py"}


def modules_run_by(module: str) -> set[str]:
    """Return the package's files that importing a module, and calling it, imports in turn."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        if name not in REPORTING:
            waiting += _relative_imports(PACKAGE / name)
    return found


def _relative_imports(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    for node in _run_nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            parts = node.module.split(".") if node.module else []
            names = [parts] if parts else [[alias.name] for alias in node.names]
            for each in names:
                file = folder.joinpath(*each).with_suffix(".py")
                if file.is_file():
                    yield str(file.relative_to(PACKAGE))


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk all nodes but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            continue
        yield node
        yield from _run_nodes(node)
