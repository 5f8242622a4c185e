"""Figures: a notebook shows them by itself, and files have the format of their names."""

import pytest

from minidl import figures


@pytest.fixture
def figure():
    drawn = figures.Figure(figsize=(3, 2), dpi=50)
    drawn.add_subplot().plot([1, 2])
    return drawn


def test_a_notebook_gets_a_picture_of_twice_the_resolution(figure):
    png, size = figure._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size == {"width": 150, "height": 100}
    assert int.from_bytes(png[16:20]) == 300
    assert int.from_bytes(png[20:24]) == 200


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a", b"\x89PNG")])
def test_the_format_is_that_of_the_name(figure, tmp_path, name, start):
    figures.write(figure, tmp_path / name, dpi=30)
    assert (tmp_path / name).read_bytes().startswith(start)
    figures.write(figure, None, dpi=30)
    assert [path.name for path in tmp_path.iterdir()] == [name]
