"""A small project for the experiments, in a folder that they are run from."""

from __future__ import annotations

from pathlib import Path

import yaml
from helpers.sample import copy_sample
from safetensors.torch import save_file

from shoetagger.network.libraries import library

ROOT = Path(__file__).parents[2]
WEIGHTS = Path("data/weights/random.safetensors")


def write_project(folder: Path, group: str, arch: str, **train: object) -> None:
    """Write params.yaml with one of our groups, 30 pictures, and random weights of a backbone."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    document["images"]["size"] = 32
    document["groups"] = {group: document["groups"][group]}
    document["train"] |= train
    (folder / "params.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    copy_sample(folder / "data", 30)
    write_weights(folder / WEIGHTS, arch)


def write_weights(file: Path, arch: str) -> None:
    """Write the random weights of a backbone as a safetensors file that `train.weights` takes."""
    file.parent.mkdir()
    creator, name = library(arch)
    save_file(creator.create(name).state_dict(), file, {"license": "cc-by-nc-4.0"})
