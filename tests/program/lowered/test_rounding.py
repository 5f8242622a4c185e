"""Rounded and packed float32 numbers."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.program.lowered.rounding import as_factors, round_off, to_bfloat16
from tests.program.lowered.exact_rounding import normal, rounded


@pytest.mark.parametrize("bits", [7, 10])
@given(numbers=st.lists(normal, max_size=40))
def test_rounding_is_that_of_arithmetic(bits, numbers):
    x = numpy.array(numbers, "float32")
    numpy.testing.assert_array_equal(round_off.forward(numpy, x, bits=bits), rounded(x, bits))


def test_ties_go_to_the_even_neighbour_and_special_numbers_stay():
    x = numpy.array([1 + 2**-8, 1 + 3 * 2**-8, 0.0, -0.0, numpy.inf, -numpy.inf, 3.4e38, 1e-45], "float32")
    result = round_off.forward(numpy, x, bits=7)
    expected = [1, 1 + 2**-6, 0, 0, numpy.inf, -numpy.inf, numpy.inf, 0]
    assert result.tolist() == expected
    assert numpy.signbit(result).tolist() == numpy.signbit(x).tolist()
    every_nan = numpy.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFC00000], "uint32").view("float32")
    assert numpy.isnan(round_off.forward(numpy, every_nan, bits=7)).all()


@given(numbers=st.lists(normal, max_size=40))
def test_bfloat16_are_the_upper_half_of_a_rounded_float32(numbers):
    x = numpy.array(numbers, "float32")
    packed = to_bfloat16.forward(numpy, x)
    assert packed.dtype == numpy.uint16
    for unpacked in as_factors(numpy, packed, packed, numpy.float32):
        numpy.testing.assert_array_equal(unpacked, round_off.forward(numpy, x, bits=7))
    whole_numbers = as_factors(numpy, packed, packed, packed.dtype)
    assert whole_numbers[0] is packed
    assert whole_numbers[1] is packed
    mixed = as_factors(numpy, packed, x, numpy.float32)
    assert mixed[0] is packed
    assert mixed[1] is x
