"""`shoetagger backfill --engine ray`: actors of a Ray cluster work through the ranges.

No picture passes through Ray: each actor reads its ranges from the store, and writes there. One
that is killed is started again by Ray, with its range, of which the store has what was written.
"""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Any

from ..config.settings import Settings
from ..errors import ShoetaggerError
from ..ops.installation import Installation, opened
from ..store.rows import BacklogRange
from ..tagging.backfill import Filled
from ..tagging.run import TaggingRun
from . import backfill

_POLL_SECONDS = 2.0  # between two looks at what is done
_OBJECT_STORE = 100 * 2**20  # bytes: ranges and numbers are all that Ray carries


class RayError(ShoetaggerError):
    """Ray is not installed, or no cluster answers."""


def worked_through(
    installation: Installation,
    run: TaggingRun,
    parts: Sequence[BacklogRange],
    since: datetime | None,
    progress: Callable[[int], None],
    *,
    address: str | None,
    actors: int | None,
) -> Iterator[Filled]:
    """Work through the ranges on the cluster at `address`, or on one that this machine gets for it.

    `actors` work side by side, by default one per GPU, or per machine where there is none. Each
    opens the installation by the environment of its machine. Of a range whose actor was killed the
    numbers yielded are those of its last try; `progress`, like the run's counts, misses none.
    """
    store = installation.store
    with _cluster(address, actors or 1) as ray:
        gpus = 0 if installation.settings.device == "cpu" else int(_resources(ray, "GPU"))
        machines = sum(node["Alive"] for node in ray.nodes())
        needs = {"num_gpus": 1} if gpus else {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
        kind = ray.remote(_Actor).options(max_restarts=-1, max_task_retries=-1, **needs)
        waiting, busy, seen = deque(parts), {}, 0
        for _ in range(min(actors or gpus or machines, len(parts))):
            actor = kind.remote(run, since)
            busy[actor.fill.remote(waiting.popleft())] = actor
        while busy:
            ready, _ = ray.wait(list(busy), timeout=_POLL_SECONDS)
            for reference in ready:
                actor = busy.pop(reference)
                if waiting:
                    busy[actor.fill.remote(waiting.popleft())] = actor
                else:
                    ray.kill(actor)  # its GPU may be what a restarted one waits for
                yield _result(ray, reference)
            done = store.runs.find(run.run_id).counts["retagged"]
            progress(done - seen)
            seen = done


class _Actor:
    """Works through ranges, with models and decoding processes that the first one starts."""

    def __init__(self, run: TaggingRun, since: datetime | None) -> None:
        os.nice(max(0, 10 - os.nice(0)))  # nights go first, on this machine, too
        self._run, self._since = run, since
        self._handed: deque[BacklogRange] = deque()
        self._filled: Iterator[Filled] | None = None
        self._open = ExitStack()

    def fill(self, part: BacklogRange) -> Filled:
        self._handed.append(part)
        if self._filled is None:
            here = self._open.enter_context(opened(Settings.from_environment()))
            parts = iter(self._handed.popleft, None)
            self._filled = backfill.worked_through(
                here, self._run, parts, self._since, lambda _: None
            )
        return next(self._filled)


@contextmanager
def _cluster(address: str | None, cpus: int) -> Iterator[Any]:
    """Connect to a cluster, or start one on loopback that ends with the block; yield `ray`."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address is None:
        # Ray's switch, read at its import, for a machine alone: all of it listens on loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    try:
        import ray
    except ImportError:
        raise RayError(
            "--engine ray needs Ray, which is not installed here: `uv pip install "
            "--require-hashes -r requirements-ray.lock`, on each machine of the cluster"
        ) from None
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        alone: dict[str, Any] = {
            "num_cpus": cpus,
            "object_store_memory": _OBJECT_STORE,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
        try:
            if address is not None:
                _check_port(address)
            ray.init(
                address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else alone),
            )
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise RayError(
                f"no Ray cluster answers at {address or 'this machine'} ({reason}): see "
                "`ray status` there, or leave out --address to use this machine"
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()


def _check_port(address: str) -> None:
    """Raise OSError where nothing listens at a host and port: Ray would try for many minutes."""
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator:
        socket.create_connection((host, int(port)), timeout=5).close()


def _resources(ray: Any, name: str) -> float:
    return float(ray.cluster_resources().get(name, 0))


def _result(ray: Any, reference: Any) -> Filled:
    """Return what an actor returned, or raise what it raised, without Ray's frames around it."""
    try:
        filled: Filled = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    return filled
