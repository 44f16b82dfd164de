"""The dvc command, in three quarters of the CPU time: `python -P dvc_program.py ARGUMENTS ...`.

Most DVC commands of a run end within half a second, in which DVC is imported. Searching that for
garbage, and taking it apart at the exit, take a quarter of it; neither is done here. Run by path,
not as a module, so that neither this package nor the modules beside it are imported.
"""

from __future__ import annotations

import gc
import os
import sys


def main() -> None:
    gc.disable()
    from dvc.cli import main as dvc

    gc.freeze()
    gc.enable()
    code = dvc(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
