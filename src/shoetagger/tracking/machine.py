"""How busy the machine is while a run works, by MLflow's own monitors and under their names."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from .connection import load_mlflow

_SECONDS = 10.0  # between two samples, as MLflow has it


class Sample(NamedTuple):
    """Metrics by name, and their number in the run's history."""

    values: dict[str, float]
    step: int


class Machine:
    """Samples processors, memory, disk, network and, where there are any, GPUs.

    MLflow would sample in a thread that needs a server all the time. Here whoever writes to the run
    samples, and what was sampled waits in the outbox like everything else.
    """

    def __init__(self) -> None:
        load_mlflow()
        from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
        from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
        from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

        kinds: list[Any] = [CPUMonitor, DiskMonitor, NetworkMonitor]
        self._monitors = [kind() for kind in kinds] + _gpus()
        self._count = 0
        self._last = time.monotonic()

    def sample(self, last: bool = False) -> Sample | None:
        """Return a sample, where the one before is old enough or this is the last of the run."""
        if not last and time.monotonic() - self._last < _SECONDS:
            return None
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= {f"system/{k}": float(v) for k, v in monitor.aggregate_metrics().items()}
            monitor.clear_metrics()
        self._last = time.monotonic()
        self._count += 1
        return Sample(values, self._count - 1)


def _gpus() -> list[Any]:
    """Return a monitor of NVIDIA's GPUs; none without a GPU, or without a library that sees it."""
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    kind: Any = GPUMonitor
    try:
        return [kind()]
    except (ImportError, RuntimeError):
        return []
