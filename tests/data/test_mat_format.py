import io
import struct
import tracemalloc
import zlib

import numpy
import pytest
import scipy.io

from minidl.data.mat_format import HEADER, Opaque, byte_order, variables

VARIABLES = {
    "double": numpy.arange(24.0).reshape(2, 3, 4) / 7,
    "small": numpy.arange(6.0).reshape(2, 3),
    "single": numpy.float32([[1.5, -2.0]]),
    "empty": numpy.zeros((0, 3)),
    "cells": numpy.array([["a", numpy.arange(3), "longer text"]], dtype=object),
    "struct": {"first": numpy.ones((2, 2)), "second": "text", "inner": {"x": 1.0}},
    "text": "größer",
    **{f"int{bits}": numpy.array([[1, -2]], f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": numpy.array([[1, 200]], f"u{bits // 8}") for bits in (8, 16, 32, 64)},
}


def file_of(contents, compressed=False):
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, contents, do_compression=compressed)
    return buffer.getvalue()


def read(content, wanted=None):
    return dict(variables(content[HEADER:], byte_order(content[126:128]), wanted))


@pytest.mark.parametrize("compressed", [False, True])
def test_variables_are_what_scipy_reads(compressed):
    content = file_of(VARIABLES, compressed)
    ours, theirs = read(content), scipy.io.loadmat(io.BytesIO(content))
    assert list(ours) == [name for name, _, _ in scipy.io.whosmat(io.BytesIO(content))]
    for name, value in ours.items():
        if isinstance(value, numpy.ndarray):
            numpy.testing.assert_array_equal(value, theirs[name], strict=True)
    assert ours["text"] == theirs["text"].item() == "größer"
    assert ours["cells"][0] == "a"
    assert ours["cells"][1].tolist() == [[0, 1, 2]]
    assert list(ours["struct"]) == ["first", "second", "inner"]
    assert ours["struct"]["inner"][0]["x"][0].item() == 1.0


def test_kinds_that_are_not_read_are_named():
    content = file_of({"z": numpy.ones(3) * 1j, "s": scipy.sparse.eye_array(3).tocsc()})
    assert read(content) == {"z": Opaque("complex"), "s": Opaque("sparse")}


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_not_wanted_is_checked_and_left_out(compressed):
    content = file_of({"a": numpy.ones(3), "b": numpy.zeros(4)}, compressed)
    found = read(content, ["b"])
    assert found["a"] is None
    assert found["b"].tolist() == [[0] * 4]
    with pytest.raises(ValueError, match="truncated"):
        read(content[: HEADER + 30], ["b"])


@pytest.mark.parametrize("compressed", [False, True])
def test_every_truncation_is_noticed_but_between_variables(compressed):
    content = file_of(VARIABLES, compressed)
    whole, lost = list(read(content)), set()
    for end in range(HEADER, len(content)):
        try:
            found = list(read(content[:end]))
        except ValueError:
            continue
        assert found == whole[: len(found)]
        lost.add(len(whole) - len(found))
    assert lost == set(range(1, len(whole) + 1))


def element(kind, content):
    return struct.pack("<2I", kind, len(content)) + content + bytes(-len(content) % 8)


def cell(inner, count=1):
    flags, shape = element(6, struct.pack("<2I", 1, 0)), element(5, struct.pack("<2i", 1, count))
    return element(14, flags + shape + element(1, b"") + inner)


def test_cells_in_cells_in_cells():
    deep = cell(b"", 0)
    for _ in range(20_000):
        deep = cell(deep)
    with pytest.raises(ValueError, match="nested deeper than 64 times"):
        list(variables(deep, "<"))


@pytest.mark.parametrize("count", [10**6, 2**31 - 1, -1])
def test_more_cells_than_bytes(count):
    with pytest.raises(ValueError, match=r"cannot be in|has shape"):
        list(variables(cell(b"", count), "<"))


def test_a_deflated_bomb_takes_no_memory():
    """A hundred million zeros that the length does not announce."""
    bomb = zlib.compress(element(14, b"")[:8] + bytes(100_000_000))
    content = struct.pack("<2I", 15, len(bomb)) + bomb
    tracemalloc.start()
    with pytest.raises(ValueError, match="longer than it says"):
        list(variables(content, "<"))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(4), "4 bytes are left"),
        (element(9, bytes(8)), "a variable has type 9"),
        (struct.pack("<2I", 14, 1000), "an element of 1000 bytes has 0"),
        (element(14, element(6, bytes(8))), "ends too early"),
        (element(14, element(6, bytes(4))), "has no flags"),
        (struct.pack("<2I", 15, 3) + b"abc", "a compressed element is damaged"),
        (struct.pack("<2I", 15, 0), "is empty or truncated"),
    ],
)
def test_damage_is_said(content, message):
    with pytest.raises(ValueError, match=message):
        list(variables(content, "<"))
