"""What the machine could do at most: the peak that the variants are held against."""

from __future__ import annotations

import platform
import statistics
import time
from pathlib import Path

import torch

_CPU = torch.device("cpu")
_SIDE = 2048  # of the matrices: enough work for all cores, little enough to stay in 100 MB
_FIRST_SIDE = 128
_LONGEST = 0.5  # seconds; twice the side is tried where a product should take no longer


def matrix_gigaflops(
    dtype: torch.dtype, repeats: int = 9, side: int = _SIDE, device: torch.device = _CPU
) -> float:
    """Return the median rate of a product of square matrices with torch's default threads.

    The matrices are smaller than `side` where those would take long: a processor without bfloat16
    emulates it at a hundredth of its speed.
    """
    tried = min(side, _FIRST_SIDE)
    while tried < side and 8 * min(_seconds(dtype, tried, 3, device)) < _LONGEST:
        tried = min(side, 2 * tried)
    return 2 * tried**3 / statistics.median(_seconds(dtype, tried, repeats, device)) / 1e9


def _seconds(dtype: torch.dtype, side: int, repeats: int, device: torch.device) -> list[float]:
    """Time a product of two square matrices, after two that warm up."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(repeats + 2):
        wait_for(device)
        started = time.perf_counter()
        a @ b
        wait_for(device)
        seconds.append(time.perf_counter() - started)
    return seconds[2:]


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
