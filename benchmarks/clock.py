"""Times the parts of a run."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class Clock:
    """Adds up the seconds of wall time spent in named parts of a run.

    Seconds in which several threads are in the same part count once. `cpu` are the seconds of CPU
    that the whole process spends meanwhile.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.cpu: defaultdict[str, float] = defaultdict(float)
        self._within: Counter[str] = Counter()
        self._since: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        with self._lock:
            if not self._within[part]:
                self._since[part] = time.perf_counter(), time.process_time()
            self._within[part] += 1
        try:
            yield
        finally:
            with self._lock:
                self._within[part] -= 1
                if not self._within[part]:
                    wall, cpu = self._since[part]
                    self.seconds[part] += time.perf_counter() - wall
                    self.cpu[part] += time.process_time() - cpu

    @contextmanager
    def of_function(self, owner: type | ModuleType, name: str, part: str) -> Iterator[None]:
        """Add the time of all calls of a function or method to `part` within the context."""
        original: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(part):
                return original(*args, **kwargs)

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, original)
