"""The README holds: its commands run in a clone, its tables and its tree name what there is."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from PIL import Image

from shoetagger.config import params

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

# What `make up` gives its own servers, so that `make down` finds them; nobody sets these.
INTERNAL_VARIABLES = {"SHOETAGGER_SERVERS_OF", "SHOETAGGER_SERVER"}
# Read by torch; the code only passes them on.
FOREIGN_VARIABLES = {"TORCH_HOME"}
# Of every program; they are passed on.
COMMON_VARIABLES = {"PATH", "PYTHONPATH"}
# Enough to run every stage; what the models learn is no matter here.
SMALL_RECIPE: Mapping[str, Mapping[str, Any]] = {
    "split": {"folds": 2},
    "images": {"size": 32},
    "train": {"weights": "none", "freeze": "none", "epochs": 1},
    "evaluate": {"bootstrap": 20},
}


# --- commands -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block of commands; `kind` is "fast", "slow" or "not tested"."""

    line: int
    kind: str
    reason: str
    commands: str


def blocks(text: str) -> list[Block]:
    """Return the README's blocks of commands, with what the HTML comment before each says."""
    found = []
    pattern = re.compile(
        r"(?:^<!-- (?P<kind>slow|not tested)(?:: (?P<reason>[^>]*))? -->\n)?"
        r"^```sh\n(?P<commands>.*?)^```$",
        re.MULTILINE | re.DOTALL,
    )
    for match in pattern.finditer(text):
        line = text.count("\n", 0, match.start("commands")) + 1
        kind, reason = match["kind"] or "fast", match["reason"] or ""
        found.append(Block(line, kind, reason, match["commands"]))
    return found


@dataclass(frozen=True)
class Newcomer:
    """A clone of the committed state, and the environment of somebody who has just made it."""

    clone: Path
    environment: Mapping[str, str]

    def run(self, block: Block) -> str:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", block.commands],
            cwd=self.clone,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"README.md line {block.line}:\n{block.commands}{done.stdout}"
        return done.stdout


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    clone, home = tmp_path / "a clone", tmp_path / "a home"
    git("clone", "--quiet", str(ROOT), str(clone), cwd=tmp_path)
    link_environment(clone / ".venv")
    use_small_recipe(clone)
    own_data(clone, home / "shoes")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SHOETAGGER_")}
    binaries = Path(sys.executable).parent
    environment |= {
        "HOME": str(home),
        "PATH": os.pathsep.join([str(binaries), os.environ["PATH"]]),
        "PYTHONPATH": str(clone / "src"),  # what is installed may be another checkout's
    }
    return Newcomer(clone, environment)


def link_environment(venv: Path) -> None:
    """Make a .venv of links to the one that runs this test, which `make` takes as finished."""
    venv.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if entry.name != ".installed":
            (venv / entry.name).symlink_to(entry)
    (venv / ".installed").touch()


def use_small_recipe(clone: Path) -> None:
    path = clone / "params.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in SMALL_RECIPE.items():
        document[section] |= values
    path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    git("commit", "--quiet", "--all", "--message", "A small recipe", cwd=clone)


def own_data(clone: Path, folder: Path) -> None:
    """Make what a team brings along: two pictures and a label sheet with the clone's tags."""
    (folder / "images").mkdir(parents=True)
    tags = params.load(clone / "params.yaml").tags
    rows = [",".join(["image_name", *tags])]
    for colour in ("black", "red"):
        Image.new("RGB", (64, 48), colour).save(folder / "images" / f"a {colour} shoe.jpg")
        rows.append(",".join([f"a {colour} shoe.jpg", *("1" if t == colour else "" for t in tags)]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def git(*arguments: str, cwd: Path = ROOT) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=cwd, check=True, capture_output=True, text=True
    ).stdout


def committed_readme(clone: Path) -> str:
    return (clone / "README.md").read_text(encoding="utf-8")


def test_the_quick_commands_run_in_a_clone(newcomer: Newcomer) -> None:
    for block in blocks(committed_readme(newcomer.clone)):
        if block.kind == "fast":
            newcomer.run(block)
    assert not (newcomer.clone / "models").exists(), "quick commands train nothing"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_commands_run_in_their_order(newcomer: Newcomer) -> None:
    for block in blocks(committed_readme(newcomer.clone)):
        if block.kind != "not tested":
            newcomer.run(block)
    status = git("status", "--porcelain", "--", "src", "dags", "dvc.yaml", cwd=newcomer.clone)
    assert status == ""


def test_what_is_not_tested_says_why() -> None:
    untested = [block for block in blocks(TEXT) if block.kind == "not tested"]
    assert untested
    for block in untested:
        assert block.reason, f"README.md line {block.line}"
        for name in re.findall(r"\btests/\w+\.py", block.reason):
            assert (ROOT / name).is_file(), f"README.md line {block.line}: no {name}"


def test_the_first_command_comes_early() -> None:
    first = blocks(TEXT)[0]
    assert first.commands == "make demo\n"
    assert first.line <= 30


def test_commands_and_targets_it_names_are_there_and_none_is_left_out() -> None:
    from shoetagger.cli.app import app

    callbacks = [command.callback for command in app.registered_commands]
    commands = {callback.__name__ for callback in callbacks if callback}
    named = set(re.findall(r"`shoetagger ([a-z]+)", TEXT))
    named |= {n for b in blocks(TEXT) for n in re.findall(r"(?m)^shoetagger ([a-z]+)", b.commands)}
    assert missing_and_stale(named, commands) == {}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    assert set(re.findall(r"(?m)(?:^|`|\()make ([a-z-]+)", TEXT)) <= targets


# --- tables ---------------------------------------------------------------------------------


def first_column(header: str) -> list[str]:
    """Return the names in the first column of the table under this header; no name twice."""
    match = re.search(rf"^\| {header} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert match, f"README.md has no table of {header}s"
    names = [row.split(" | ")[0].removeprefix("| ") for row in match[1].splitlines()]
    assert len(names) == len(set(names))
    return [name.strip("`") for name in names]


def missing_and_stale(documented: set[str], real: set[str]) -> dict[str, list[str]]:
    """Say what a table of the README lacks, and which of its rows name nothing any more."""
    found = {"add a row": sorted(real - documented), "remove the row": sorted(documented - real)}
    return {what: names for what, names in found.items() if names}


def test_the_table_of_parameters_is_whole() -> None:
    real = set(keys_of(params.Params, ""))
    assert missing_and_stale(set(first_column("parameter")), real) == {}
    document = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    written = {re.sub(r"^groups\.\w+", "groups.<name>", key) for key in leaves(document, "")}
    assert {key for key in written if not key.startswith("groups.<name>.train.")} <= real


def keys_of(kind: Any, key: str) -> Iterator[str]:
    """Yield the dotted keys that params.yaml may hold, from the types that it is read into."""
    if dataclasses.is_dataclass(kind):
        for name, hint in get_type_hints(kind).items():
            yield from keys_of(hint, f"{key}.{name}" if key else name)
    elif get_origin(kind) not in (None, tuple, Union) and dataclasses.is_dataclass(
        get_args(kind)[-1]
    ):
        yield from keys_of(get_args(kind)[-1], f"{key}.<name>")
    else:
        yield key


def leaves(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{key}.{name}" if key else name)
    else:
        yield key


def test_the_table_of_variables_is_whole() -> None:
    real = {name for path in sources() for name in variables_read(path)}
    real -= INTERNAL_VARIABLES | COMMON_VARIABLES
    documented = set(first_column("variable"))
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


def sources() -> list[Path]:
    return sorted([*(ROOT / "src").rglob("*.py"), *(ROOT / "dags").glob("*.py")])


# --- the tree -------------------------------------------------------------------------------


def test_the_tree_names_every_folder_and_file_at_the_top() -> None:
    tree = re.search(r"\n\n```\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert tree
    named = set()
    for line in tree[1].splitlines():
        paths = re.split(r"\s{2,}", line)[0].split()
        named |= {path.rstrip("/").split("/")[0] for path in paths}
        for path in paths:
            assert (ROOT / path).is_dir() == path.endswith("/"), path
    top = {path.split("/")[0] for path in git("ls-files", "-z").split("\0") if path}
    assert missing_and_stale(named, top) == {}


def test_the_table_of_modules_names_every_module() -> None:
    listed = git("ls-files", "-z", "src/shoetagger").split("\0")
    tops = {path.split("/")[2] for path in listed if path}
    modules = {name.removesuffix(".py") for name in tops} - {"__init__"}
    assert missing_and_stale(set(first_column("module")), modules) == {}


# --- what it says ---------------------------------------------------------------------------


def test_the_messages_it_explains_are_those_of_the_code() -> None:
    strings = [text for path in sources() for text in strings_of(path)]
    section = TEXT.partition("## When something goes wrong")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| ", section, re.MULTILINE)
    assert len(rows) >= 10
    for message in rows:
        for part in message.split("…"):
            words = part.strip(" ,.:;")
            assert any(words in text for text in strings), message


def strings_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_its_picture_is_there_and_small() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", TEXT)
    assert 10_000 < (ROOT / picture).stat().st_size < 200_000


def test_its_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target
