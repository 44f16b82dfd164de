"""The MLflow runs of the stages, with the tags that every run has."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ..config.params import Params
from ..config.settings import Settings
from ..tracking.run import Run, Tracker
from ..tracking.trainings import Dataset, Training

# Set for the stages of a DAG run: the address of its page.
DAG_RUN = "SHOETAGGER_DAG_RUN"
PARAMS = Path("params.yaml")


def start_summary(settings: Settings, params: Params) -> Run:
    """Start the run of the metrics over all groups."""
    groups = {"groups": ", ".join(params.groups)}
    tags = facts("all")
    return _tracker(settings).start("summary", tags=tags, params=groups, **_shared(tags))


def start_run(settings: Settings, params: Params, group: str) -> Run:
    """Start the training run of a group."""
    tags = facts(group)
    return _tracker(settings).start(
        f"train {group}", tags=tags, params=_flat(params, group), **_shared(tags)
    )


def continue_run(settings: Settings, params: Params, group: str, weights_sha256: str) -> Run:
    """Continue the run that trained these weights, or start one where there is none."""
    tags = facts(group)
    return _tracker(settings).attach(
        key="weights_sha256",
        value=weights_sha256,
        otherwise=f"evaluate {group}",
        tags=tags,
        params=_flat(params, group),
        **_shared(tags),
    )


def _tracker(settings: Settings) -> Tracker:
    return Tracker(settings.tracking_uri, settings.outbox, settings.artifacts)


def facts(group: str) -> dict[str, str]:
    """Return the tags of a run: group, and this checkout's git commit and data revision."""
    tags = {"group": group}
    git = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if git.returncode == 0:
        tags["git_commit"] = git.stdout.strip()
    pointer = Path("data.dvc")
    if pointer.is_file():
        tags["data_revision"] = yaml.safe_load(pointer.read_text())["outs"][0]["md5"]
    if page := os.environ.get(DAG_RUN):
        tags["dag_run"] = page
    return tags


def _shared(tags: Mapping[str, str]) -> dict[str, Any]:
    """Return what a run shares with the others of its training."""
    commit, data = tags.get("git_commit", ""), tags.get("data_revision")
    return {
        "training": training(commit, data or "", PARAMS, tags.get("dag_run", "")),
        "dataset": Dataset("data", data, commit) if data else None,
    }


def training(commit: str, data_revision: str, params_file: Path, dag_run: str) -> Training:
    """Return the training to which runs of this commit, data and parameters belong.

    `dag_run` is the address of its page in Airflow; "" where DVC was called by hand.
    """
    identity = f"{commit} {data_revision} ".encode() + params_file.read_bytes()
    tags = {"git_commit": commit, "data_revision": data_revision, "dag_run": dag_run}
    return Training(
        id=hashlib.sha256(identity).hexdigest()[:16],
        name=f"training {commit[:12]}{'-dirty' if commit.endswith('-dirty') else ''}".strip(),
        note=f"One training: the runs of its groups are below it. [Its DAG run]({dag_run})"
        if dag_run
        else "One training: the runs of its groups are below it.",
        tags={key: value for key, value in tags.items() if value},
    )


def _flat(params: Params, group: str) -> dict[str, object]:
    sections = {
        "train": asdict(params.train_of(group)),
        "images": asdict(params.images),
        "features": asdict(params.features),
        "split": asdict(params.split),
        "evaluate": asdict(params.evaluate),
    }
    flat: dict[str, object] = {"tags": ", ".join(params.group(group).tags)}
    if (none_below := params.group(group).none_below) is not None:
        flat["decide.none_below"] = none_below
    for section, values in sections.items():
        for key, value in values.items():
            if isinstance(value, dict):
                flat |= {f"{section}.{key}.{k}": v for k, v in value.items()}
            else:
                flat[f"{section}.{key}"] = value
    return flat
