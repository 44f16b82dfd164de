"""The stages that dvc.yaml runs: a module each, which connects the core to files and MLflow."""

from __future__ import annotations

import os

# Set before torch starts its threads, so that waiting threads sleep and do not spin. On a busy
# machine, spinning took six times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
