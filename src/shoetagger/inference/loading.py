"""Loads the model that a bundle describes."""

from __future__ import annotations

from pathlib import Path

from ..network.backbone import TagModel
from ..network.digests import file_sha256
from ..network.layers import WEIGHTS_FILE, ModelError
from ..network.weights import load_trained
from .bundle import BUNDLE_FILE, Bundle


def load_model(directory: Path, bundle: Bundle) -> TagModel:
    """Load a bundle's model, in eval mode on the CPU; raises ModelError if the digest differs."""
    path = directory / WEIGHTS_FILE
    if path.is_file() and file_sha256(path) != bundle.weights_sha256:
        raise ModelError(
            f"{path} is not the file that {BUNDLE_FILE} beside it describes: its digest differs; "
            "restore both with `dvc checkout`, or fetch the version again"
        )
    size = bundle.transform.size
    return load_trained(bundle.arch, len(bundle.tags), bundle.pooled, path, size=size).eval()
