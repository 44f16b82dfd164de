"""Runs a command that ends when its caller does: `python -I guard.py GRACE_SECONDS COMMAND ...`.

Run by path, not as a module, so that it works whatever PYTHONPATH names. The caller holds a pipe to
its standard input; when that closes, because the caller was killed or gave up, the command's
process group is interrupted, as by Ctrl-C, so that a training run closes its log, and killed
GRACE_SECONDS later. The exit status is the command's, or 128 and the number of its signal.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence


def guard(grace_seconds: float, command: Sequence[str]) -> int:
    """Run the command until it ends or standard input closes; return its exit status."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a server started in the background ignores it
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    threading.Thread(target=_end_with_caller, args=(process, grace_seconds), daemon=True).start()
    code = process.wait()
    _signal_group(process, signal.SIGKILL)  # what the command may have left behind
    return code if code >= 0 else 128 - code


def _end_with_caller(process: subprocess.Popen[bytes], grace_seconds: float) -> None:
    os.read(0, 1)  # nothing is ever written: this returns when the pipe closes
    _signal_group(process, signal.SIGINT)
    time.sleep(grace_seconds)
    _signal_group(process, signal.SIGKILL)


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


if __name__ == "__main__":
    # Not sys.exit: the thread may be blocked in its read.
    os._exit(guard(float(sys.argv[1]), sys.argv[2:]))
