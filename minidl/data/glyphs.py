"""The digits of the fonts that matplotlib ships, as signed distance fields.

A distance field holds, at each point of a grid, how far the glyph's outline is away: positive in the ink,
negative outside. A glyph drawn from it may be scaled and turned like a picture, and its stroke becomes
heavier or lighter by adding one number to the distances.

Only font files inside the matplotlib package are used, never the system's, so every machine with the
same matplotlib has the same glyphs. matplotlib.ft2font alone is imported: its font manager would search
the machine for fonts first, which takes seconds.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import NamedTuple

import numpy

# Font file, and the character that is its zero; the other nine digits follow it. All of them are proper
# digits: the fonts left out have symbols there (cmsy10, cmex10), none, or a copy of one of these; cmti10 is
# new in matplotlib 3.11, and the images must not depend on the version.
STYLES = (
    ("DejaVuSans", "0"),
    ("DejaVuSans-Oblique", "0"),
    ("DejaVuSans-Bold", "0"),
    ("DejaVuSans-BoldOblique", "0"),
    ("DejaVuSansMono", "0"),
    ("DejaVuSansMono-Oblique", "0"),
    ("DejaVuSansMono-Bold", "0"),
    ("DejaVuSansMono-BoldOblique", "0"),
    ("DejaVuSerif", "0"),
    ("DejaVuSerif-Italic", "0"),
    ("DejaVuSerif-Bold", "0"),
    ("DejaVuSerif-BoldItalic", "0"),
    ("STIXGeneral", "0"),
    ("STIXGeneralItalic", "0"),
    ("STIXGeneralBol", "0"),
    ("STIXGeneralBolIta", "0"),
    ("STIXGeneral", "\N{MATHEMATICAL SANS-SERIF DIGIT ZERO}"),
    ("STIXGeneral", "\N{MATHEMATICAL SANS-SERIF BOLD DIGIT ZERO}"),
    ("STIXGeneral", "\N{MATHEMATICAL MONOSPACE DIGIT ZERO}"),
    ("cmr10", "0"),
    ("cmb10", "0"),
    ("cmss10", "0"),
    ("cmtt10", "0"),
    ("cmmi10", "0"),  # old-style figures: 0, 1 and 2 are small, 3, 4, 5, 7 and 9 hang below the line
)

GRID = 64  # points per side of a distance field
REACH = 0.8  # a field covers -REACH..REACH in both directions, in units of the font's digit height
_DIRECTIONS = 32  # extreme points kept per glyph


class Glyphs(NamedTuple):
    """All digits in all styles; lengths are in units of the font's digit height, y pointing down."""

    distance: (
        numpy.ndarray
    )  # (styles, 10, GRID, GRID) float32: [style, digit, row, column], positive in the ink
    extremes: numpy.ndarray  # (styles, 10, 32, 2) float32: points (x, y) whose hull is nearly the glyph's
    stroke: numpy.ndarray  # (styles, 10) float32: mean width of the strokes
    hairline: numpy.ndarray  # (styles,) float32: width of the style's thinnest strokes


@lru_cache(maxsize=1)
def load_glyphs() -> Glyphs:
    """Return the digits 0 to 9 in every style of ``STYLES``."""
    distance = numpy.empty((len(STYLES), 10, GRID, GRID), numpy.float32)
    extremes = numpy.empty((len(STYLES), 10, _DIRECTIONS, 2), numpy.float32)
    stroke = numpy.empty((len(STYLES), 10), numpy.float32)
    hairline = numpy.empty(len(STYLES), numpy.float32)
    for i, (font, zero) in enumerate(STYLES):
        outlines = _digit_outlines(font, zero)
        hairline[i] = _wall_at_top(*outlines[0])
        for digit, contours in enumerate(outlines):
            start, end = _edges(contours)
            distance[i, digit] = _signed_distance(start, end)
            extremes[i, digit] = _extreme_points(start)
            stroke[i, digit] = _mean_stroke(start, end)
    return Glyphs(distance, extremes, stroke, hairline)


def _digit_outlines(font: str, zero: str) -> list[list[numpy.ndarray]]:
    """Return ten digits, each a list of closed contours (points, 2), centred and scaled to height 1."""
    import matplotlib
    from matplotlib import ft2font
    from matplotlib.path import Path as Outline

    # The flag has moved in matplotlib 3.10.
    moved = hasattr(ft2font, "LoadFlags")
    as_drawn = ft2font.LoadFlags.NO_HINTING if moved else vars(ft2font)["LOAD_NO_HINTING"]
    face = ft2font.FT2Font(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", f"{font}.ttf"))
    face.set_size(face.units_per_EM, 72)  # one pixel is one unit of the font: no coordinate is rounded
    digits = []
    for digit in range(10):
        face.load_char(ord(zero) + digit, flags=as_drawn)
        points, codes = face.get_path()
        # Outline splits curves into as many pieces as a picture of the size it is given needs.
        outline = Outline(points * (100 / face.units_per_EM), codes)
        contours = [numpy.asarray(contour) for contour in outline.to_polygons()]
        if digit == 0:  # the outer contour, then the inner, without the dot that some fonts put inside
            contours = sorted(contours, key=lambda contour: -numpy.ptp(contour[:, 1]))[:2]
        digits.append(contours)
    height = numpy.median([numpy.ptp(numpy.concatenate(contours)[:, 1]) for contours in digits])
    return [_centred(contours, height) for contours in digits]


def _centred(contours: list[numpy.ndarray], height: float) -> list[numpy.ndarray]:
    points = numpy.concatenate(contours)
    centre = (points.min(axis=0) + points.max(axis=0)) / 2
    return [(contour - centre) * [1 / height, -1 / height] for contour in contours]


def _edges(contours: list[numpy.ndarray]) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return where the outline's edges start and end, two arrays (edges, 2), without edges of no length."""
    start = numpy.concatenate([contour[:-1] for contour in contours])
    end = numpy.concatenate([contour[1:] for contour in contours])
    proper = (start != end).any(axis=1)
    return start[proper].astype(numpy.float32), end[proper].astype(numpy.float32)


def _signed_distance(start: numpy.ndarray, end: numpy.ndarray) -> numpy.ndarray:
    """Return the distance from each point of the grid to the nearest edge, negative outside the ink."""
    axis = numpy.linspace(-REACH, REACH, GRID, dtype=numpy.float32)
    x, y = axis[None, :, None], axis[:, None, None]
    from_x, from_y = x - start[:, 0], y - start[:, 1]  # (1, GRID, edges), (GRID, 1, edges)
    along_x, along_y = (end - start).T
    # The foot of the perpendicular, as a fraction of the edge, clipped to its ends.
    length = along_x**2 + along_y**2
    foot = numpy.clip(from_x * (along_x / length) + from_y * (along_y / length), 0, 1)
    squared = (from_x - foot * along_x) ** 2 + (from_y - foot * along_y) ** 2
    # A point is in the ink if the outline winds around it: each edge that a ray to the right crosses
    # counts +1 or -1 for its direction.
    crossing_x = start[:, 0] + from_y * (along_x / numpy.where(along_y == 0, 1, along_y))
    crossed = ((start[:, 1] <= y) != (end[:, 1] <= y)) & (crossing_x > x)
    winding = crossed @ numpy.sign(along_y)
    distance: numpy.ndarray = numpy.sqrt(squared.min(axis=-1))
    return distance * numpy.where(numpy.abs(winding) > 0.5, 1, -1)


def _wall_at_top(outer: numpy.ndarray, inner: numpy.ndarray) -> float:
    """Return how thick a zero is at its top, where every font has its thin strokes."""
    return float(inner[:, 1].min() - outer[:, 1].min())


def _extreme_points(points: numpy.ndarray) -> numpy.ndarray:
    """Return the outermost point in each of 32 directions, (32, 2)."""
    angle = numpy.arange(_DIRECTIONS) * (2 * numpy.pi / _DIRECTIONS)
    outermost = (points @ numpy.stack([numpy.cos(angle), numpy.sin(angle)])).argmax(axis=0)
    extremes: numpy.ndarray = points[outermost]
    return extremes


def _mean_stroke(start: numpy.ndarray, end: numpy.ndarray) -> float:
    """Return twice the area over the perimeter: the width, if the glyph is one long stroke."""
    area = abs((start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0]).sum()) / 2
    return float(2 * area / numpy.sqrt(((end - start) ** 2).sum(axis=1)).sum())
