"""Colours, materials and patterns of the shoes of an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from .canvas import noise
from .shapes import COLORS, Array, Color, Shape

_SHADES: dict[str, tuple[Color, ...]] = {
    "black": ((0.10, 0.10, 0.11), (0.13, 0.12, 0.12), (0.08, 0.08, 0.10)),
    "white": ((0.95, 0.95, 0.94), (0.96, 0.95, 0.92), (0.93, 0.94, 0.96)),
    "red": ((0.78, 0.08, 0.12), (0.66, 0.05, 0.12), (0.86, 0.16, 0.14)),
    "blue": ((0.12, 0.26, 0.66), (0.10, 0.17, 0.42), (0.30, 0.50, 0.84)),
    "tan": ((0.83, 0.67, 0.46), (0.78, 0.60, 0.40), (0.87, 0.74, 0.56)),
    "grey": ((0.54, 0.55, 0.57), (0.62, 0.62, 0.63), (0.43, 0.44, 0.47)),
    "brown": ((0.38, 0.22, 0.13), (0.32, 0.18, 0.11), (0.45, 0.27, 0.15)),
}

_UNTAGGED: tuple[Color, ...] = ((0.16, 0.45, 0.30), (0.86, 0.55, 0.66), (0.55, 0.35, 0.60))
_DARK_SOLE: Color = (0.17, 0.14, 0.13)
_PALE_SOLE: Color = (0.90, 0.89, 0.86)
_STEEL: Color = (0.80, 0.79, 0.77)
_GOLD: Color = (0.86, 0.70, 0.36)


@dataclass(frozen=True)
class Look:
    """Colours and materials of a picture, the same for both shoes of a pair."""

    main: Color
    second: Color | None
    pattern: Color | None
    sole: Color
    metal: Color
    shiny: bool
    leather: bool
    studded: bool
    texture_seed: int  # seed of the textures


def choose_look(tags: frozenset[str], shape: Shape, rng: np.random.Generator) -> Look:
    # Tags have no order: a shuffle decides which colour is the main one.
    named = [c for c in COLORS if c in tags]
    rng.shuffle(named)
    shades = [_jitter(_SHADES[c][rng.integers(3)], rng) for c in named]
    if not shades:
        shades = [_jitter(_UNTAGGED[rng.integers(len(_UNTAGGED))], rng)]
    main, second = shades[0], shades[1] if len(shades) > 1 else None
    patterned = "patterned" in tags
    dark = shaded(_DARK_SOLE, rng.uniform(0.8, 1.5))
    return Look(
        main=main,
        second=None if patterned else second,
        pattern=(second or _contrasting(main, rng)) if patterned else None,
        sole=_jitter(_PALE_SOLE, rng) if shape.pale_sole else dark,
        metal=_GOLD if rng.random() < 0.4 else _STEEL,
        shiny="shiny" in tags,
        leather="leather" in tags,
        studded="studded" in tags,
        texture_seed=int(rng.integers(2**31)),
    )


def _jitter(color: Color, rng: np.random.Generator) -> Color:
    r, g, b = np.clip(np.array(color) * rng.uniform(0.92, 1.06) + rng.normal(0, 0.008, 3), 0, 1)
    return float(r), float(g), float(b)


def shaded(color: Color, factor: float) -> Color:
    r, g, b = (min(1.0, c * factor) for c in color)
    return r, g, b


def brightness(color: Color) -> float:
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]


def _contrasting(color: Color, rng: np.random.Generator) -> Color:
    """Return a lighter or darker tone of the same hue, so that a pattern adds no colour tag."""
    bright = brightness(color)
    if bright < 0.2:
        return _jitter((0.62, 0.60, 0.58), rng)
    if bright > 0.8:
        return _jitter((0.66, 0.68, 0.72), rng)
    if bright > 0.5:
        return shaded(color, 0.55)
    r, g, b = (min(1.0, 1.7 * c) for c in color)
    return r + (1 - r) * 0.3, g + (1 - g) * 0.3, b + (1 - b) * 0.3


def pattern(shape: tuple[int, ...], unit: float, rng: np.random.Generator) -> Array:
    """Return a fabric's pattern (H, W) in 0..1, one of six kinds; `unit` is pixels per unit."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / np.float32(unit)
    angle = rng.uniform(-0.25, 0.25)
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    kinds = (_dots, _stripes, _check, _zigzag, partial(_leopard, unit=unit, rng=rng), _flowers)
    kind = kinds[rng.integers(len(kinds))]
    return np.asarray(kind(x, y, rng.uniform(74, 104)), dtype=np.float32)


def _dots(x: Array, y: Array, period: float) -> Array:
    row = np.floor(y / period * 1.15)
    u = (x / period + 0.5 * (row % 2)) % 1 - 0.5  # every other row is shifted
    v = (y / period * 1.15) % 1 - 0.5
    dots: Array = np.hypot(u, v) < 0.29
    return dots


def _stripes(x: Array, y: Array, period: float) -> Array:
    return ((x + 0.6 * y) / period) % 1 < 0.45


def _check(x: Array, y: Array, period: float) -> Array:
    wide = ((x / period) % 1 < 0.5) * 0.5 + ((y / period) % 1 < 0.5) * 0.5
    thin = ((x / period + 0.22) % 1 < 0.08) | ((y / period + 0.22) % 1 < 0.08)
    return np.maximum(wide, thin)


def _zigzag(x: Array, y: Array, period: float) -> Array:
    wave = np.abs((x / period) % 1 - 0.5) * 0.9
    return (y / period * 1.1 + wave) % 1 < 0.42


def _leopard(x: Array, y: Array, period: float, *, unit: float, rng: np.random.Generator) -> Array:
    """Return rings that noise deforms and breaks."""
    rough = noise(x.shape, 30 * unit, rng) * 0.13
    row = np.floor(y / period * 1.1)
    u = (x / period + 0.5 * (row % 2) + rough) % 1 - 0.5
    v = (y / period * 1.1 + rough) % 1 - 0.5
    ring = np.abs(np.hypot(u, v) - 0.29) < 0.10
    return ring & (noise(x.shape, 22 * unit, rng) > -0.42)


def _flowers(x: Array, y: Array, period: float) -> Array:
    row = np.floor(y / period)
    u = (x / period + 0.5 * (row % 2)) % 1 - 0.5
    v = (y / period) % 1 - 0.5
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    petals = radius < 0.27 + 0.13 * np.cos(5 * angle + row)
    flowers: Array = petals & (radius > 0.09)
    return flowers
