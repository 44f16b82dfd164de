"""Reads dvc.yaml and data.dvc: outputs of stages, the data folder and its revision."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from .process import PipelineError


def data_folder(checkout: Path) -> Path:
    """Return the folder that data.dvc versions: images/ and the label sheet."""
    return checkout / str(data_out(checkout)["path"])


def outputs(checkout: Path, stage: str) -> dict[str, Path]:
    """Return the paths of a stage's outputs, by the name of each file or folder.

    They are read from dvc.yaml, the only home of these paths; of two with the same name, such as a
    group's, plots give way. Raises PipelineError for a stage that it does not have.
    """
    # DVC takes a twentieth of a second, several times per promotion, for what seldom changes.
    return dict(
        _outputs(checkout, stage, _state(checkout / "dvc.yaml"), _state(checkout / "params.yaml"))
    )


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


@lru_cache(maxsize=64)
def _outputs(checkout: Path, stage: str, *_states: tuple[int, int]) -> Mapping[str, Path]:
    """Read what `outputs` returns; `_states` are those of the files that it depends on."""
    from dvc.dvcfile import load_file
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageNotFound

    with Repo(str(checkout)) as repo:
        # This file and stage alone: an index of the checkout would parse all that there are.
        try:
            found = load_file(repo, str(checkout / "dvc.yaml")).stages[stage]
        except StageNotFound:
            raise PipelineError(f"dvc.yaml of {checkout} has no stage {stage}") from None
        outs = sorted(found.outs, key=lambda out: not out.plot)  # of equal names the last one stays
        return {Path(out.fs_path).name: Path(out.fs_path) for out in outs}


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
