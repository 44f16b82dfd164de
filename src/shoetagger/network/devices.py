"""The device to compute on, how the work is laid on its cores, and the number type there."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import torch

from .layers import ModelError


def pick_device(name: str) -> torch.device:
    """Return the named device; "auto" is the GPU where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ModelError(f"device {name!r} needs a GPU, and torch sees none: use auto or cpu")
    return torch.device(name)


def multiply_in_full(device: torch.device) -> None:
    """Let convolutions in float32 keep all of its 24 bits, in this process.

    On a GPU, cuDNN would by default round their inputs to the 11 bits of TF32.
    """
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False


def pick_dtype(device: torch.device) -> torch.dtype:
    """Return the number type of backbones: bfloat16 where the device supports it natively."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        supported = torch.cpu.get_capabilities()
        native = bool(supported.get("avx512_bf16") or supported.get("amx_bf16"))
    return torch.bfloat16 if native else torch.float32


def cores(threads: int, name: str) -> ThreadPoolExecutor:
    """Return threads that each compute on one core; torch elsewhere keeps its own threads."""

    def alone() -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # at its first use a thread adopts the process's setting: now

    all_there = threading.Barrier(threads)
    pool = ThreadPoolExecutor(threads, name, initializer=alone)
    list(pool.map(lambda _: all_there.wait(), range(threads)))
    torch.set_num_threads(threads)
    return pool
