"""The random numbers of a GPU are those of Philox4x32-10, and are uniform and normal."""

import copy

import numpy
import pytest

from minidl.random.philox import Philox


def words(key, place):
    """Philox4x32-10, written down once more with Python's integers."""
    c, k, mask = [place & 0xFFFFFFFF, place >> 32, 0, 0], [key & 0xFFFFFFFF, key >> 32], 0xFFFFFFFF
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(q >> 32) ^ c[1] ^ k[0], q & mask, (p >> 32) ^ c[3] ^ k[1], p & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


def test_the_reference_gives_the_published_numbers():
    assert words(0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("key", [0, 7, 2**63 - 25])
def test_uniform_numbers_are_the_published_bits(gpu, key):
    stream = Philox(gpu)
    stream.seed(key)
    drawn = [gpu.asnumpy(stream.random((2, 3), "float32")), gpu.asnumpy(stream.random((5,), "float64"))]
    assert [array.dtype.name for array in drawn] == ["float32", "float64"]
    expected = [(words(key, i)[0] >> 8) / 2**24 for i in range(6)]
    numpy.testing.assert_array_equal(drawn[0].ravel(), numpy.float32(expected))
    pairs = [words(key, i)[:2] for i in range(6, 11)]
    numpy.testing.assert_array_equal(drawn[1], [((a << 32 | b) >> 11) / 2**53 for a, b in pairs])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_draws_are_uniform_and_normal(gpu, dtype):
    stream = Philox(gpu)
    stream.seed(1)
    uniform, normal = (
        gpu.asnumpy(draw((200_000,), dtype)) for draw in (stream.random, stream.standard_normal)
    )
    assert 0 <= uniform.min() < 1e-4
    assert 1 - 1e-4 < uniform.max() < 1
    counts = numpy.histogram(uniform, 20, (0, 1))[0]
    assert abs(counts - 10_000).max() < 500
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs((numpy.abs(normal) < 1).mean() - 0.6827) < 0.005
    assert abs(numpy.corrcoef(normal[1:], normal[:-1])[0, 1]) < 0.01


def test_a_stream_is_written_where_it_is_told_to(gpu):
    stream = Philox(gpu)
    stream.seed(1)
    out = gpu.zeros(4, numpy.float32)
    assert stream.random((4,), "float32", out=out) is out
    twin = copy.deepcopy(stream)
    assert (
        gpu.asnumpy(stream.random((4,), "float32")).tolist()
        == gpu.asnumpy(twin.random((4,), "float32")).tolist()
    )
    with pytest.raises(TypeError, match="float32 or float64, not float16"):
        stream.random((4,), "float16")
    assert stream.random((0, 3), "float32").shape == (0, 3)
