"""Contact sheets: pictures with their names and tags, and what the colours of the tags mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

SHEET_IMAGES = 36
_COLUMNS = 6
_SHEET_WORDS = 4  # below a picture
_NAME_LENGTH = 24  # above it
# In inches.
_CELL, _PICTURE, _LINE = (1.9, 2.95), 1.82, 0.215
_ABOVE, _BELOW = 0.75, 0.6  # room for the title, and for what the colours mean


@dataclass(frozen=True)
class Colours:
    """A colour and its meaning for tags of both sets, of the predicted one alone, of the other."""

    both: tuple[str, str]
    added: tuple[str, str]
    missing: tuple[str, str]


# Predicted tags against true ones.
ANSWERS = Colours(
    both=("#1a7f37", "right"),
    added=("#cf222e", "+ predicted, and wrong"),
    missing=("#57606a", "- missed"),
)
# A model's tags against those of the model before it: neither is known to be right.
CHANGES = Colours(
    both=("#57606a", "as before"),
    added=("#0550ae", "+ gained"),
    missing=("#953800", "- lost"),
)


@dataclass(frozen=True)
class Shown:
    """A picture on a contact sheet: pixels (S, S, 3) uint8, true and predicted tags."""

    name: str
    pixels: np.ndarray
    true_tags: Sequence[str]
    predicted_tags: Sequence[str]


def contact_sheet(shown: Sequence[Shown], title: str, colours: Colours = ANSWERS) -> Figure:
    """Draw pictures with their names and tags, and below all of them what the colours mean.

    At most SHEET_IMAGES are drawn, the first of `shown`.
    """
    chosen = shown[:SHEET_IMAGES]
    rows = max(1, -(-len(chosen) // _COLUMNS))
    width, height = _COLUMNS * _CELL[0], rows * _CELL[1] + _ABOVE + _BELOW
    figure = Figure(figsize=(width, height))
    figure.suptitle(title, parse_math=False, y=1 - 0.1 / height, va="top")
    meanings = [Patch(color=color, label=words) for color, words in _of(colours)]
    figure.legend(handles=meanings, loc="lower center", ncols=len(meanings))
    # One area in inches for all pictures: laying out one per picture takes three times as long.
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    axes.axis("off")
    for number, image in enumerate(chosen):
        row, column = divmod(number, _COLUMNS)
        _draw(axes, image, colours, ((column + 0.5) * _CELL[0], row * _CELL[1] + _ABOVE))
    return figure


def _of(colours: Colours) -> tuple[tuple[str, str], ...]:
    return colours.both, colours.added, colours.missing


def _draw(axes: Axes, image: Shown, colours: Colours, place: tuple[float, float]) -> None:
    """Draw a picture with its words; the middle of its upper edge is at `place`."""
    middle, top = place
    left, bottom = middle - _PICTURE / 2, top + _PICTURE
    axes.imshow(image.pixels, extent=(left, left + _PICTURE, bottom, top), aspect="auto")
    axes.text(
        middle, top - 0.05, _shortened(image.name), fontsize=7, color="#57606a",
        ha="center", va="bottom", parse_math=False,
    )  # fmt: skip
    true, predicted = image.true_tags, image.predicted_tags
    # Differences first: where there is no room for all words, tags of both are left out.
    words = [(f"+{tag}", colours.added) for tag in predicted if tag not in true]
    words += [(f"-{tag}", colours.missing) for tag in true if tag not in predicted]
    words += [(tag, colours.both) for tag in predicted if tag in true]
    for line, (word, (color, _)) in enumerate(words[:_SHEET_WORDS]):
        # Below the picture, one word per line: matplotlib gives a text one colour.
        axes.text(
            middle, bottom + 0.05 + _LINE * line, word, color=color, fontsize=8,
            ha="center", va="top", parse_math=False,
        )  # fmt: skip


def _shortened(name: str) -> str:
    """Return a file name that fits above a picture: what it begins and ends with."""
    if len(name) <= _NAME_LENGTH:
        return name
    half = _NAME_LENGTH // 2
    return f"{name[: half - 1]}\N{HORIZONTAL ELLIPSIS}{name[-half:]}"
