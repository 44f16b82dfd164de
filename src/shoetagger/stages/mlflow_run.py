"""The MLflow runs of the stages, with the tags that every run has."""

from __future__ import annotations

import subprocess
from dataclasses import asdict
from pathlib import Path

import yaml

from ..config.params import Params
from ..config.settings import Settings
from ..tracking.run import Run, Tracker


def start_summary(settings: Settings, params: Params) -> Run:
    """Start the run of the metrics over all groups."""
    groups = {"groups": ", ".join(params.groups)}
    return _tracker(settings).start("summary", tags=facts("all"), params=groups)


def start_run(settings: Settings, params: Params, group: str) -> Run:
    """Start the training run of a group."""
    return _tracker(settings).start(
        f"train {group}", tags=facts(group), params=_flat(params, group)
    )


def continue_run(settings: Settings, params: Params, group: str, weights_sha256: str) -> Run:
    """Continue the run that trained these weights, or start one where there is none."""
    return _tracker(settings).attach(
        key="weights_sha256",
        value=weights_sha256,
        otherwise=f"evaluate {group}",
        tags=facts(group),
        params=_flat(params, group),
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
    return tags


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
