"""Folders of the data sets that are published like MNIST; the common ones are in test_idx.py."""

import gzip

import numpy
import pytest

from minidl.data import read_idx_folder
from tests.data.test_idx import idx


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 5, 4), dtype="u1")


def write(folder, **files):
    for name, array in files.items():
        content = idx(array)
        name = name.replace("__", ".")
        (folder / name.replace("_", "-")).write_bytes(
            gzip.compress(content) if name.endswith("gz") else content
        )


def test_emnist_is_turned_upright(tmp_path, images):
    labels = numpy.arange(1, 7, dtype="u1")
    write(
        tmp_path,
        **{
            "emnist-letters-train-images-idx3-ubyte__gz": images.swapaxes(1, 2),
            "emnist-letters-train-labels-idx1-ubyte__gz": labels,
            "emnist-letters-test-images-idx3-ubyte__gz": images[:2].swapaxes(1, 2),
            "emnist-letters-test-labels-idx1-ubyte__gz": labels[:2],
        },
    )
    train, test = read_idx_folder(tmp_path)
    numpy.testing.assert_allclose(train.images[..., 0], images / 255, rtol=1e-6)
    numpy.testing.assert_array_equal(train.labels, labels)
    assert test.images.shape == (2, 5, 4, 1)


def test_of_several_sets_one_is_named(tmp_path, images):
    for name in ("emnist-digits", "emnist-letters"):
        write(tmp_path, **{f"{name}-test-images-idx3-ubyte": images[: 2 if "digits" in name else 6]})
    with pytest.raises(
        ValueError, match="several data sets: pass name=, one of 'emnist-digits', 'emnist-letters'"
    ):
        read_idx_folder(tmp_path)
    first, second = read_idx_folder(tmp_path, "emnist-digits")
    assert len(first.images) + len(second.images) == 2
    with pytest.raises(FileNotFoundError, match="no files of 'mnist'; it has those of 'emnist-digits'"):
        read_idx_folder(tmp_path, "mnist")


def test_qmnist_has_more_than_the_class(tmp_path, images):
    labels = numpy.arange(48, dtype="i4").reshape(6, 8)
    write(
        tmp_path,
        **{
            "qmnist-train-images-idx3-ubyte": images,
            "qmnist-train-labels-idx2-int": labels,
            "qmnist-test-images-idx3-ubyte": images,
            "qmnist-test-labels-idx2-int__gz": labels + 1,
        },
    )
    train, test = read_idx_folder(tmp_path)
    numpy.testing.assert_array_equal(train.labels, [0, 8, 16, 24, 32, 40])
    numpy.testing.assert_array_equal(test.labels, [1, 9, 17, 25, 33, 41])
    numpy.testing.assert_allclose(train.images[..., 0], images / 255, rtol=1e-6)


def test_bytes_stay_bytes(tmp_path, images):
    write(tmp_path, **{"train-images-idx3-ubyte": images, "t10k-images-idx3-ubyte": images})
    train, _ = read_idx_folder(tmp_path, dtype="uint8")
    numpy.testing.assert_array_equal(train.images, images[..., None], strict=True)
    with pytest.raises(ValueError, match="float32 or uint8, got dtype 'float64'"):
        read_idx_folder(tmp_path, dtype="float64")
