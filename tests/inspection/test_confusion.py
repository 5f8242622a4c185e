import numpy
import pytest

import minidl as dl

MATRIX = [[8, 2, 0], [1, 0, 0], [0, 0, 0]]


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_what_it_shows():
    figure = dl.plot_confusion_matrix(MATRIX, ["cat", "dog", "owl"])
    axes = figure.axes[0]
    assert sorted(texts(figure)) == ["1", "2", "8"]  # zeros are left out
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat\n89%", "dog\n0%", "owl\n"]
    assert axes.get_title() == "72.73% of 11 right"
    shares = axes.images[0].get_array()
    numpy.testing.assert_allclose(shares, [[0.8, 0.2, 0], [1, 0, 0], [0, 0, 0]])


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_it_is_written(tmp_path, suffix, rng):
    matrix = dl.confusion_matrix(rng.normal(size=(30, 4)), rng.integers(0, 4, 30))
    path = tmp_path / f"confusion.{suffix}"
    dl.plot_confusion_matrix(matrix, path=path)
    assert path.stat().st_size > 1000


def test_what_is_no_matrix_of_classes_is_refused():
    with pytest.raises(ValueError, match=r"takes a matrix \(classes, classes\), got \(2, 3\)"):
        dl.plot_confusion_matrix(numpy.zeros((2, 3)))
    with pytest.raises(ValueError, match="3 classes, but 2 class_names"):
        dl.plot_confusion_matrix(MATRIX, ["cat", "dog"])
