"""Paints one shoe or a pair, part by part: uppers, soles, seams, laces, studs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from .canvas import OVERSAMPLING, Canvas, blur, dashes, noise, points_along, shading
from .looks import Look, brightness, choose_look, pattern, shaded
from .outlines import CONTACT_SHADOW, WIDE_SHADOW, choose_shape
from .pose import Pose, fit_poses
from .shapes import TAGS, Array, Color, Shape, curve

PALE_LACE: Color = (0.93, 0.92, 0.90)
GREY_LACE: Color = (0.55, 0.52, 0.48)
DARK_LACE: Color = (0.16, 0.14, 0.13)
PALE_LINING: Color = (0.80, 0.77, 0.74)
LINING: Color = (0.74, 0.66, 0.56)


class _Painter:
    """Paints one shoe, part by part, on a canvas."""

    def __init__(self, canvas: Canvas, shape: Shape, pose: Pose, look: Look) -> None:
        self._canvas, self._shape, self._pose, self._look = canvas, shape, pose, look
        self._unit = pose.scale * pose.size
        self._rng = np.random.default_rng(look.texture_seed)

    def paint(self) -> None:
        shape, look = self._shape, self._look
        self._draw_shadow()
        for part in self._curves(shape.far_side):
            self._fill([part], shaded(look.main, 0.62), 26)
        if shape.inside:
            self._draw_inside()
        for sole in self._curves(shape.sole):
            self._fill([sole], look.sole, 16)
        for heel in self._curves(shape.heel):
            self._fill_with_material([heel], look.second or shaded(look.main, 0.86), plain=True)
        if len(shape.upper) == 1:
            self._fill_with_material(self._curves(shape.upper), look.main)
        else:  # straps: every other one in the second colour
            for number, strap in enumerate(self._curves(shape.upper)):
                self._fill_with_material(
                    [strap], (look.second if number % 2 else None) or look.main
                )
        self._draw_details()

    def _curves(self, paths: Iterable[str]) -> list[Array]:
        return [self._pose.place(curve(path)) for path in paths]

    def _draw_shadow(self) -> None:
        for path, radius, amount in ((WIDE_SHADOW, 34, 0.30), (CONTACT_SHADOW, 10, 0.40)):
            spot = self._curves([path])
            canvas = self._canvas.window(spot, 4 * radius * self._unit)
            canvas.darken(blur(canvas.area(spot), radius * self._unit), amount)

    def _fill(self, outlines: list[Array], color: Color, radius: float) -> None:
        """Fill with one colour, softly lit."""
        canvas = self._canvas.window(outlines, 2 * radius * self._unit)
        mask = canvas.area(outlines)
        lit = shading(mask, radius * self._unit)
        shade = np.clip(1 + 0.42 * lit, 0.35, 1.5)[..., None] * np.asarray(color, np.float32)
        canvas.paint(mask, shade + 0.05 * np.clip(lit, 0, 1)[..., None])

    def _draw_inside(self) -> None:
        opening = self._curves(self._shape.inside)
        canvas = self._canvas.window(opening, 60 * self._unit)
        mask = canvas.area(opening)
        deep = 1 - blur(mask, 30 * self._unit)
        tone = LINING if brightness(self._look.main) < 0.75 else PALE_LINING
        canvas.paint(mask, (0.38 + 0.5 * deep)[..., None] * np.asarray(tone, np.float32))

    def _fill_with_material(
        self, outlines: list[Array], color: Color, *, plain: bool = False
    ) -> None:
        """Fill with the upper's material: panels (unless plain), pattern, light, texture, gloss."""
        unit = self._unit
        canvas = self._canvas.window(outlines, 100 * unit)
        mask = canvas.area(outlines)
        fabric, edges = self._fabric(canvas, mask, color, [] if plain else self._shape.panels)
        form, rim = shading(mask, 62 * unit), shading(mask, 12 * unit)
        shade = 1 + 0.40 * form + 0.22 * rim + 0.22 * np.clip(edges, -1, 1)
        gloss = 0.07 * np.clip(form, 0, 1) + 0.03 * np.clip(rim, 0, 1)
        if self._look.leather:
            shade, gloss = self._leather(mask, form, shade, gloss)
        elif not self._look.shiny:
            shade = shade + 0.03 * noise(mask.shape, 3.5 * unit, self._rng)
        if self._look.shiny:
            shade, gloss = self._patent(mask, form, shade, gloss)
        lit = fabric * np.clip(shade, 0.25, 1.7)[..., None]
        # A highlight replaces the colour below it rather than adding to it.
        lit += (1 - lit) * np.clip(gloss, 0, 1)[..., None]
        outline = np.clip(1 - blur(mask, 3 * unit), 0, 0.5) * 2
        canvas.paint(mask, lit * (1 - 0.22 * outline[..., None]))

    def _fabric(
        self, canvas: Canvas, mask: Array, color: Color, panels: Sequence[str]
    ) -> tuple[Array, Array]:
        """Return the colours (H, W, 3) of panels and pattern, and the shading of panels' edges."""
        look, unit = self._look, self._unit
        fabric = np.empty_like(canvas.pixels)
        fabric[:] = color
        edges = np.zeros_like(mask)
        for panel in self._curves(panels):
            inner = canvas.area([panel])
            tone = np.asarray(look.second or shaded(color, 0.9), np.float32)
            fabric += (tone - fabric) * inner[..., None]
            edges += shading(inner, 5 * unit)
        if look.pattern is not None:
            patterned = pattern(mask.shape, unit, np.random.default_rng(look.texture_seed))
            fabric += (np.asarray(look.pattern, np.float32) - fabric) * patterned[..., None]
        return fabric, edges

    def _leather(self, mask: Array, form: Array, shade: Array, gloss: Array) -> tuple[Array, Array]:
        """Return shade and gloss of leather: darker towards the edges, as if polished."""
        unit, rng = self._unit, self._rng
        worn = 1 - blur(mask, 70 * unit)
        grain = 0.04 * noise(mask.shape, 4 * unit, rng)
        grain += 0.03 * noise(mask.shape, 11 * unit, rng)
        patina = 0.07 * noise(mask.shape, 90 * unit, rng)
        soft = np.exp(-(((form - 0.34) / 0.24) ** 2))
        return shade * (1.12 - 0.66 * worn + grain + patina), gloss + 0.17 * soft * (1 + 6 * grain)

    def _patent(self, mask: Array, form: Array, shade: Array, gloss: Array) -> tuple[Array, Array]:
        """Return shade and gloss of a shiny surface: a sharp highlight and two fainter ones."""
        unit, rng = self._unit, self._rng
        wave = form + 0.04 * noise(mask.shape, 110 * unit, rng)
        broken = np.clip(0.75 + 0.9 * noise(mask.shape, 150 * unit, rng), 0, 1)
        sharp = np.exp(-(((wave - 0.40) / 0.085) ** 2))
        faint = np.exp(-(((wave - 0.13) / 0.05) ** 2))
        reflected = np.exp(-(((wave + 0.42) / 0.09) ** 2))
        highlights = (0.95 * sharp + 0.22 * faint) * broken + 0.20 * reflected
        return shade * (1 + 0.30 * form), gloss + highlights

    def _draw_details(self) -> None:
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
            around.darken(np.clip(blur(mask, 7 * unit) - mask, 0, 1) * body, 0.6)
            self._fill_with_material([trim], shaded(look.second or look.main, 0.96), plain=True)
        seams = self._curves(shape.seams)
        if seams:
            canvas.darken(canvas.lines(seams, 4 * unit) * upper, 0.34)
        if look.leather:
            self._draw_leather(canvas, upper, seams)
        if shape.laces:
            self._draw_laces(canvas)
        for line in self._curves(shape.metal):
            self._draw_cords(canvas, [line], look.metal, 11)
        if look.studded:
            self._draw_studs(canvas)

    def _draw_leather(self, canvas: Canvas, upper: Array, seams: Sequence[Array]) -> None:
        """Add the creases and the stitching of leather."""
        unit = self._unit
        creases = self._curves(self._shape.creases)
        if creases:
            canvas.darken(blur(canvas.lines(creases, 7 * unit), 4 * unit) * upper, 0.55)
            ridge = blur(canvas.lines([c + 7 * unit for c in creases], 5 * unit), 4 * unit)
            canvas.paint(ridge * upper, (0.9, 0.85, 0.8), 0.28)
        thread = (0.84, 0.74, 0.55) if brightness(self._look.main) < 0.5 else (0.45, 0.32, 0.20)
        stitches = [d for s in seams for d in dashes(s + 7 * unit, 17 * unit, 11 * unit)]
        if stitches:
            canvas.paint(canvas.lines(stitches, 6.5 * unit) * upper, thread)

    def _draw_laces(self, canvas: Canvas) -> None:
        unit = self._unit
        (curve,) = self._curves([self._shape.laces])
        tone = PALE_LACE if self._shape.pale_sole else DARK_LACE
        if abs(brightness(self._look.main) - brightness(tone)) < 0.15:
            tone = GREY_LACE
        across = np.array([-30.0 if self._pose.mirrored else 30.0, 14.0]) * unit
        cords = [np.stack([p - across, p + across]) for p in points_along(curve, 44 * unit)]
        canvas.darken(blur(canvas.lines(cords, 16 * unit), 4 * unit), 0.35)
        self._draw_cords(canvas, cords, tone, 13)

    def _draw_cords(self, canvas: Canvas, curves: list[Array], color: Color, width: float) -> None:
        """Draw round cords or bars."""
        unit = self._unit
        mask = canvas.lines(curves, width * unit)
        canvas.darken(np.clip(blur(mask, 3 * unit) - 0.3 * mask, 0, 1), 0.35)
        shade = np.clip(1 + 0.5 * shading(mask, 3 * unit), 0.4, 1.4)
        canvas.paint(mask, shade[..., None] * np.asarray(color, np.float32))

    def _draw_studs(self, canvas: Canvas) -> None:
        unit = self._unit
        points = np.concatenate(
            [points_along(c, 46 * unit) for c in self._curves(self._shape.studs)]
        )
        turn = np.linspace(0, 2 * np.pi, 24)
        circle = np.stack([np.cos(turn), np.sin(turn)], axis=1) * unit

        def dots(radius: float, shift: float) -> Array:
            return canvas.area([point - shift * unit + circle * radius for point in points])

        canvas.darken(blur(dots(17, -3), 3 * unit), 0.55)
        canvas.paint(dots(15, 0), shaded(self._look.metal, 0.62))
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
    look = choose_look(tags, shape, rng)
    first = Pose(
        shaft=rng.uniform(0.85, 1.5) if shape.tall else 1.0,
        bend=rng.uniform(-16, 16),
        depth=rng.choice([0.0, 0.12, 0.3, 0.45]) * rng.uniform(0.8, 1.2),
        rotation=np.radians(rng.normal(0, 3.0)),
        mirrored=bool(rng.random() < 0.5),
    )
    poses = [first]
    if rng.random() < 0.2:
        second = replace(first, offset=(rng.uniform(110, 190), rng.uniform(-110, -60)), size=0.96)
        if rng.random() < 0.4:  # its partner seen from the other side
            second = replace(second, mirrored=not first.mirrored, rotation=-first.rotation)
        poses = [second, first]
    width, height = size
    backdrop = 1.0 if rng.random() < 0.7 else rng.uniform(0.94, 0.985)
    canvas = Canvas(
        np.full((height * OVERSAMPLING, width * OVERSAMPLING, 3), backdrop, dtype=np.float32)
    )
    outline = np.concatenate([curve(p) for p in (*shape.upper, *shape.sole, *shape.heel)])
    for pose in fit_poses(poses, outline, *canvas.size):
        _Painter(canvas, shape, pose, look).paint()
    return canvas.image()
