"""A project that several machines share: git's and DVC's remotes, and a clone per worker."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shoetagger.config import params
from shoetagger.config.settings import Settings
from shoetagger.inference.bundle import load_bundle
from shoetagger.ops.environment import process_variables

REPO = Path(__file__).parents[1]


@dataclass(frozen=True)
class Project:
    """The last commit of this repo, and one that names a DVC remote outside of it.

    `servers` is the clone of the hosts that train nothing.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Project:
        project = cls(folder)
        run(folder, "git", "clone", "--quiet", "--bare", str(REPO), str(project.git))
        run(folder, "git", "clone", "--quiet", str(project.git), str(project.servers))
        for command in (
            ["dvc", "remote", "add", "--quiet", "--default", "shared", str(folder / "dvc")],
            ["dvc", "pull", "--quiet", "--remote", "sample", "data.dvc"],
            ["dvc", "push", "--quiet", "data.dvc"],
            ["git", "commit", "--quiet", "--all", "-m", "A remote that all machines reach"],
            ["git", "push", "--quiet", "origin", "HEAD"],
        ):
            run(project.servers, *command)
        return project

    @property
    def git(self) -> Path:
        return self.folder / "project.git"

    @property
    def servers(self) -> Path:
        return self.folder / "servers"

    def clone(self, name: str) -> Path:
        clone = self.folder / name
        run(self.folder, "git", "clone", "--quiet", str(self.git), str(clone))
        return clone

    def trained_on_one_machine(self, overrides: Sequence[str]) -> dict[str, str]:
        """Train all groups as one person does, in a clone; return group -> digest of its bundle."""
        clone = self.clone("one")
        settings = Settings.from_environment(
            {"SHOETAGGER_REPO": str(clone), "SHOETAGGER_HOME": str(self.folder / "state of one")}
        )
        settings.home.mkdir()
        run(clone, "dvc", "pull", "--quiet", "data.dvc", settings=settings)
        changed = [argument for override in overrides for argument in ("-S", override)]
        run(clone, "dvc", "exp", "run", "--quiet", *changed, settings=settings)
        groups = params.load(settings.params_file).groups
        return {group: load_bundle(clone / "models" / group).digest for group in groups}


def run(folder: Path, *command: str, settings: Settings | None = None) -> None:
    """Run a program in a folder; raises RuntimeError with what it said where it fails."""
    of_folder = replace(settings or Settings.from_environment({}), repo=folder)
    environment = os.environ | process_variables(of_folder)
    if settings is not None:
        environment |= settings.as_environment()
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} in {folder}:\n{done.stdout}{done.stderr}")
