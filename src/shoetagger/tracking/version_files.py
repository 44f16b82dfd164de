"""Files that were logged for registered versions, read and written again across all runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from .connection import Connection
from .packaging import write_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "versions"  # in a run's artifacts, with a folder per number of a version


def rewrite_version_files(
    connection: Connection, rewrite: Callable[[Mapping[str, bytes]], Mapping[str, bytes]]
) -> int:
    """Replace files of versions; return of how many versions.

    `rewrite` takes the files of a version by name, and returns those to write, if any. Deleted
    versions and runs count, too: their files are still there. Raises MLflowUnavailable.
    """
    rewritten = 0
    with connection.open() as (client, experiment):
        for run_id in _run_ids(client, experiment):
            for folder in client.list_artifacts(run_id, FOLDER):
                changed = rewrite(_read(client, run_id, folder.path))
                if changed:
                    _write(client, run_id, folder.path, changed)
                    rewritten += 1
    return rewritten


def _read(client: MlflowClient, run_id: str, folder: str) -> dict[str, bytes]:
    with TemporaryDirectory() as scratch:
        downloaded = Path(client.download_artifacts(run_id, folder, scratch))
        return {file.name: file.read_bytes() for file in downloaded.iterdir() if file.is_file()}


def _run_ids(client: MlflowClient, experiment: str) -> Iterator[str]:
    from mlflow.entities import ViewType

    token: str | None = None
    while True:
        page = client.search_runs([experiment], run_view_type=ViewType.ALL, page_token=token)
        yield from (str(run.info.run_id) for run in page)
        token = page.token
        if not token:
            return


def _write(client: MlflowClient, run_id: str, folder: str, files: Mapping[str, bytes]) -> None:
    with TemporaryDirectory() as scratch:
        for name, content in files.items():
            write_file(Path(scratch) / name, content)
        client.log_artifacts(run_id, scratch, folder)
