"""The tables of the documents have a row for everything there is, and none for anything else."""

from __future__ import annotations

import ast
import dataclasses
import re
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from helpers.documents import (
    ROOT,
    document,
    documents,
    git,
    missing_and_stale,
    names_of_tests,
    sources,
    strings_of,
)

from shoetagger.config import params

# What `make up` gives its own servers, so that `make down` finds them, and a DAG run gives its
# stages; nobody sets these.
INTERNAL_VARIABLES = {"SHOETAGGER_SERVERS_OF", "SHOETAGGER_SERVER", "SHOETAGGER_DAG_RUN"}
# Read by torch and by the clients of object stores; the code only passes them on.
FOREIGN_VARIABLES = {"TORCH_HOME", "AWS_ACCESS_KEY_ID"}
# Of every program.
COMMON_VARIABLES = {"PATH", "PYTHONPATH", "XDG_CONFIG_HOME"}


# --- parameters -----------------------------------------------------------------------------


def test_the_table_of_parameters_is_whole() -> None:
    real = set(keys_of(params.Params, ""))
    documented = set(document("docs/CONFIGURATION.md").first_column("parameter"))
    assert missing_and_stale(documented, real) == {}
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    written = {re.sub(r"^groups\.\w+", "groups.<name>", key) for key in leaves(values, "")}
    assert {key for key in written if not key.startswith("groups.<name>.train.")} <= real


def test_the_parameters_that_sentences_name_are_there() -> None:
    keys = set(keys_of(params.Params, ""))
    sections = "|".join(fields_of(params.Params))
    for page in documents():
        for code in page.code:
            for named in re.findall(rf"(?:^|\s)((?:{sections})\.[a-z0-9_.]+)", code):
                if not named.endswith((".csv", ".xlsx", ".parquet")):  # files are called so, too
                    known = any(f"{key}.".startswith(f"{named}.") for key in keys)
                    assert known, (page.name, named)


def keys_of(kind: Any, key: str) -> Iterator[str]:
    """Yield the dotted keys that params.yaml may have, from the types that it is read into."""
    origin, arguments = get_origin(kind), get_args(kind)
    if fields := fields_of(kind):
        for name, hint in fields.items():
            yield from keys_of(hint, f"{key}.{name}" if key else name)
    elif origin not in (None, tuple, Union, types.UnionType) and fields_of(arguments[-1]):
        yield from keys_of(arguments[-1], f"{key}.<name>")
    else:
        yield key


def fields_of(kind: Any) -> Mapping[str, Any]:
    """Return the fields of a section of params.yaml with their types; of anything else, none."""
    if dataclasses.is_dataclass(kind):
        return get_type_hints(kind)
    return {n: f.annotation for n, f in getattr(kind, "model_fields", {}).items()}  # pydantic's


def leaves(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}" if key else name)
    else:
        yield key


# --- environment ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_table_of_variables_is_whole() -> None:
    real = {name for path in sources() for name in variables_read(path)}
    real -= INTERNAL_VARIABLES | COMMON_VARIABLES
    documented = set(document("docs/CONFIGURATION.md").first_column("variable"))
    assert missing_and_stale(documented - FOREIGN_VARIABLES, real) == {}
    assert documented >= FOREIGN_VARIABLES


def variables_read(path: Path) -> Iterator[str]:
    """Yield the environment variables that a file asks for by name, or gives names of ours to."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"SHOETAGGER_[A-Z_]+", node.value):
                yield node.value
        elif isinstance(node, ast.Call) and "environ" in ast.unparse(node):
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            if texts and isinstance(texts[0], str) and re.fullmatch(r"[A-Z_]{5,}", texts[0]):
                yield texts[0]


# --- folders --------------------------------------------------------------------------------


def test_the_tree_names_every_folder_and_file_at_the_top() -> None:
    text = document("docs/DEVELOPMENT.md").text
    tree = re.search(r"\n\n```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert tree
    named = set()
    for line in tree[1].splitlines():
        paths = re.split(r"\s{2,}", line)[0].split()
        named |= {path.rstrip("/").split("/")[0] for path in paths}
        for path in paths:
            assert (ROOT / path).is_dir() == path.endswith("/"), path
    top = {path.split("/")[0] for path in git("ls-files", "-z").split("\0") if path}
    assert missing_and_stale(named, top) == {}


def test_the_map_names_every_folder_of_the_package() -> None:
    named = document("docs/DEVELOPMENT.md").first_column("folder")
    assert missing_and_stale(set(named), set(places_of_the_package())) == {}


def places_of_the_package() -> Iterator[str]:
    """Yield its folders and single files; a folder that only holds folders stands for these."""
    listed = git("ls-files", "-z", "src/shoetagger").split("\0")
    paths = [Path(name).relative_to("src/shoetagger") for name in listed if name]
    files = [path.parts for path in paths if path.name != "__init__.py"]
    for parts in files:
        if len(parts) == 1 or any(len(p) == 2 and p[0] == parts[0] for p in files):
            yield parts[0]
        else:
            yield "/".join(parts[:2])


# --- messages and promises ------------------------------------------------------------------


@pytest.mark.slow
def test_the_messages_that_are_explained_are_those_of_the_code() -> None:
    strings = [text for path in sources() for text in strings_of(path)]
    text = document("docs/TROUBLESHOOTING.md").text
    messages = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    assert len(messages) >= 10
    for message in messages:
        for part in message.split("…"):
            words = part.strip(" ,.:;")
            assert any(words in text for text in strings), message


@pytest.mark.slow
def test_every_promise_names_tests_that_there_are() -> None:
    text, tests = document("docs/RELIABILITY.md").text, names_of_tests()
    cells = [re.findall(r"[^|]+", line) for line in text.splitlines() if line.startswith("| ")]
    rows = [(a.strip(), b.strip()) for a, b in cells if a.strip() not in ("promise", "---")]
    assert len(rows) >= 30
    for promise, named in rows:
        found = re.findall(r"`(test_\w+)`", named)
        assert found, promise
        assert re.sub(r"`[^`]+`|[, ]", "", named) == "", promise
        for test in found:
            assert tests[test] == 1, f"{promise}: {tests[test]} tests are called {test}"
