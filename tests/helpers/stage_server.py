"""Runs the stages of a project in forks of one process that has imported torch, MLflow and plots.

Importing them takes a stage five seconds of CPU, and what a test's project trains takes less. What
DVC starts for a stage is then this file as a client, by its path: it hands its directory, variables
and streams to the server, and ends as the stage does. The stage itself is that of the project's own
`src`, in a process of its own.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What the stages import, but for this package: anything that is missing here costs only time.
IMPORTED = (
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "PIL.Image",
    "pydantic",
    "safetensors.torch",
    "sklearn.metrics",
    "torch._dynamo",
    "torch.optim.swa_utils",
    "torchvision",
    "tqdm",
    "typer",
    "yaml",
)


@contextmanager
def stage_server() -> Iterator[Path]:
    """Yield the address of a server, which ends with this process at the latest."""
    folder = Path(tempfile.mkdtemp(prefix="shoetagger-stages-"))  # a socket's path must be short
    address = folder / "socket"
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        assert server.stdout.readline() == b"ready\n"
        yield address
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait(60)
        shutil.rmtree(folder)


def use_stage_server(project: Path, address: Path) -> None:
    """Let the stages of a project, and of checkouts of what it commits, run in the server."""
    script = f"exec '{sys.executable}' -I -S '{__file__}' '{address}' \"$@\"\n"
    (project / "src" / "stage.sh").write_text(script)


def request(address: str, arguments: list[str]) -> int:
    """Let the server run a stage with our directory, variables and streams; its exit status."""
    asked = {"folder": str(Path.cwd()), "variables": dict(os.environ), "arguments": arguments}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], [0, 1, 2])
        code = int(connection.recv(16))
    return code if code >= 0 else 128 - code


def serve(address: str) -> None:
    """Answer requests, until standard input closes."""
    for name in IMPORTED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            multiprocessing.Process(target=_attend, args=(connection,)).start()
            connection.close()


def _attend(connection: socket.socket) -> None:
    """Run the stage that is asked for in a process of its own; kill it if whoever asks is gone."""
    message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 16)
    stage = multiprocessing.Process(target=_run_stage, args=(streams,), kwargs=json.loads(message))
    stage.start()
    ready, _, _ = select.select([connection, stage.sentinel], [], [])
    if stage.sentinel not in ready:
        stage.kill()
    stage.join()
    connection.sendall(str(stage.exitcode).encode())


def _run_stage(
    streams: list[int], folder: str, variables: dict[str, str], arguments: list[str]
) -> None:
    """Do what `python -m shoetagger.stages NAME` would do."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    assert "shoetagger" not in sys.modules
    sys.path[0] = folder
    sys.path[1:1] = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv[1:] = arguments
    runpy.run_module("shoetagger.stages", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(request(sys.argv[1], sys.argv[2:]))
    # Here, for the client starts once per stage and needs none of them.
    import importlib
    import multiprocessing
    import runpy

    serve(sys.argv[1])
