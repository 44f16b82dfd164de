"""What a silhouette of a drawn shoe is made of, and the tags that shoes have."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

COLORS = ("black", "white", "red", "blue", "tan", "grey", "brown")
STYLES = ("boot", "heel", "sneaker", "sandal", "flat", "studded", "loafer")
DETAILS = ("patterned", "above_ankle", "below_ankle", "shiny", "leather")
TAGS = (*COLORS, *STYLES, *DETAILS)
Array = np.ndarray
Color = tuple[float, float, float]


# Outlines in SVG's path language (absolute M, L, C, Z), toe to the left. A shoe is about 850
# units long and stands on y = 800.
@dataclass(frozen=True)
class Shape:
    """One silhouette: outlines from back to front, and the curves that details follow."""

    upper: tuple[str, ...]  # in the main colour
    sole: tuple[str, ...]
    heel: tuple[str, ...] = ()  # covered like the upper, but darker
    far_side: tuple[str, ...] = ()  # of the upper, on the side away from the viewer
    inside: tuple[str, ...] = ()  # the lining that shows in the opening
    panels: tuple[str, ...] = ()  # on the upper; take the second colour where there is one
    trims: tuple[str, ...] = ()  # on the upper, in the main colour: bows, straps, pull tabs
    gores: tuple[str, ...] = ()  # elastic, always dark
    seams: tuple[str, ...] = ()
    creases: tuple[str, ...] = ()
    studs: tuple[str, ...] = ()
    laces: str = ""  # the curve that they cross
    metal: tuple[str, ...] = ()  # buckles and bits, as curves
    tall: bool = False  # has a shaft that may be longer or shorter
    pale_sole: bool = False


def curve(path: str) -> Array:
    """Return the points (N, 2) of an outline; Bézier curves become 20 short lines each."""
    points: list[Array] = []
    numbers: list[float] = []
    command = ""
    t = np.linspace(0, 1, 21)[1:, None]
    for token in path.split():
        if token.isalpha():
            command = token
            continue
        numbers.append(float(token))
        if command in "ML" and len(numbers) == 2:
            points.append(np.array([numbers]))
            numbers = []
        elif command == "C" and len(numbers) == 6:
            a, (b, c, d) = points[-1][-1], np.array(numbers).reshape(3, 2)
            points.append(
                (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
            )
            numbers = []
    return np.concatenate(points)
