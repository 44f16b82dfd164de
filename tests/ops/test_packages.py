"""What `make setup` installs is locked by hashes, from whatever index a machine uses."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", LOCK, re.MULTILINE))


def test_every_package_has_hashes_and_none_an_address() -> None:
    assert "://" not in LOCK
    packages = re.split(r"^(?=[a-z0-9-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert len(packages) == len(LOCKED) > 200
    assert [package for package in packages if "--hash=sha256:" not in package] == []


def test_what_s3_needs_is_locked_with_the_rest() -> None:
    assert {"dvc-s3", "s3fs", "botocore"} <= LOCKED.keys()
    assert LOCKED["python-dateutil"] < "3"


def test_what_a_machine_without_a_gpu_leaves_out_is_locked_and_is_not_torch_itself() -> None:
    lines = (ROOT / "requirements-cpu.excludes").read_text(encoding="utf-8").splitlines()
    excluded = {line for line in lines if line and not line.startswith("#")}
    assert excluded <= LOCKED.keys()
    assert excluded.isdisjoint({"torch", "torchvision", "nvidia-cudnn-cu13"})
