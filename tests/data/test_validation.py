import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minidl.data import check_finite


@given(hnp.arrays(st.sampled_from(["f2", "f4", "f8", "c8"]), hnp.array_shapes(min_dims=0, min_side=0)))
def test_complains_exactly_if_a_value_is_not_finite(array):
    wrong = numpy.argwhere(~numpy.isfinite(array))
    if len(wrong) == 0:
        assert check_finite(array, "x") is None
    else:
        with pytest.raises(ValueError, match=f"^x has {len(wrong)} of {array.size} values") as caught:
            check_finite(array, "x")
        assert str(caught.value).endswith(f"at index {tuple(wrong[0].tolist())}")


def test_message():
    images = numpy.zeros((3, 4))
    images[1, 2], images[2, 0] = numpy.nan, -numpy.inf
    with pytest.raises(ValueError, match=r"images has 2 of 12 values .* the first is nan at index \(1, 2\)"):
        check_finite(images, "images")


@pytest.mark.parametrize("array", [numpy.arange(3), numpy.array([True]), numpy.zeros((0, 5)), [1.0, 2.0], 3])
def test_fine(array):
    check_finite(array, "x")


def test_no_numbers():
    with pytest.raises(TypeError, match="names holds <U1 values"):
        check_finite(numpy.array(["a"]), "names")
