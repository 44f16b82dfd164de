"""Comparisons that show a picture are written again without their pictures."""

from __future__ import annotations

from pathlib import Path

from ..tracking.connection import Connection
from ..tracking.version_files import rewrite_version_files
from . import report


def erase_from_comparisons(tracking_uri: str, artifacts: Path, image_id: str) -> int:
    """Erase a picture from the comparisons in MLflow; return how many have lost their pictures.

    A contact sheet is one image, so it goes as a whole; the numbers stay. One that was made before
    sheets named their pictures goes in any case. Raises MLflowUnavailable.
    """
    connection = Connection(tracking_uri, artifacts, seconds=60)
    return rewrite_version_files(connection, lambda files: report.without_pictures(files, image_id))
