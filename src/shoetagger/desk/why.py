"""Heat maps of why a picture has its scores, made by a process of its own.

The server itself neither imports torch nor decodes a picture. The process decodes in a worker, as
a night does, and ends with the answer; one is at work at a time, and what it found is kept a while.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from ..config.settings import Settings
from ..errors import ShoetaggerError, TransientError

# By name: importing it would import torch.
_MODULE = "shoetagger.tagging.explain"
_SECONDS = 90.0
_KEPT = 50  # pictures


class ExplanationError(ShoetaggerError):
    """There is no heat map of a picture; the message says why."""


class BusyError(TransientError):
    """Another heat map is being made."""


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


class Explainer:
    """Makes heat maps and keeps the last ones; for any number of threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._one_at_a_time = threading.Lock()
        self._kept: OrderedDict[tuple[str, tuple[str, ...]], dict[str, GroupMaps]] = OrderedDict()

    def explain(self, image_id: str, digests: Mapping[str, str]) -> Mapping[str, GroupMaps]:
        """Return the maps by group of a picture's predictions by the bundles `digests`.

        Takes some seconds the first time. Raises ExplanationError, or BusyError while another
        picture takes long.
        """
        key = image_id, tuple(digests.values())
        if (known := self._kept.get(key)) is not None:
            return known
        if not self._one_at_a_time.acquire(timeout=_SECONDS / 3):
            raise BusyError("heat maps of other pictures are being made: load the page again")
        try:
            if (known := self._kept.get(key)) is not None:
                return known
            found = self._run(image_id, digests)
            if not any(maps.fault for maps in found.values()):  # which may be mended
                self._kept[key] = found
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            return found
        finally:
            self._one_at_a_time.release()

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
