"""Paints one shoe: pose, colours, pattern, light and shadow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .shapes import (
    COLORS,
    CONTACT_SHADOW,
    TAGS,
    WIDE_SHADOW,
    Array,
    Color,
    Shape,
    choose_shape,
    curve,
)

_FINE = 3  # drawn this much larger, then reduced, for smooth edges


# --- Pose --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Pose:
    """How one shoe is seen: from outline units to pixels of the enlarged canvas."""

    shaft: float  # length of a shaft
    instep: float  # a soft bend of all outlines, so that no two shoes are equal
    depth: float  # how far the toe comes towards us: three-quarter views
    turn: float  # radians
    mirrored: bool
    offset: tuple[float, float] = (0.0, 0.0)  # of the second shoe of a pair, in units
    size: float = 1.0
    scale: float = 1.0  # pixels a unit
    origin: tuple[float, float] = (0.0, 0.0)

    def place(self, points: Array) -> Array:
        x, y = points[:, 0].copy(), points[:, 1].copy()
        y = np.where(y < 560, 560 - (560 - y) * self.shaft, y)
        y = y + self.instep * np.sin(x / 1000 * np.pi * 2) * np.clip((800 - y) / 300, 0, 1)
        nearer = self.depth * (500 - x) / 1000
        x = 500 + (x - 500) * (1 + nearer) * (1 - 0.35 * abs(self.depth))
        y = 800 + (y - 800) * (1 + nearer) + 180 * nearer
        x = (x - 500) * self.size + 500 + self.offset[0]
        y = (y - 800) * self.size + 800 + self.offset[1]
        if self.mirrored:
            x = 1000 - x
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        x, y = 500 + (x - 500) * cos - (y - 800) * sin, 800 + (x - 500) * sin + (y - 800) * cos
        return np.stack([x * self.scale + self.origin[0], y * self.scale + self.origin[1]], axis=1)


def _fit(poses: Sequence[_Pose], outline: Array, width: int, height: int) -> list[_Pose]:
    """Scale and move the shoes of a picture, together, so that they fill it but for a margin."""
    placed = np.concatenate([pose.place(outline) for pose in poses])
    low, high = placed.min(axis=0), placed.max(axis=0)
    room = np.array([width, height]) * np.array([0.90, 0.84])
    scale = float((room / (high - low)).min())
    middle = np.array([width, height]) * np.array([0.5, 0.49]) - (low + high) / 2 * scale
    return [
        replace(pose, scale=scale, origin=(float(middle[0]), float(middle[1]))) for pose in poses
    ]


# --- Paint -------------------------------------------------------------------------------------
_PAINT: dict[str, tuple[Color, ...]] = {
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
_PALE_LACE: Color = (0.93, 0.92, 0.90)
_GREY_LACE: Color = (0.55, 0.52, 0.48)
_DARK_LACE: Color = (0.16, 0.14, 0.13)
_PALE_LINING: Color = (0.80, 0.77, 0.74)
_LINING: Color = (0.74, 0.66, 0.56)
_STEEL: Color = (0.80, 0.79, 0.77)
_GOLD: Color = (0.86, 0.70, 0.36)


class _Canvas:
    """An enlarged picture, or a window of it: float32 (H, W, 3) in 0..1, painted from the back."""

    def __init__(self, pixels: Array, left: int = 0, top: int = 0) -> None:
        self.pixels = pixels
        self._corner = np.array([left, top])

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in enlarged pixels."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def window(self, curves: Sequence[Array], margin: float) -> _Canvas:
        """Return the part around some curves; what is painted there is painted here."""
        points = np.concatenate(curves) - self._corner
        left, top = np.clip(points.min(axis=0) - margin, 0, self.size).astype(int)
        right, bottom = np.clip(points.max(axis=0) + margin + 2, 2, self.size).astype(int)
        left, top = min(left, right - 2), min(top, bottom - 2)
        inner = self.pixels[top:bottom, left:right]
        return _Canvas(inner, left + int(self._corner[0]), top + int(self._corner[1]))

    def area(self, outlines: Iterable[Array]) -> Array:
        """Return the mask (H, W) of filled outlines, 0 or 1."""
        mask = Image.new("L", self.size)
        draw = ImageDraw.Draw(mask)
        for outline in outlines:
            draw.polygon([(float(x), float(y)) for x, y in outline - self._corner], fill=255)
        return np.asarray(mask, dtype=np.float32) / 255

    def lines(self, curves: Iterable[Array], width: float) -> Array:
        """Return the mask (H, W) of lines with round ends, `width` in pixels."""
        mask = Image.new("L", self.size)
        draw = ImageDraw.Draw(mask)
        for line in curves:
            points = [(float(x), float(y)) for x, y in line - self._corner]
            draw.line(points, fill=255, width=max(1, round(width)), joint="curve")
            for x, y in (points[0], points[-1]):
                r = width / 2
                draw.ellipse((x - r, y - r, x + r, y + r), fill=255)
        return np.asarray(mask, dtype=np.float32) / 255

    def paint(self, mask: Array, color: Color | Array, opacity: float = 1.0) -> None:
        alpha = (mask * opacity)[..., None]
        self.pixels += (np.asarray(color, dtype=np.float32) - self.pixels) * alpha

    def darken(self, mask: Array, amount: float) -> None:
        self.pixels *= 1 - amount * mask[..., None]

    def picture(self) -> Image.Image:
        pixels = (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
        return Image.fromarray(pixels).reduce(_FINE)


def _resize(field: Array, width: int, height: int) -> Array:
    image = Image.fromarray(np.ascontiguousarray(field, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _blur(field: Array, radius: float) -> Array:
    """Blur a mask (H, W) by about `radius` pixels."""
    height, width = field.shape
    step = int(radius / 4)
    if step < 2:  # Pillow's is quick, but its 256 levels would show in a wide blur's slope
        image = Image.fromarray((np.clip(field, 0, 1) * 255 + 0.5).astype(np.uint8))
        return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255
    small = _resize(field, max(1, width // step), max(1, height // step))
    reach = max(1, round(radius / step))
    for axis in (0, 1):
        for _ in range(3):
            pad = [(reach + 1, reach) if a == axis else (0, 0) for a in (0, 1)]
            total = np.cumsum(np.pad(small, pad, mode="edge"), axis=axis, dtype=np.float64)
            ends = np.take(total, range(2 * reach + 1, total.shape[axis]), axis=axis)
            starts = np.take(total, range(total.shape[axis] - 2 * reach - 1), axis=axis)
            small = ((ends - starts) / (2 * reach + 1)).astype(np.float32)
    return _resize(small, width, height)


def _noise(shape: tuple[int, ...], cell: float, rng: np.random.Generator) -> Array:
    """Return smooth noise (H, W) of about -1..1 whose bumps are `cell` pixels wide."""
    height, width = shape[:2]
    coarse = rng.normal(0, 0.6, (int(height / cell) + 3, int(width / cell) + 3))
    return _resize(coarse, width, height)


def _light(mask: Array, radius: float) -> Array:
    """Return how far a puffed-up area (H, W) faces the lamp, upper left: about -1..1."""
    down, right = np.gradient(_blur(mask, radius))
    lit: Array = (0.5 * right + 0.87 * down) * radius * 2.2
    return lit


def _dashes(curve: Array, dash: float, gap: float) -> list[Array]:
    """Cut a curve into stitches."""
    steps = np.hypot(*np.diff(curve, axis=0).T)
    along = np.concatenate([[0], np.cumsum(steps)])
    starts = np.arange(gap, along[-1] - dash, dash + gap)
    ends = np.stack([starts, starts + dash], axis=1)
    return [np.stack([np.interp(e, along, curve[:, i]) for i in (0, 1)], axis=1) for e in ends]


def _spaced(curve: Array, distance: float) -> Array:
    """Return points (N, 2) at equal distances on a curve."""
    return np.array([dash.mean(axis=0) for dash in _dashes(curve, distance * 0.5, distance * 0.5)])


def _pattern(shape: tuple[int, ...], unit: float, rng: np.random.Generator) -> Array:
    """Return a fabric's pattern (H, W), 0..1; `unit` is pixels an outline unit."""
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32) / np.float32(unit)
    angle = rng.uniform(-0.25, 0.25)
    x, y = x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)
    kind = rng.integers(6)
    period = rng.uniform(74, 104)
    if kind == 0:  # dots, every other row shifted
        row = np.floor(y / period * 1.15)
        u = (x / period + 0.5 * (row % 2)) % 1 - 0.5
        v = (y / period * 1.15) % 1 - 0.5
        return np.asarray(np.hypot(u, v) < 0.29, dtype=np.float32)
    if kind == 1:  # stripes
        return np.asarray(((x + 0.6 * y) / period) % 1 < 0.45, dtype=np.float32)
    if kind == 2:  # check
        wide = ((x / period) % 1 < 0.5) * 0.5 + ((y / period) % 1 < 0.5) * 0.5
        thin = ((x / period + 0.22) % 1 < 0.08) | ((y / period + 0.22) % 1 < 0.08)
        return np.asarray(np.maximum(wide, thin), dtype=np.float32)
    if kind == 3:  # zigzag
        wave = np.abs((x / period) % 1 - 0.5) * 0.9
        return np.asarray((y / period * 1.1 + wave) % 1 < 0.42, dtype=np.float32)
    if kind == 4:  # leopard: rings, broken by noise
        rough = _noise(shape, 30 * unit, rng) * 0.13
        row = np.floor(y / period * 1.1)
        u = (x / period + 0.5 * (row % 2) + rough) % 1 - 0.5
        v = (y / period * 1.1 + rough) % 1 - 0.5
        ring = np.abs(np.hypot(u, v) - 0.29) < 0.10
        return np.asarray(ring & (_noise(shape, 22 * unit, rng) > -0.42), dtype=np.float32)
    row = np.floor(y / period)  # flowers
    u = (x / period + 0.5 * (row % 2)) % 1 - 0.5
    v = (y / period) % 1 - 0.5
    radius, turn = np.hypot(u, v), np.arctan2(v, u)
    petals = radius < 0.27 + 0.13 * np.cos(5 * turn + row)
    return np.asarray(petals & (radius > 0.09), dtype=np.float32)


def _jitter(color: Color, rng: np.random.Generator) -> Color:
    r, g, b = np.clip(np.array(color) * rng.uniform(0.92, 1.06) + rng.normal(0, 0.008, 3), 0, 1)
    return float(r), float(g), float(b)


def _shaded(color: Color, factor: float) -> Color:
    r, g, b = (min(1.0, c * factor) for c in color)
    return r, g, b


def _brightness(color: Color) -> float:
    return 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2]


def _contrasting(color: Color, rng: np.random.Generator) -> Color:
    """Return a lighter or darker tone of the same hue, so that a pattern adds no colour tag."""
    bright = _brightness(color)
    if bright < 0.2:
        return _jitter((0.62, 0.60, 0.58), rng)
    if bright > 0.8:
        return _jitter((0.66, 0.68, 0.72), rng)
    if bright > 0.5:
        return _shaded(color, 0.55)
    r, g, b = (min(1.0, 1.7 * c) for c in color)
    return r + (1 - r) * 0.3, g + (1 - g) * 0.3, b + (1 - b) * 0.3


@dataclass(frozen=True)
class _Look:
    """Colours and materials of a picture, the same for both shoes of a pair."""

    main: Color
    second: Color | None
    pattern: Color | None
    sole: Color
    metal: Color
    shiny: bool
    leather: bool
    studded: bool
    grain: int  # seed of the textures


def _choose_look(tags: frozenset[str], shape: Shape, rng: np.random.Generator) -> _Look:
    # The first colour of a set cannot be known: the one that comes first in a shuffle is main.
    named = [c for c in COLORS if c in tags]
    rng.shuffle(named)
    shades = [_jitter(_PAINT[c][rng.integers(3)], rng) for c in named]
    if not shades:
        shades = [_jitter(_UNTAGGED[rng.integers(len(_UNTAGGED))], rng)]
    main, second = shades[0], shades[1] if len(shades) > 1 else None
    patterned = "patterned" in tags
    dark = _shaded(_DARK_SOLE, rng.uniform(0.8, 1.5))
    return _Look(
        main=main,
        second=None if patterned else second,
        pattern=(second or _contrasting(main, rng)) if patterned else None,
        sole=_jitter(_PALE_SOLE, rng) if shape.pale_sole else dark,
        metal=_GOLD if rng.random() < 0.4 else _STEEL,
        shiny="shiny" in tags,
        leather="leather" in tags,
        studded="studded" in tags,
        grain=int(rng.integers(2**31)),
    )


class _Painter:
    """Paints one shoe, part by part, on a canvas."""

    def __init__(self, canvas: _Canvas, shape: Shape, pose: _Pose, look: _Look) -> None:
        self._canvas, self._shape, self._pose, self._look = canvas, shape, pose, look
        self._unit = pose.scale * pose.size
        self._rng = np.random.default_rng(look.grain)

    def paint(self) -> None:
        shape, look = self._shape, self._look
        self._cast_shadow()
        for far in self._curves(shape.far):
            self._solid([far], _shaded(look.main, 0.62), 26)
        if shape.inside:
            self._inside()
        for sole in self._curves(shape.sole):
            self._solid([sole], look.sole, 16)
        for heel in self._curves(shape.heel):
            self._cover([heel], look.second or _shaded(look.main, 0.86), plain=True)
        if len(shape.upper) == 1:
            self._cover(self._curves(shape.upper), look.main)
        else:  # straps: every other one in the second colour
            for number, strap in enumerate(self._curves(shape.upper)):
                self._cover([strap], (look.second if number % 2 else None) or look.main)
        self._details()

    def _curves(self, paths: Iterable[str]) -> list[Array]:
        return [self._pose.place(curve(path)) for path in paths]

    def _cast_shadow(self) -> None:
        for path, blur, amount in ((WIDE_SHADOW, 34, 0.30), (CONTACT_SHADOW, 10, 0.40)):
            spot = self._curves([path])
            canvas = self._canvas.window(spot, 4 * blur * self._unit)
            canvas.darken(_blur(canvas.area(spot), blur * self._unit), amount)

    def _solid(self, outlines: list[Array], color: Color, radius: float) -> None:
        """Fill with one colour, softly lit."""
        canvas = self._canvas.window(outlines, 2 * radius * self._unit)
        mask = canvas.area(outlines)
        lit = _light(mask, radius * self._unit)
        shade = np.clip(1 + 0.42 * lit, 0.35, 1.5)[..., None] * np.asarray(color, np.float32)
        canvas.paint(mask, shade + 0.05 * np.clip(lit, 0, 1)[..., None])

    def _inside(self) -> None:
        opening = self._curves(self._shape.inside)
        canvas = self._canvas.window(opening, 60 * self._unit)
        mask = canvas.area(opening)
        deep = 1 - _blur(mask, 30 * self._unit)
        tone = _LINING if _brightness(self._look.main) < 0.75 else _PALE_LINING
        canvas.paint(mask, (0.38 + 0.5 * deep)[..., None] * np.asarray(tone, np.float32))

    def _cover(self, outlines: list[Array], color: Color, *, plain: bool = False) -> None:
        """Fill with the upper's material: panels (unless plain), pattern, light, texture, gloss."""
        look, unit, rng = self._look, self._unit, self._rng
        canvas = self._canvas.window(outlines, 100 * unit)
        mask = canvas.area(outlines)
        cloth = np.empty_like(canvas.pixels)
        cloth[:] = color
        edges = np.zeros_like(mask)
        for panel in [] if plain else self._curves(self._shape.panels):
            inner = canvas.area([panel])
            tone = np.asarray(look.second or _shaded(color, 0.9), np.float32)
            cloth += (tone - cloth) * inner[..., None]
            edges += _light(inner, 5 * unit)
        if look.pattern is not None:
            woven = _pattern(mask.shape, unit, np.random.default_rng(look.grain))
            cloth += (np.asarray(look.pattern, np.float32) - cloth) * woven[..., None]

        form, rim = _light(mask, 62 * unit), _light(mask, 12 * unit)
        shade = 1 + 0.40 * form + 0.22 * rim + 0.22 * np.clip(edges, -1, 1)
        sheen = 0.07 * np.clip(form, 0, 1) + 0.03 * np.clip(rim, 0, 1)
        if look.leather:
            worn = 1 - _blur(mask, 70 * unit)  # darker towards the edges, as if polished
            grain = 0.04 * _noise(mask.shape, 4 * unit, rng)
            grain += 0.03 * _noise(mask.shape, 11 * unit, rng)
            patina = 0.07 * _noise(mask.shape, 90 * unit, rng)
            shade = shade * (1.12 - 0.66 * worn + grain + patina)
            soft = np.exp(-(((form - 0.34) / 0.24) ** 2))
            sheen = sheen + 0.17 * soft * (1 + 6 * grain)
        elif not look.shiny:
            shade = shade + 0.03 * _noise(mask.shape, 3.5 * unit, rng)
        if look.shiny:
            shade = shade * (1 + 0.30 * form)
            wave = form + 0.04 * _noise(mask.shape, 110 * unit, rng)
            broken = np.clip(0.75 + 0.9 * _noise(mask.shape, 150 * unit, rng), 0, 1)
            glint = np.exp(-(((wave - 0.40) / 0.085) ** 2))
            echo = np.exp(-(((wave - 0.13) / 0.05) ** 2))
            bounce = np.exp(-(((wave + 0.42) / 0.09) ** 2))
            sheen = sheen + (0.95 * glint + 0.22 * echo) * broken + 0.20 * bounce
        lit = cloth * np.clip(shade, 0.25, 1.7)[..., None]
        # A highlight replaces the colour below it rather than adding to it.
        lit += (1 - lit) * np.clip(sheen, 0, 1)[..., None]
        outline = np.clip(1 - _blur(mask, 3 * unit), 0, 0.5) * 2
        canvas.paint(mask, lit * (1 - 0.22 * outline[..., None]))

    def _details(self) -> None:
        shape, look, unit = self._shape, self._look, self._unit
        outlines = self._curves(shape.upper)
        canvas = self._canvas.window(outlines, 40 * unit)
        upper = canvas.area(outlines)
        for gore in self._curves(shape.gores):
            ribs = 0.75 + 0.25 * np.sin(np.arange(canvas.size[0]) / unit / 14 * 2 * np.pi)
            tone = np.asarray((0.16, 0.15, 0.15)) * ribs[None, :, None]
            canvas.paint(canvas.area([gore]), tone.astype(np.float32))
        for trim in self._curves(shape.trims):
            around = self._canvas.window([trim], 40 * unit)
            mask, body = around.area([trim]), around.area(outlines)
            around.darken(np.clip(_blur(mask, 7 * unit) - mask, 0, 1) * body, 0.6)
            self._cover([trim], _shaded(look.second or look.main, 0.96), plain=True)
        seams = self._curves(shape.seams)
        if seams:
            canvas.darken(canvas.lines(seams, 4 * unit) * upper, 0.34)
        if look.leather:
            self._age(canvas, upper, seams)
        if shape.laces:
            self._lace(canvas)
        for line in self._curves(shape.metal):
            self._wire(canvas, [line], look.metal, 11)
        if look.studded:
            self._stud(canvas)

    def _age(self, canvas: _Canvas, upper: Array, seams: Sequence[Array]) -> None:
        """Add the creases and the stitching of leather."""
        unit = self._unit
        creases = self._curves(self._shape.creases)
        if creases:
            canvas.darken(_blur(canvas.lines(creases, 7 * unit), 4 * unit) * upper, 0.55)
            ridge = _blur(canvas.lines([c + 7 * unit for c in creases], 5 * unit), 4 * unit)
            canvas.paint(ridge * upper, (0.9, 0.85, 0.8), 0.28)
        thread = (0.84, 0.74, 0.55) if _brightness(self._look.main) < 0.5 else (0.45, 0.32, 0.20)
        stitches = [d for s in seams for d in _dashes(s + 7 * unit, 17 * unit, 11 * unit)]
        if stitches:
            canvas.paint(canvas.lines(stitches, 6.5 * unit) * upper, thread)

    def _lace(self, canvas: _Canvas) -> None:
        unit = self._unit
        (curve,) = self._curves([self._shape.laces])
        tone = _PALE_LACE if self._shape.pale_sole else _DARK_LACE
        if abs(_brightness(self._look.main) - _brightness(tone)) < 0.15:
            tone = _GREY_LACE
        across = np.array([-30.0 if self._pose.mirrored else 30.0, 14.0]) * unit
        cords = [np.stack([p - across, p + across]) for p in _spaced(curve, 44 * unit)]
        canvas.darken(_blur(canvas.lines(cords, 16 * unit), 4 * unit), 0.35)
        self._wire(canvas, cords, tone, 13)

    def _wire(self, canvas: _Canvas, curves: list[Array], color: Color, width: float) -> None:
        """Draw round cords or bars."""
        unit = self._unit
        mask = canvas.lines(curves, width * unit)
        canvas.darken(np.clip(_blur(mask, 3 * unit) - 0.3 * mask, 0, 1), 0.35)
        shade = np.clip(1 + 0.5 * _light(mask, 3 * unit), 0.4, 1.4)
        canvas.paint(mask, shade[..., None] * np.asarray(color, np.float32))

    def _stud(self, canvas: _Canvas) -> None:
        unit = self._unit
        points = np.concatenate([_spaced(c, 46 * unit) for c in self._curves(self._shape.studs)])
        turn = np.linspace(0, 2 * np.pi, 24)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=1) * unit

        def dots(radius: float, shift: float) -> Array:
            return canvas.area([point - shift * unit + circle * radius for point in points])

        canvas.darken(_blur(dots(17, -3), 3 * unit), 0.55)
        canvas.paint(dots(15, 0), _shaded(self._look.metal, 0.62))
        canvas.paint(dots(12, 1.5), self._look.metal)
        canvas.paint(dots(5, 4.5), (1.0, 1.0, 1.0))


def draw_shoe(tags: frozenset[str], rng: np.random.Generator, size: tuple[int, int]) -> Image.Image:
    """Draw a shoe, or a pair, that shows exactly `tags`; RGB, `size` = (width, height) pixels.

    The same tags and generator state give the same picture. Combinations that no shoe has (a
    flat with a shaft) give the nearest that there is; ValueError for a tag that is not in TAGS.
    """
    unknown = tags - set(TAGS)
    if unknown:
        raise ValueError(f"no shoe can be drawn as {', '.join(sorted(unknown))}")
    shape = choose_shape(tags, rng)
    look = _choose_look(tags, shape, rng)
    first = _Pose(
        shaft=rng.uniform(0.85, 1.5) if shape.tall else 1.0,
        instep=rng.uniform(-16, 16),
        depth=rng.choice([0.0, 0.12, 0.3, 0.45]) * rng.uniform(0.8, 1.2),
        turn=np.radians(rng.normal(0, 3.0)),
        mirrored=bool(rng.random() < 0.5),
    )
    poses = [first]
    if rng.random() < 0.2:
        second = replace(first, offset=(rng.uniform(110, 190), rng.uniform(-110, -60)), size=0.96)
        if rng.random() < 0.4:  # its partner seen from the other side
            second = replace(second, mirrored=not first.mirrored, turn=-first.turn)
        poses = [second, first]
    width, height = size
    backdrop = 1.0 if rng.random() < 0.7 else rng.uniform(0.94, 0.985)
    canvas = _Canvas(np.full((height * _FINE, width * _FINE, 3), backdrop, dtype=np.float32))
    outline = np.concatenate([curve(p) for p in (*shape.upper, *shape.sole, *shape.heel)])
    for pose in _fit(poses, outline, *canvas.size):
        _Painter(canvas, shape, pose, look).paint()
    return canvas.picture()
