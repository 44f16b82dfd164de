"""The commands of the documents run in a clone, and name what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from helpers.documents import (
    ROOT,
    Block,
    document,
    documents,
    git,
    missing_and_stale,
    names_of_tests,
)
from helpers.fork_server import use_for_stages
from PIL import Image

from shoetagger.config import params

# Enough to run every stage; what the models learn does not matter here.
SMALL_RECIPE: Mapping[str, Mapping[str, Any]] = {
    "split": {"folds": 2, "repeats": 1},
    "images": {"size": 32},
    "train": {"weights": "none", "freeze": "none", "epochs": 1},
    "evaluate": {"bootstrap": 20},
}


@dataclass(frozen=True)
class Newcomer:
    """A clone of the committed state, and the environment of somebody who has just made it."""

    clone: Path
    environment: Mapping[str, str]

    def run(self, block: Block) -> None:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", block.commands],
            cwd=self.clone,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{block.place}:\n{block.commands}{done.stdout}"


@pytest.fixture
def newcomer(tmp_path: Path) -> Newcomer:
    clone, home = tmp_path / "a clone", tmp_path / "a home"
    # Without the history, of which cleaning looks at every commit.
    git("clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(clone), cwd=tmp_path)
    link_environment(clone / ".venv")
    use_for_stages(clone)
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
    """Make what a team brings along: two pictures, and a label sheet that gives them all tags."""
    (folder / "images").mkdir(parents=True)
    tags = params.load(clone / "params.yaml").tags
    rows = [",".join(["image_name", *tags])]
    for colour in ("black", "red"):
        Image.new("RGB", (64, 48), colour).save(folder / "images" / f"a {colour} shoe.jpg")
        rows.append(",".join([f"a {colour} shoe.jpg", *("1" for _ in tags)]))
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_commands_run_in_a_clone_and_the_quick_ones_train_nothing(newcomer: Newcomer) -> None:
    trained = newcomer.clone / "models"
    for page in documents(newcomer.clone):
        for block in page.blocks:
            if block.kind == "not tested":
                continue
            before = changes(trained)
            newcomer.run(block)
            assert (changes(trained) == before) == (block.kind == "fast"), block.place
    assert trained.is_dir()
    status = git("status", "--porcelain", "--", "src", "dags", "dvc.yaml", cwd=newcomer.clone)
    assert status == ""


def changes(folder: Path) -> dict[Path, int]:
    """When each file of a folder was last changed."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_what_is_not_tested_says_why() -> None:
    untested = [b for page in documents() for b in page.blocks if b.kind == "not tested"]
    assert untested
    tests = names_of_tests()
    for block in untested:
        assert block.reason, block.place
        for name in re.findall(r"\btest_\w+", block.reason):
            assert name in tests, f"{block.place}: there is no {name}"


def test_the_first_command_comes_early() -> None:
    first = document("README.md").blocks[0]
    assert first.commands == "make demo\n"
    assert first.line <= 30


def test_commands_they_name_are_there_and_none_is_left_out() -> None:
    from shoetagger.cli.app import app

    commands = set(typer.main.get_command(app).commands)
    code = [code for page in documents() for code in page.code]
    named = {name for c in code for name in re.findall(r"^shoetagger ([a-z]+)", c)}
    assert missing_and_stale(named, commands) == {}


def test_make_targets_they_name_are_there_and_none_is_left_out() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile))
    table = document("docs/DEVELOPMENT.md").first_column("target")
    assert missing_and_stale({name.removeprefix("make ") for name in table}, targets) == {}
    code = [code for page in documents() for code in page.code]
    assert {name for c in code for name in re.findall(r"^make ([a-z-]+)", c)} <= targets


def test_modules_they_run_are_there() -> None:
    for page in documents():
        for code in page.code:
            for module in re.findall(r"^python -m (\w[\w.]*)", code):
                path = ROOT / module.replace(".", "/")
                if module.startswith("shoetagger"):
                    path = ROOT / "src" / module.replace(".", "/")
                files = (path.with_suffix(".py"), path / "__main__.py")
                assert any(file.is_file() for file in files), f"{page.name}: {code}"
