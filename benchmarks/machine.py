"""What the machine could do at most: the peak that the variants are held against."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path

import torch

_CPU = torch.device("cpu")
_SIDE = 2048  # of the matrices: enough work for all cores, little enough to stay in 100 MB


def matrix_gigaflops(
    dtype: torch.dtype, repeats: int = 9, side: int = _SIDE, device: torch.device = _CPU
) -> float:
    """Return the median rate of a product of square matrices with torch's default threads."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 2):
        wait_for(device)
        started = time.perf_counter()
        a @ b
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / statistics.median(seconds[2:]) / 1e9


def wait_for(device: torch.device) -> None:
    """Wait until a device has done what it was given; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def description() -> str:
    """Name processor, cores and versions in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if "model name" in line), "a processor")
    cores = torch.get_num_threads()
    return (
        f"{model}, {cores} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"Python {platform.python_version()}, torch {torch.__version__.split('+')[0]}"
    )
