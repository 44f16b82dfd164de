"""Runs one stage: `python -m shoetagger.stages NAME ARGUMENTS`, as src/stage.sh does.

A stage takes seconds, and what it imports stays to its end. Searching that for garbage while it is
imported, and taking it apart at the exit, were measured at 2.5 of the 6 seconds of CPU that
`evaluate` takes to start and to end. Neither is done here.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys

from .command import run


def main() -> None:
    """Import the stage that the first argument names, and call it with the others."""
    atexit.register(_end)  # the first to be registered is called after all others
    gc.disable()
    stage = importlib.import_module(f"{__package__}.{sys.argv.pop(1)}")
    gc.freeze()
    gc.enable()
    try:
        run(stage.main)
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            atexit.unregister(_end)
            gc.unfreeze()
        raise


def _end() -> None:
    """End the process, which has succeeded, without taking its modules apart."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
