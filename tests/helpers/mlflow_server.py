"""An MLflow server in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from helpers.ports import HOST, free_port


@contextmanager
def mlflow_server(
    database: str,
    folder: Path,
    *options: str,
    port: int | None = None,
    variables: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run a server on a database from `folder`; yield its address, kill it without a word."""
    port = free_port() if port is None else port
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", database, *options]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | (variables or {})
    log = folder / "server.log"
    with log.open("ab") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    address = f"http://{HOST}:{port}"
    try:
        deadline = time.monotonic() + 180
        while not answers(f"{address}/health"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(url: str) -> bool:
    """Say whether a server answers there, and not with an error."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
