"""What dvc.yaml calls: one module a stage, wiring the core to files and to MLflow."""

from __future__ import annotations

import os

# Before torch starts its threads: they should sleep while they wait, not spin. On a machine with
# other work, spinning was measured to cost six times the time.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
