import logging
import re
import struct
import zlib

import numpy
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st

from minidl.data import LabelledImages, read_mat

N = 30


@pytest.fixture
def images():
    return numpy.random.default_rng(0).integers(0, 256, (28, 28, 1, N)) / 255


@pytest.fixture
def angles():
    return numpy.random.default_rng(1).integers(-45, 46, (N, 1)).astype(numpy.int16)


@pytest.fixture
def labels():
    return numpy.random.default_rng(2).permutation(N) % 10


@pytest.fixture
def path(tmp_path):
    return tmp_path / "digits.mat"


@pytest.mark.parametrize("part", ["Train", "Test"])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_originals_layout(path, images, angles, part, compressed):
    scipy.io.savemat(path, {f"X{part}": images, f"angles{part}": angles}, do_compression=compressed)
    read = read_mat(path)
    assert isinstance(read, LabelledImages)
    assert read.images.shape == (N, 28, 28, 1)
    assert read.images.dtype == numpy.float32
    assert read.images.flags.c_contiguous
    assert read.angles.dtype == numpy.int16
    assert read.angles.tolist() == angles[:, 0].tolist()
    assert read.labels is None


def test_rows_are_rows_and_columns_columns(path):
    """A bar near the top, longer to the right, of the third image."""
    x = numpy.zeros((28, 28, 1, 5))
    x[4, 10:25, 0, 2] = 1.0
    scipy.io.savemat(path, {"XTrain": x})
    image = read_mat(path).images[2, :, :, 0]
    rows, columns = image.nonzero()
    assert set(rows.tolist()) == {4}
    assert columns.tolist() == list(range(10, 25))


def test_memory_order_of_the_file(path):
    """Values in a MAT file run down the columns first: written here by hand, not by scipy."""
    height, width, count = 3, 2, 4
    values = numpy.arange(height * width * count, dtype=float)
    path.write_bytes(mat_file(double("XTest", (height, width, 1, count), values)))
    read = read_mat(path).images[..., 0]
    for n in range(count):
        for column in range(width):
            assert read[n, :, column].tolist() == [
                height * (width * n + column) + row for row in range(height)
            ]


def test_single_image(path, images):
    scipy.io.savemat(path, {"XTest": images[:, :, 0, 0]})  # MATLAB drops trailing axes of length 1
    assert numpy.array_equal(read_mat(path).images[0, :, :, 0], images[:, :, 0, 0].astype("f4"))


@pytest.mark.parametrize("dtype", ["u1", "f8", "i2"])
def test_numeric_labels(path, images, labels, dtype):
    scipy.io.savemat(path, {"XTrain": images, "labelsTrain": labels[:, None].astype(dtype)})
    read = read_mat(path)
    assert read.labels.dtype == numpy.int64
    assert read.labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    "wrong", [numpy.arange(7.0), numpy.full((N, 1), 0.5), numpy.full((N, 1), "a"), "text"]
)
def test_useless_labels_are_left_out_with_a_note(path, images, wrong, caplog):
    scipy.io.savemat(path, {"XTrain": images, "labelsTrain": wrong})
    with caplog.at_level(logging.INFO, "minidl.data.mat"):
        assert read_mat(path).labels is None
    assert "labelsTrain" in caplog.text


X = numpy.zeros((28, 28, 1, 5))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"XTrain": X[:, :, 0]}, r"XTrain of .* shape \(28, 28, 5\); expected \(height, width, 1, N\)"),
        ({"XTrain": X.T}, r"shape \(5, 1, 28, 28\)"),
        ({"XTrain": X[..., :0]}, r"shape \(28, 28, 1, 0\)"),
        ({"XTrain": X.astype("u1")}, "holds uint8 values; expected double"),
        ({"XTrain": "text"}, "XTrain of .* holds char"),
        ({"XTrain": {"a": 1}}, "XTrain of .* holds struct"),
        ({"XTrain": scipy.sparse.eye_array(5).tocsc()}, "XTrain of .* holds sparse"),
        ({"XTrain": X + numpy.nan}, "XTrain of .* 3920 of 3920 .* NaN"),
        ({"XTrain": X + 1e300}, "XTrain of .* 3920 of 3920 .* infinite"),
        ({"XTrain": X, "anglesTrain": numpy.zeros((4, 1))}, r"anglesTrain of .* shape \(4, 1\); expected 5"),
        ({"XTrain": X, "anglesTrain": numpy.full((5, 1), 0.5)}, "anglesTrain of .* fractions"),
        ({"XTrain": X, "anglesTrain": numpy.full((5, 1), 70_000)}, "too large for int16"),
        ({"XTrain": X, "anglesTrain": numpy.full((5, 1), 1e300)}, "too large for int16"),
        ({"XTrain": X, "anglesTrain": numpy.full((5, 1), numpy.nan)}, "anglesTrain of .* NaN"),
        ({"XTrain": X, "XTest": X}, "both XTrain and XTest"),
        ({"digits": 1, "angles": 2}, "no XTrain and no XTest; it has digits, angles"),
        ({}, "no XTrain and no XTest; it has no variables"),
    ],
)
def test_wrong_variables(path, variables, message):
    scipy.io.savemat(path, variables)
    with pytest.raises(ValueError, match=message) as caught:
        read_mat(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a MAT file"),
        (b"a,b\n1,2\n" * 50, "not a MAT file"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"\xff" * 100, "damaged MAT file"),
    ],
)
def test_other_files(path, content, message):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_mat(path)
    assert str(path) in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_mat(tmp_path / "nowhere.mat")


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["cut", "flip"]))
def test_damage_is_a_clear_error_or_harmless(tmp_path_factory, at, value, damage):
    path = tmp_path_factory.mktemp("mat") / "digits.mat"
    x = numpy.random.default_rng(0).integers(0, 256, (28, 28, 1, 5)) / 255
    scipy.io.savemat(path, {"XTrain": x, "anglesTrain": numpy.zeros((5, 1), "i2")}, do_compression=True)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[: at % len(content)]
    else:
        content[at % len(content)] ^= 1 + value % 255
    path.write_bytes(content)
    try:
        read = read_mat(path)
    except ValueError as error:
        if str(path) not in str(error):
            raise
    else:
        assert numpy.array_equal(read.images[..., 0], x[:, :, 0].transpose(2, 0, 1).astype("f4"))


# From here on: labels that are a MATLAB categorical. The builders write MAT 5.0 by hand, in either order of
# bytes, as MATLAB does: https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf for the format,
# https://github.com/foreverallama/matio for objects, which that leaves out.

INT8, UINT8, INT32, UINT32, DOUBLE, MATRIX, COMPRESSED, UTF8 = 1, 2, 5, 6, 9, 14, 15, 16
CELL, STRUCT, CHAR, UINT8_CLASS, DOUBLE_CLASS, UINT32_CLASS, OPAQUE = 1, 2, 4, 9, 6, 13, 17


def element(kind, content, order="<"):
    padding = b"" if kind == COMPRESSED else bytes(-len(content) % 8)
    return struct.pack(f"{order}2I", kind, len(content)) + content + padding


def matrix(kind, *parts, order="<"):
    return element(
        MATRIX, element(UINT32, struct.pack(f"{order}2I", kind, 0), order) + b"".join(parts), order
    )


def shaped(kind, name, shape, *parts, order="<"):
    dimensions = element(INT32, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return matrix(kind, dimensions, element(INT8, name.encode(), order), *parts, order=order)


def double(name, shape, values, order="<"):
    content = numpy.asarray(values, f"{order}f8").tobytes()
    return shaped(DOUBLE_CLASS, name, shape, element(DOUBLE, content, order), order=order)


def uint8(values, shape=None, name="", order="<"):
    shape = shape or (len(values), 1)
    return shaped(UINT8_CLASS, name, shape, element(UINT8, bytes(list(values)), order), order=order)


def text(value, order="<"):
    return shaped(CHAR, "", (1, len(value)), element(UTF8, value.encode(), order), order=order)


def cell(items, order="<"):
    return shaped(CELL, "", (len(items), 1), *items, order=order)


def opaque(name, class_name, content, order="<"):
    strings = [element(INT8, value.encode(), order) for value in (name, "MCOS", class_name)]
    return matrix(OPAQUE, *strings, content, order=order)


def struct_with_one_field(field, content, order="<"):
    length = element(INT32, struct.pack(f"{order}i", len(field) + 1), order)
    names = element(INT8, field.encode() + b"\0", order)
    return shaped(STRUCT, "", (1, 1), length, names, content, order=order)


def categorical(name, order="<"):
    """Return the variable itself: only a reference to object 1 of class 1."""
    reference = struct.pack(f"{order}6I", 0xDD000000, 2, 1, 1, 1, 1)
    content = shaped(UINT32_CLASS, "", (6, 1), element(UINT32, reference, order), order=order)
    return opaque(name, "categorical", content, order)


def workspace(properties, order="<"):
    """Return the variable without a name that holds the objects' properties, each an element of its own."""
    start = b"\0\1IM" if order == "<" else b"\1\0MI"
    table = uint8(bytes(200), (1, 200), order=order)  # which property is whose; not looked at
    empty = element(MATRIX, b"", order)
    properties = [table, empty, *properties, *([cell([], order)] * 3)]
    content = start + bytes(4)
    content += struct_with_one_field(
        "MCOS", opaque("", "FileWrapper__", cell(properties, order), order), order
    )
    # MATLAB puts a second workspace, with nothing in it, at the end of the first.
    content += uint8(start + bytes(4), (1, 8), order=order)
    return uint8(content, (1, len(content)), order=order)


def mat_file(*variables, order="<", compressed=False):
    if compressed:
        variables = [element(COMPRESSED, zlib.compress(variable), order) for variable in variables]
    version = b"\0\1IM" if order == "<" else b"\1\0MI"
    return b"MATLAB 5.0 MAT-file, built by a test".ljust(116) + bytes(8) + version + b"".join(variables)


def names_of(classes, order="<"):
    return cell([text(name, order) for name in classes], order)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_categorical(path, images, labels, order, compressed):
    properties = [names_of("0123456789", order), uint8(labels + 1, order=order), uint8([0], order=order)]
    x = double("XTrain", images.shape, images.ravel(order="F"), order)
    variables = x, categorical("labelsTrain", order), workspace(properties, order)
    path.write_bytes(mat_file(*variables, order=order, compressed=compressed))
    read = read_mat(path)
    assert read.labels.dtype == numpy.int64
    assert read.labels.tolist() == labels.tolist()
    assert numpy.array_equal(read.images[..., 0], images[:, :, 0].transpose(2, 0, 1).astype("f4"))


def file_with(images, properties):
    x = double("XTest", images.shape, images.ravel(order="F"))
    return mat_file(x, categorical("labelsTest"), workspace(properties), compressed=True)


def test_categories_in_another_order(path, images, labels):
    path.write_bytes(file_with(images, [uint8(labels + 1), names_of("9876543210")]))
    assert read_mat(path).labels.tolist() == (9 - labels).tolist()


@pytest.mark.parametrize("names", [[], ["zero", "one", "two", "3", "4", "5", "6", "7", "8", "9"], ["1", "2"]])
def test_categories_that_are_not_all_digits(path, images, labels, names):
    """Codes are then taken to count the digits from 0 on."""
    path.write_bytes(file_with(images, [uint8(labels + 1), names_of(names)]))
    assert read_mat(path).labels.tolist() == labels.tolist()


@pytest.mark.parametrize(
    "codes",
    [[], [list(range(N))], [[11] * N], [[1] * (N - 1)], [[1] * N, [2] * N]],
    ids=["none", "undefined", "too large", "too few", "two objects"],
)
def test_categorical_that_cannot_be_decoded(path, images, codes, caplog):
    path.write_bytes(file_with(images, [uint8(values) for values in codes]))
    with caplog.at_level(logging.INFO, "minidl.data.mat"):
        read = read_mat(path)
    assert read.labels is None
    assert len(read.images) == N
    assert re.search("labelsTest of .* cannot be decoded", caplog.text)


@pytest.mark.parametrize("content", [b"", b"\0\1IM", bytes(500), b"\0\1IM" + b"\xff" * 500])
def test_damaged_workspace(path, images, content):
    x = double("XTrain", images.shape, images.ravel(order="F"))
    broken = uint8(content, (1, len(content)))
    path.write_bytes(mat_file(x, categorical("labelsTrain"), categorical("other"), broken))
    read = read_mat(path)
    assert read.labels is None
    assert len(read.images) == N


def test_objects_do_not_hide_what_is_missing(path):
    path.write_bytes(mat_file(double("y", (1, 1), [1.0]), categorical("labelsTrain"), workspace([])))
    with pytest.raises(ValueError, match=r"no XTrain and no XTest; it has y, labelsTrain$"):
        read_mat(path)
