import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from minidl.data.glyphs import (
    GRID,
    REACH,
    STYLES,
    _extreme_points,
    _mean_stroke,
    _signed_distance,
    load_glyphs,
)

REPOSITORY = Path(__file__).resolve().parents[2]
SQUARE = numpy.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]], numpy.float32)
HOLE = (SQUARE / 2)[::-1]  # the other way round, as the inner contours of fonts are


def edges(*contours):
    return numpy.concatenate(contours), numpy.concatenate([numpy.roll(c, -1, axis=0) for c in contours])


@pytest.fixture(scope="module")
def grid():
    axis = numpy.linspace(-REACH, REACH, GRID)
    return numpy.meshgrid(axis, axis)  # x, y


def test_distance_from_a_square(grid):
    x, y = numpy.abs(grid)
    outside = numpy.hypot(numpy.maximum(x - 0.5, 0), numpy.maximum(y - 0.5, 0))
    inside = 0.5 - numpy.maximum(x, y)
    expected = numpy.where(inside > 0, inside, -outside)
    numpy.testing.assert_allclose(_signed_distance(*edges(SQUARE)), expected, atol=1e-6)


@pytest.mark.parametrize("direction", [1, -1])
def test_distance_from_a_frame(grid, direction):
    """Whichever way the contours go round, ink is between them."""
    contours = SQUARE[::direction], HOLE[::direction]
    distance = _signed_distance(*edges(*contours))
    across = numpy.maximum(*numpy.abs(grid))
    assert numpy.array_equal(distance > 0, (across > 0.25) & (across < 0.5))
    assert distance.max() <= 0.125 * 2**0.5  # in the corners


def test_contours_may_overlap(grid):
    left, right = SQUARE * [0.8, 1] - [0.2, 0], SQUARE * [0.8, 1] + [0.2, 0]
    distance = _signed_distance(*edges(left.astype(numpy.float32), right.astype(numpy.float32)))
    assert (distance[GRID // 2, numpy.abs(grid[0][0]) < 0.55] > 0).all()


def test_mean_stroke_of_a_bar():
    bar = SQUARE * numpy.float32([0.1, 1])
    assert _mean_stroke(*edges(bar)) == pytest.approx(2 * 0.1 / 2.2)


def test_extreme_points_span_the_outline():
    circle = numpy.linspace(0, 2 * numpy.pi, 500)
    points = numpy.stack([numpy.cos(circle), numpy.sin(circle)], axis=1).astype(numpy.float32)
    extremes = _extreme_points(points)
    assert extremes.shape == (32, 2)
    numpy.testing.assert_allclose(numpy.ptp(extremes, axis=0), 2, atol=1e-3)


def test_glyphs():
    glyphs = load_glyphs()
    assert glyphs.distance.shape == (len(STYLES), 10, GRID, GRID)
    assert glyphs.extremes.shape == (len(STYLES), 10, 32, 2)
    assert glyphs.stroke.shape == (len(STYLES), 10)
    assert glyphs.hairline.shape == (len(STYLES),)
    assert all(array.dtype == numpy.float32 for array in glyphs)
    assert (glyphs.stroke > 0.03).all()
    assert (glyphs.stroke < 0.25).all()
    assert (glyphs.hairline > 0.02).all()
    assert (glyphs.hairline < 0.2).all()


def test_every_glyph_is_centred_and_inside_its_field():
    glyphs = load_glyphs()
    low, high = glyphs.extremes.min(axis=2), glyphs.extremes.max(axis=2)
    numpy.testing.assert_allclose(low + high, 0, atol=0.01)
    assert (high < REACH).all()
    assert numpy.median(high[..., 1]) == pytest.approx(0.5, abs=0.01)
    border = glyphs.distance.copy()
    border[..., 1:-1, 1:-1] = -1
    assert (border < 0).all()


def test_digits_have_the_right_number_of_holes():
    """The one property of a digit that no style changes, but for a 4 that some leave open."""
    from scipy.ndimage import label

    for style, fields in enumerate(load_glyphs().distance):
        # Specks of a few points are the ends of narrow notches.
        parts = [numpy.bincount(label(field <= 0)[0].ravel())[1:] for field in fields]
        holes = [int((sizes > 4).sum()) - 1 for sizes in parts]
        assert holes[:4] + holes[5:] == [1, 0, 0, 0, 0, 1, 0, 2, 1], STYLES[style]
        assert holes[4] in (0, 1), STYLES[style]


def test_styles_differ():
    fields = load_glyphs().distance.reshape(len(STYLES), -1)
    for i in range(len(STYLES)):
        for j in range(i):
            assert numpy.abs(fields[i] - fields[j]).mean() > 1e-3, (STYLES[i], STYLES[j])


def test_the_slow_search_for_system_fonts_is_not_started():
    path = importlib.util.find_spec("minidl.data.glyphs").origin
    script = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('glyphs', sys.argv[1]);"
        "glyphs = importlib.util.module_from_spec(spec); spec.loader.exec_module(glyphs);"
        "glyphs.load_glyphs(); sys.exit('matplotlib.font_manager' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script, path], cwd=REPOSITORY, check=False).returncode == 0
