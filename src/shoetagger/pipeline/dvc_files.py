"""Reads dvc.yaml and data.dvc: stages and their outputs, the data folder and its revision."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..atomic import atomic_write
from .process import PipelineError


def data_folder(checkout: Path) -> Path:
    """Return the folder that data.dvc versions: images/ and the label sheet."""
    return checkout / str(data_out(checkout)["path"])


def outputs(checkout: Path, stage: str) -> dict[str, Path]:
    """Return the paths of a stage's outputs, by the name of each file or folder.

    They are read from dvc.yaml, the only home of these paths; of two with the same name, such as a
    group's, plots give way. Raises PipelineError for a stage that it does not have, and where DVC
    cannot read it.
    """
    found = _stages(checkout).get(stage)
    if found is None:
        raise PipelineError(f"dvc.yaml of {checkout} has no stage {stage}")
    return {name: checkout / path for name, path in found["outputs"].items()}


def upstream(checkout: Path, stage: str) -> list[str]:
    """Return the stages that `stage` depends on, each after its own dependencies.

    Raises PipelineError where DVC cannot read dvc.yaml.
    """
    found = _stages(checkout).get(stage)
    return list(found["upstream"]) if found else []


def own_folder(checkout: Path) -> Path:
    """Return the folder for what is noted about a checkout, which DVC and git leave alone."""
    return checkout / ".dvc" / "tmp" / "shoetagger"


def _stages(checkout: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return `outputs` and `upstream` of each stage of dvc.yaml; raises PipelineError.

    They are kept in `own_folder`: importing DVC and reading all that it finds in
    the checkout takes a second, which each task of a run would spend.
    """
    state = [_state(checkout / "dvc.yaml"), _state(checkout / "params.yaml")]
    kept = own_folder(checkout) / "stages.json"
    try:
        document = json.loads(kept.read_bytes())
    except (OSError, ValueError):
        document = {}
    if document.get("state") != state:
        document = {"state": state, "stages": _read_stages(checkout)}
        for folder in (kept.parent.parent, kept.parent):  # in a checkout pruned meanwhile: none
            folder.mkdir(exist_ok=True)
        with atomic_write(kept, flushed=False) as file:
            file.write(json.dumps(document).encode())
    stages: Mapping[str, Mapping[str, Any]] = document["stages"]
    return stages


def _state(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except FileNotFoundError:  # DVC finds no stages there
        return []
    return [stat.st_mtime_ns, stat.st_size]


def _read_stages(checkout: Path) -> dict[str, dict[str, Any]]:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.repo.reproduce import plan_repro

    try:
        with Repo(str(checkout)) as repo:
            graph = repo.index.graph
            stages = [s for s in repo.index.stages if s.cmd and s.path_in_repo == "dvc.yaml"]
            return {
                stage.name: {
                    "outputs": {
                        # Of equal names the last one stays.
                        Path(out.fs_path).name: os.path.relpath(out.fs_path, repo.root_dir)
                        for out in sorted(stage.outs, key=lambda out: not out.plot)
                    },
                    "upstream": [
                        other.name
                        for other in plan_repro(graph, [stage])
                        if other.cmd and other is not stage
                    ],
                }
                for stage in stages
            }
    except DvcException as error:
        raise PipelineError(f"DVC cannot read the stages of {checkout}: {error}") from None


def default_remote(repo: Path) -> str | None:
    """Return where `dvc push` of a repo goes: a URL or an absolute folder; None: nowhere."""
    from dvc.config import Config

    config = Config(str(repo / ".dvc"))
    name = config["core"].get("remote")
    return str(config["remote"][name]["url"]) if name in config["remote"] else None


def data_revision(checkout: Path) -> str:
    """Return the md5 that data.dvc gives the image set and label sheet of a checkout."""
    return str(data_out(checkout)["md5"])


def data_out(repo: Path) -> Mapping[str, Any]:
    """Return `path` and `md5` of the folder in data.dvc; PipelineError where there is not one."""
    try:
        (out,) = yaml.safe_load((repo / "data.dvc").read_text(encoding="utf-8"))["outs"]
        return {"path": out["path"], "md5": out["md5"]}
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise PipelineError(
            f"{repo / 'data.dvc'} does not name one folder of data ({error}): "
            "make it with `dvc add data`"
        ) from None
