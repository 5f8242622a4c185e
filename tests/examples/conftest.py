"""What the tests of the examples share."""

import gzip
import struct

import numpy
import pytest


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory):
    """A tiny data set in MNIST's format: bright squares at random places."""
    folder = tmp_path_factory.mktemp("idx")
    rng = numpy.random.default_rng(0)
    for name, count in (("train", 400), ("t10k", 200)):
        images = numpy.zeros((count, 28, 28), "uint8")
        for image, (row, column) in zip(images, rng.integers(0, 20, (count, 2)), strict=True):
            image[row : row + 8, column : column + 8] = 200
        content = struct.pack(">IIII", 0x803, count, 28, 28) + images.tobytes()
        with gzip.open(folder / f"{name}-images-idx3-ubyte.gz", "wb") as file:
            file.write(content)
    return folder
