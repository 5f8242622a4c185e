"""MAT files of version 7.3, which are HDF5."""

import builtins
import logging

import numpy
import pytest
import scipy.io

from minidl.data import read_mat
from minidl.data.mat import read_variables
from minidl.data.mat_format import Opaque
from tests.data import mat73

h5py = pytest.importorskip("h5py", reason="h5py is not installed (the extra `interop`)")

N = 30


@pytest.fixture
def path(tmp_path):
    return tmp_path / "digits.mat"


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (6, 5, 1, N)) / 255


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip", "shuffle": True}], ids=["plain", "compressed"]
)
@pytest.mark.parametrize("part", ["Train", "Test"])
def test_digits_are_those_of_the_older_format(path, images, rng, part, options):
    angles = rng.integers(-45, 46, (N, 1)).astype("i2")
    labels = rng.integers(0, 10, (N, 1)).astype("u1")
    variables = {f"X{part}": images, f"angles{part}": angles, f"labels{part}": labels}
    mat73.write(path, variables, **options)
    newer = read_mat(path)
    scipy.io.savemat(path, variables)
    older = read_mat(path)
    for a, b in zip(newer, older, strict=True):
        numpy.testing.assert_array_equal(a, b)
        assert (a.dtype, a.flags.c_contiguous) == (b.dtype, b.flags.c_contiguous)


VALUES = {
    "a matrix": numpy.arange(6.0).reshape(2, 3),
    "five axes": numpy.arange(48, dtype="f4").reshape(2, 3, 1, 4, 2),
    "int8": numpy.array([[-128, 127]], "i1"),
    "uint64": numpy.array([[2**64 - 1]], "u8"),
    "another byte order": numpy.array([[1.5, 2.5]], ">f8"),
    "logical": numpy.array([[True], [False]]),
    "nothing": numpy.zeros((0, 3), "f4"),
    "text": "π is 3.14",
    "no text": "",
    "cells": ["seven", numpy.array([[7.0]]), [numpy.array([[1, 2]], "i4"), "inner"]],
    "no cells": [],
    "a struct": {"zeta": numpy.array([[1.0]]), "alpha": ["one", "two"], "inner": {"x": numpy.eye(2)}},
    "structs": mat73.Structs([{"a": numpy.array([[1.0]]), "b": "x"}, {"a": numpy.array([[2.0]]), "b": "y"}]),
}


def as_scipy_writes_it(value):
    if isinstance(value, mat73.Structs):
        table = numpy.empty((len(value), 1), [(name, object) for name in value[0]])
        for i, row in enumerate(value):
            table[i, 0] = tuple(map(as_scipy_writes_it, row.values()))
        return table
    if isinstance(value, dict):
        return {name: as_scipy_writes_it(inner) for name, inner in value.items()}
    if isinstance(value, list):
        cells = numpy.empty((len(value), 1 if value else 0), object)
        cells[:, 0:] = [[as_scipy_writes_it(inner)] for inner in value] if value else cells
        return cells
    return value


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert [*a] == [*b]
        a, b = [*a.values()], [*b.values()]
    if isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    elif isinstance(a, numpy.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        numpy.testing.assert_array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("name", VALUES)
def test_every_kind_of_value_is_that_of_the_older_format(path, name):
    mat73.write(path, {"value": VALUES[name], "other": numpy.eye(3)})
    newer = read_variables(path, ["value"])
    scipy.io.savemat(path, {"value": as_scipy_writes_it(VALUES[name]), "other": numpy.eye(3)})
    older = read_variables(path, ["value"])
    assert newer["other"] is older["other"] is None
    assert_same(newer["value"], older["value"])


def test_what_is_not_read_says_what_it_is(path):
    mat73.write(path, {"z": numpy.array([[1j]]), "handle": numpy.eye(2), "s": numpy.eye(2)})
    with h5py.File(path, "r+") as file:
        file["handle"].attrs["MATLAB_class"] = numpy.bytes_("function_handle")
        sparse = file.create_group("sparse")
        sparse.attrs["MATLAB_class"] = numpy.bytes_("double")
        sparse.attrs["MATLAB_sparse"] = numpy.uint64(3)
        file["s"].attrs["MATLAB_class"] = numpy.bytes_("string")
        file["s"].attrs["MATLAB_object_decode"] = numpy.int32(3)
        file["foreign"] = numpy.eye(2)
        file.create_group("group")
    read = read_variables(path, ["z", "handle", "s", "sparse", "foreign", "group"])
    assert {name: value for name, value in read.items() if name} == {
        "z": Opaque("complex"),
        "handle": Opaque("function_handle"),
        "s": Opaque("string"),
        "sparse": Opaque("sparse"),
        "foreign": Opaque("dataset without a class of MATLAB's"),
        "group": Opaque("group without a class of MATLAB's"),
    }
    with pytest.raises(ValueError, match=r"digits\.mat has no XTrain and no XTest; it has foreign, group"):
        read_mat(path)


def test_labels_that_are_a_categorical(path, images, rng, caplog):
    labels = rng.permutation(N) % 10
    names = [str(digit) for digit in range(10)]
    table = numpy.zeros((1, 200), "u1")
    for objects, expected in (
        ([table, names, (labels[:, None] + 1).astype("u1")], labels.tolist()),
        ([table, names[::-1], (labels[:, None] + 1).astype("u1")], (9 - labels).tolist()),
        ([table], None),
    ):
        mat73.write(path, {"XTrain": images, "labelsTrain": numpy.zeros((1, 6), "u4")}, objects)
        with h5py.File(path, "r+") as file:
            mark = file["labelsTrain"].attrs
            mark["MATLAB_class"], mark["MATLAB_object_decode"] = numpy.bytes_("categorical"), numpy.int32(3)
        with caplog.at_level(logging.INFO, "minidl.data.mat"):
            read = read_mat(path).labels
        assert (read if read is None else read.tolist()) == expected
    assert "cannot be decoded: 0 arrays could be the codes" in caplog.text


def test_without_h5py_its_name_and_a_way_around_are_said(path, images, monkeypatch):
    mat73.write(path, {"XTrain": images})
    whole = builtins.__import__

    def without_h5py(name, *rest):
        if name == "h5py":
            raise ImportError("no module h5py")
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(
        ImportError, match=r"digits\.mat .* needs the package h5py: .*pip install h5py.*'-v7'"
    ) as caught:
        read_mat(path)
    assert caught.value.name == "h5py"


def shrink_the_file(file):
    file["XTrain"].resize((10**7, 1, 5, 6))


def link_elsewhere(file):
    del file["XTrain"]
    file["XTrain"] = h5py.ExternalLink("other.mat", "/XTrain")


def lie_elsewhere(file):
    del file["XTrain"]
    item = file.create_dataset("XTrain", (2, 2), "f8", external=[("other.bin", 0, 32)])
    item.attrs["MATLAB_class"] = numpy.bytes_("double")


def claim_much_and_hold_nothing(file):
    del file["XTrain"]
    item = file.create_dataset("XTrain", (10**6, 10**6), "f8")
    item.attrs["MATLAB_class"] = numpy.bytes_("double")


def lie_in_itself(file):
    item = file.create_dataset("a", (2, 1), h5py.ref_dtype)
    item.attrs["MATLAB_class"] = numpy.bytes_("cell")
    item[:, 0] = item.ref
    file["XTrain"].attrs["MATLAB_class"] = numpy.bytes_("cell")
    del file["XTrain"]
    file["XTrain"] = item


def refer_to_nothing(file):
    del file["XTrain"]
    item = file.create_dataset("XTrain", (2, 1), h5py.ref_dtype)
    item.attrs["MATLAB_class"] = numpy.bytes_("cell")
    item[0, 0] = file.create_group("#refs#").create_group("x").ref


def refer_by_numbers(file):
    file["XTrain"].attrs["MATLAB_class"] = numpy.bytes_("cell")


def say_that_it_is_empty(file):
    file["XTrain"].attrs["MATLAB_empty"] = numpy.uint8(1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shrink_the_file, "of 2400000000 bytes cannot be in"),
        (link_elsewhere, "is a link to elsewhere"),
        (lie_elsewhere, "lies in other files"),
        (claim_much_and_hold_nothing, "of 8000000000000 bytes cannot be in 0"),
        (lie_in_itself, "nested deeper than 64 times"),
        (refer_to_nothing, "a reference to nothing"),
        (refer_by_numbers, "where references should be"),
        (say_that_it_is_empty, "holds no elements"),
    ],
)
def test_damaged_content_is_refused_by_the_name_of_the_file(path, images, damage, message):
    mat73.write(path, {"XTrain": images}, maxshape=(None, 1, 5, 6), chunks=(N, 1, 5, 6))
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(ValueError, match=rf"digits\.mat is a damaged MAT file: .*{message}"):
        read_mat(path)


@pytest.mark.parametrize(
    "content", [b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(500)]
)
def test_the_beginning_of_a_file_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"digits\.mat is a damaged MAT file"):
        read_mat(path)


def test_items_that_many_cells_refer_to_are_read_once(path):
    mat73.write(path, {"cells": [numpy.zeros((100, 100))]})
    with h5py.File(path, "r+") as file:
        reference = file["cells"][0, 0]
        del file["cells"]
        item = file.create_dataset("cells", (10_000, 1), h5py.ref_dtype)
        item.attrs["MATLAB_class"] = numpy.bytes_("cell")
        item[:, 0] = reference
    cells = read_variables(path, ["cells"])["cells"]
    assert len(cells) == 10_000
    assert all(cell is cells[0] for cell in cells)
