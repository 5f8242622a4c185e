"""Figures: a notebook shows them by itself, and files have the format of their names."""

import numpy
import pytest

import minidl as dl
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


def test_a_notebook_shows_every_picture_that_is_drawn():
    network = dl.Network([dl.Dense(3, 2, seed=0)])
    trainer = dl.Trainer(network, dl.softmax_cross_entropy, "adam", seed=0)
    x, y = numpy.eye(3, dtype="float32").repeat(4, 0), numpy.arange(12) % 2
    history = trainer.fit(x, y, epochs=2, batch_size=4, verbose=False)
    step = dl.compile(dl.exp)
    step(x)
    pictures = [
        history.plot(),
        network.plot(3),
        step.programs[0].plot(),
        trainer.find_learning_rate(x, y, batch_size=4).plot(),
        dl.plot_confusion_matrix(dl.confusion_matrix(trainer.predict(x), y)),
    ]
    assert {type(picture) for picture in pictures} == {figures.Figure}
