"""Runs Python programs in forks of one process that has imported torch, MLflow and plots.

Importing them takes a program five seconds of CPU, and what a test lets it do takes less. `python`
gives the command to start in its place: this file as a client, by its path, which hands its
directory, variables and streams to the server, and ends as the program does. The program imports
`shoetagger` itself, and is killed when its client is.
"""

from __future__ import annotations

import functools
import json
import os
import select
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

# What the programs import, but for this package: anything that is missing here costs only time.
IMPORTED = (
    "fastapi",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "pandas",
    "PIL.Image",
    "pyarrow.parquet",
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


def python(*arguments: object) -> list[str]:
    """Return the command that does what `python ARGUMENTS` does, if they begin with -c or -m."""
    return [sys.executable, "-I", "-S", __file__, str(_address()), *map(str, arguments)]


def use_for_stages(project: Path) -> None:
    """Let the stages of a project, and of checkouts of what it commits, run in forks."""
    command = shlex.join(python("-m", "shoetagger.stages"))
    (project / "src" / "stage.sh").write_text(f'exec {command} "$@"\n')


@functools.cache
def _address() -> Path:
    """Start the server of this process, with which it ends; return its address."""
    folder = Path(tempfile.mkdtemp(prefix="shoetagger-"))  # a socket's path must be short
    address = folder / "socket"
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    _STARTED.append(server)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return address


_STARTED: list[subprocess.Popen[bytes]] = []


def stop() -> None:
    """End the server, if there is one."""
    while _STARTED:
        with _STARTED.pop() as server:
            assert server.stdin is not None
            server.stdin.close()
    _address.cache_clear()


def request(address: str, arguments: list[str]) -> int:
    """Let the server run a program with our directory, variables and streams; its exit status."""
    asked = {"folder": str(Path.cwd()), "variables": dict(os.environ), "arguments": arguments}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [json.dumps(asked).encode() + b"\n"], [0, 1, 2])
        code = int(connection.recv(16))
    return code if code >= 0 else 128 - code


def serve(address: Path) -> None:
    """Answer requests, until standard input closes."""
    gc.disable()
    for name in IMPORTED:
        importlib.import_module(name)
    # Programs do not search what was imported for garbage, which takes as long as many of them do.
    gc.freeze()
    gc.enable()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            multiprocessing.Process(target=_attend, args=(connection,)).start()
            connection.close()
    shutil.rmtree(address.parent)


def _attend(connection: socket.socket) -> None:
    """Run the program that is asked for in its own process; kill it if whoever asks is gone."""
    message, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not message.endswith(b"\n"):
        message += connection.recv(1 << 16)
    program = multiprocessing.Process(target=_run, args=(streams,), kwargs=json.loads(message))
    program.start()
    for stream in streams:  # or whoever reads what the program writes would wait for us as well
        os.close(stream)
    ready, _, _ = select.select([connection, program.sentinel], [], [])
    if program.sentinel not in ready:
        program.kill()
    program.join()
    connection.sendall(str(program.exitcode).encode())


def _run(streams: list[int], folder: str, variables: dict[str, str], arguments: list[str]) -> None:
    """Do what Python would do with these arguments."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a child of multiprocessing has none
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    assert "shoetagger" not in sys.modules
    sys.path[0] = folder
    sys.path[1:1] = [path for path in variables.get("PYTHONPATH", "").split(os.pathsep) if path]
    option, what, *sys.argv[1:] = arguments
    if option == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    assert option == "-c", arguments
    sys.argv[0] = option
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    exec(what, main.__dict__)


if __name__ == "__main__":
    if sys.argv[2:]:
        sys.exit(request(sys.argv[1], sys.argv[2:]))
    # Here, for the client starts once per program and needs none of them.
    import gc
    import importlib
    import multiprocessing
    import runpy
    import shutil
    import types

    serve(Path(sys.argv[1]))
