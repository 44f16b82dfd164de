"""Heat maps of why a picture has its scores, made by a process of its own.

The server itself neither imports torch nor decodes a picture. The process decodes in a worker, as
a night does, and ends with the answer; one is at work at a time, few may wait for it, and what it
found is kept a while.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from ..config.settings import Settings
from ..errors import ShoetaggerError, TransientError

# By name: importing it would import torch.
_MODULE = "shoetagger.tagging.explain"
_SECONDS = 90.0
_KEPT = 50  # pictures
# That a fault is kept: the page's images come next, and then it may be mended.
_FAULT_SECONDS = 10.0
# Requests that wait, or make a map: each holds one of the 40 threads that all of Airflow's share.
_AT_ONCE = 4


class ExplanationError(ShoetaggerError):
    """There is no heat map of a picture; the message says why."""


class BusyError(TransientError):
    """Heat maps of other pictures are being made."""


@dataclass(frozen=True)
class TagMap:
    """Why one tag has its score: `png` shows what places add to it (warm) or take away (cold)."""

    score: float  # as the process computed it, in float32
    png: bytes


@dataclass(frozen=True)
class GroupMaps:
    """The maps of a group's tags, or the reason why there are none.

    They lie over `view`, a JPEG, or over the whole picture on a square where that is None.
    """

    digest: str
    tags: Mapping[str, TagMap]
    view: bytes | None = None
    fault: str | None = None


_Key = tuple[str, tuple[str, ...]]  # an image id, and the digests of bundles


class Explainer:
    """Makes heat maps and keeps the last ones; for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._few = threading.BoundedSemaphore(_AT_ONCE)
        self._one_at_a_time = threading.Lock()
        self._kept: OrderedDict[_Key, tuple[float, dict[str, GroupMaps]]] = OrderedDict()

    def explain(self, image_id: str, digests: Mapping[str, str]) -> Mapping[str, GroupMaps]:
        """Return the maps by group of a picture's predictions by the bundles `digests`.

        Takes some seconds the first time. Raises ExplanationError, or BusyError while other
        pictures take long or many wait.
        """
        key = image_id, tuple(digests.values())
        if (known := self._known(key)) is not None:
            return known
        busy = BusyError("heat maps of other pictures are being made: load the page again")
        if not self._few.acquire(blocking=False):
            raise busy
        try:
            if not self._one_at_a_time.acquire(timeout=_SECONDS / 3):
                raise busy
            try:
                if (known := self._known(key)) is not None:
                    return known
                found = self._run(image_id, digests)
                self._kept[key] = time.monotonic(), found
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
                return found
            finally:
                self._one_at_a_time.release()
        finally:
            self._few.release()

    def _known(self, key: _Key) -> dict[str, GroupMaps] | None:
        """Return what was found before, unless it has a fault that may be mended by now."""
        made, found = self._kept.get(key, (0.0, None))
        if found is None or not any(maps.fault for maps in found.values()):
            return found
        return found if time.monotonic() - made < _FAULT_SECONDS else None

    def _run(self, image_id: str, digests: Mapping[str, str]) -> dict[str, GroupMaps]:
        pairs = [f"{group}={digest}" for group, digest in digests.items()]
        environment = os.environ | self._settings.as_environment()
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        try:
            done = subprocess.run(
                [sys.executable, "-m", _MODULE, image_id, *pairs],
                env=environment,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ExplanationError(
                f"making the heat map takes longer than {_SECONDS:g} s: try again when the machine "
                "has less to do"
            ) from None
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise ExplanationError(f"there is no heat map: {reason[0]}")
        return {group: _group(found) for group, found in json.loads(done.stdout).items()}


def _group(found: Mapping[str, object]) -> GroupMaps:
    tags = found["tags"]
    assert isinstance(tags, dict)
    return GroupMaps(
        digest=str(found["digest"]),
        tags={
            tag: TagMap(float(one["score"]), base64.b64decode(one["png"]))
            for tag, one in tags.items()
        },
        view=None if found["view"] is None else base64.b64decode(str(found["view"])),
        fault=None if found["fault"] is None else str(found["fault"]),
    )
