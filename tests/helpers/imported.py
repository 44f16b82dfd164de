"""Which of the package's files a module runs: what DVC stages have to depend on."""

from __future__ import annotations

import functools
from pathlib import Path

import grimp

SOURCES = Path(__file__).parents[2] / "src"
# DVC compares the values of params itself; the rest reports, or writes what it is given.
EXEMPT = (
    "shoetagger.atomic",
    "shoetagger.config",
    "shoetagger.errors",
    "shoetagger.stages.command",
    "shoetagger.stages.mlflow_run",
    "shoetagger.tracking",
)


@functools.cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("shoetagger", exclude_type_checking_imports=True, cache_dir=None)


def files_run_by(*modules: str, exempt: tuple[str, ...] = EXEMPT) -> set[str]:
    """Return the files, relative to the repo, that modules and all that they import consist of.

    Imports within functions count. What is exempt is left out, with what it imports.
    """
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        file = f"src/{module.replace('.', '/')}.py"
        if file in found or module.startswith(exempt):
            continue
        found.add(file)
        waiting += _graph().find_modules_directly_imported_by(module)
    return found


def lies_in(file: str, declared: str) -> bool:
    """Tell whether a declared dependency, a file or a folder, covers a file."""
    return file == declared or file.startswith(f"{declared}/")
