"""Pictures of screens, small enough for a git repo."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page

from .plan import SCREENS

_WIDTH = 1280  # pixels; wider pictures are made smaller
_COLOURS = 160  # of the palette
_SETTLES = 2500  # milliseconds for what a page still draws


@dataclass
class Camera:
    """Takes the pictures of `SCREENS` into a folder."""

    folder: Path
    say: Callable[[str], None]

    def lacks(self, names: Iterable[str]) -> list[str]:
        """Return which of these pictures have not been taken."""
        return [name for name in names if not self._file(name).is_file()]

    def take(
        self, page: Page, name: str, *, height: int | None = None, part: Locator | None = None
    ) -> None:
        """Take what a page shows, or a part of it; with `height` in pixels, in so high a window."""
        assert name in SCREENS, f"plan.MOMENTS has no {name}"
        before = page.viewport_size
        assert before is not None
        if height is not None:
            page.set_viewport_size({"width": before["width"], "height": height})
        page.wait_for_timeout(_SETTLES)
        small((part or page).screenshot()).save(self._file(name), optimize=True)
        page.set_viewport_size(before)
        self.say(f"      picture of {SCREENS[name]}")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.png"


def small(png: bytes) -> Image.Image:
    """Return a picture as wide as pages show it, with a palette."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    if image.width > _WIDTH:
        size = _WIDTH, round(image.height * _WIDTH / image.width)
        image = image.resize(size, Image.Resampling.LANCZOS)
    return image.quantize(_COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
