import gzip
import os
import re
import struct
import tracemalloc
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl.data import LabelledImages, read_idx, read_idx_folder

TYPES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
SHARED = Path(os.environ.get("MINIDL_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
needs_mnist = pytest.mark.skipif(
    not (SHARED / "mnist-t10k").is_dir(), reason="MNIST is not there; MINIDL_SHARED_DATA can name its parent"
)


def idx(array):
    """Return the IDX file of an array."""
    kind = TYPES[array.dtype.str[1:]]
    header = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@given(
    array=st.sampled_from(sorted(TYPES)).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=4))
    ),
    zipped=st.booleans(),
)
def test_round_trip(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / "file"  # nothing in the name says whether it is gzipped
    path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    read = read_idx(path)
    numpy.testing.assert_array_equal(read, array, strict=True)
    assert read.dtype.isnative
    assert read.flags.writeable
    assert read.flags.c_contiguous


@pytest.mark.parametrize("zipped", [False, True])
def test_every_truncation_is_noticed(tmp_path, zipped):
    path = tmp_path / "file.idx"
    whole = idx(numpy.arange(12, dtype="i2").reshape(3, 4))
    whole = gzip.compress(whole) if zipped else whole
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"not an IDX file: it starts with the bytes \[\]"),
        (b"\x89PNG\r\n", "not an IDX file.*89 50 4e 47"),
        (b"\0\0\x0a\x01\0\0\0\0", "not an IDX file"),
        (b"\0\1\x08\x01\0\0\0\0", "not an IDX file"),
        (b"\0\0\x08\xff" + bytes(1020), "not an IDX file"),
        (
            idx(numpy.zeros((2, 3), "u1")) + b"!",
            r"has trailing bytes after the last value.*\(2, 3\) values of type uint8 take 6.*found 7",
        ),
        (
            idx(numpy.zeros((2, 3), "f8"))[:-1],
            r"is truncated.*\(2, 3\) values of type float64 take 48.*found 47",
        ),
        (b"\0\0\x08\x03" + b"\xff" * 12, "is truncated"),
        (b"\0\0\x0e\x03" + bytes(4) + b"\xff" * 8, "no array can have the shape"),
        (gzip.compress(idx(numpy.zeros(99, "u1")), mtime=0)[:-9], "damaged gzip"),
        (b"\x1f\x8bnot gzip at all", "damaged gzip"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "file.idx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")


@pytest.fixture
def images():
    return numpy.random.default_rng(0).integers(0, 256, (6, 28, 28)).astype("u1")


@pytest.fixture
def labels():
    return numpy.arange(6, dtype="u1")


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("zipped", [False, True])
def test_folder(tmp_path, images, labels, dot, zipped):
    def write(name, array):
        content = gzip.compress(idx(array)) if zipped else idx(array)
        (tmp_path / f"{name}{dot}idx{array.ndim}-ubyte{'.gz' if zipped else ''}").write_bytes(content)

    for part, count in (("train", 6), ("t10k", 3)):
        write(f"{part}-images", images[:count])
        write(f"{part}-labels", labels[:count])
    for part, count in zip(read_idx_folder(tmp_path), (6, 3), strict=True):
        assert isinstance(part, LabelledImages)
        assert part.images.shape == (count, 28, 28, 1)
        assert part.images.dtype == numpy.float32
        assert numpy.array_equal(part.images[..., 0], images[:count] / numpy.float32(255))
        assert numpy.array_equal(part.labels, labels[:count])
        assert part.labels.dtype == numpy.int64
        assert part.angles is None


def test_folder_with_only_the_test_set_is_halved_in_order(tmp_path, images, labels):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(labels))
    train, test = read_idx_folder(tmp_path)
    assert train.labels.tolist() == [0, 1, 2]
    assert test.labels.tolist() == [3, 4, 5]
    assert numpy.array_equal(numpy.concatenate([train.images, test.images])[..., 0] * 255, images)


def test_labels_are_optional(tmp_path, images):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    train, test = read_idx_folder(str(tmp_path))
    assert train.labels is None
    assert test.labels is None
    assert len(train.images) == len(test.images) == 3


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("t10k-images-idx3-ubyte", numpy.zeros((6, 28), "u1"), r"shape \(6, 28\); expected images"),
        ("t10k-images-idx3-ubyte", numpy.zeros((6, 28, 28), "f4"), "float32"),
        ("t10k-images-idx3-ubyte", numpy.zeros((1, 28, 28), "u1"), "too few to split"),
        (
            "t10k-labels-idx1-ubyte",
            numpy.zeros(5, "u1"),
            r"shape \(5,\); expected .* each of the 6 images",
        ),
        ("t10k-labels-idx1-ubyte", numpy.zeros((6, 1), "u1"), r"shape \(6, 1\)"),
        ("t10k-labels-idx1-ubyte", numpy.zeros(6, "f4"), "float32"),
    ],
)
def test_folder_with_wrong_files(tmp_path, images, name, array, message):
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx(images))
    (tmp_path / name).write_bytes(idx(array))
    with pytest.raises(ValueError, match=message) as caught:
        read_idx_folder(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_folder_without_the_files(tmp_path, images):
    with pytest.raises(FileNotFoundError, match=r"no test images.*t10k-images-idx3-ubyte"):
        read_idx_folder(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(images))
    with pytest.raises(FileNotFoundError, match="no test images"):
        read_idx_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        read_idx_folder(tmp_path / "nowhere")


@needs_mnist
def test_real_test_set_is_split_5000_to_5000():
    train, test = read_idx_folder(SHARED / "mnist-t10k")
    assert train.images.shape == test.images.shape == (5000, 28, 28, 1)
    assert train.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]  # as everyone knows
    assert numpy.concatenate([train.images, test.images]).mean() == pytest.approx(0.1325, abs=1e-4)


@needs_mnist
def test_real_training_set():
    labels = read_idx(SHARED / "mnist" / "train-labels-idx1-ubyte.gz")
    counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert numpy.bincount(labels).tolist() == counts
    images = read_idx(SHARED / "mnist" / "train-images-idx3-ubyte.gz")
    assert images.shape == (60000, 28, 28)
    assert images.dtype == numpy.uint8
    assert images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)


def test_a_gzipped_bomb_takes_no_memory(tmp_path):
    """A file of 200 kB that says 8 kB and unpacks to 200 MB."""
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\1" + struct.pack(">I", 8192) + bytes(200_000_000), 9))
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"bomb\.gz has trailing bytes after the last value"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("shape", [(2**32 - 1,), (2**32 - 1,) * 4, (60_000, 28, 28)])
def test_a_header_that_claims_too_much_takes_no_memory(tmp_path, pack, shape):
    path = tmp_path / "claims"
    path.write_bytes(
        pack(b"\0\0\x0e" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + bytes(99))
    )
    tracemalloc.start()
    with pytest.raises(ValueError, match="claims is truncated"):
        read_idx(path)
    assert tracemalloc.get_traced_memory()[1] < 3_000_000
    tracemalloc.stop()
