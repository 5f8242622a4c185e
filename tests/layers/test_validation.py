import re

import pytest

import minidl as dl
from minidl.errors import DeviceError
from minidl.layers.validation import check_input, check_shape, fits


class Painted(dl.Layer):
    def __repr__(self):
        return "Painted()"


IMAGES = ("batch", "height", "width", 3)


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        ((5,), ("batch",)),
        ((5, 3), ("batch", ..., 3)),
        ((5, 2, 2, 3), ("batch", ..., 3)),
        ((0, 28, 30, 3), IMAGES),
        ((), (...,)),
        ((4, 4), (...,)),
        ((3, 4, 4), (3, ...)),
    ],
)
def test_what_fits(shape, pattern):
    assert fits(shape, pattern)
    check_shape(Painted(), shape, pattern)


@pytest.mark.parametrize(
    ("shape", "pattern", "message"),
    [
        ((), ("batch",), "(batch,); got ()"),
        ((3,), ("batch", ..., 3), "(batch, ..., 3); got (3,): add a batch axis with .reshape(1, 3)"),
        ((5, 4), ("batch", ..., 3), "(batch, ..., 3); got (5, 4)"),
        ((5, 2, 2), ("batch", 4), "(batch, 4); got (5, 2, 2): add Flatten() before it"),
        ((5, 2, 2), ("batch", ..., 4), "(batch, ..., 4); got (5, 2, 2): add Flatten() before it"),
        ((5, 4), ("batch", 2, 2, 1), "(batch, 2, 2, 1); got (5, 4): add Reshape(2, 2, 1) before it"),
        (
            (5, 3, 28, 30),
            IMAGES,
            "(batch, height, width, 3); got (5, 3, 28, 30): channels are the last axis here: "
            "reorder the axes with .transpose(0, 2, 3, 1)",
        ),
        (
            (28, 30, 3),
            IMAGES,
            "(batch, height, width, 3); got (28, 30, 3): add a batch axis with .reshape(1, 28, 30, 3)",
        ),
        (
            (5, 28, 30),
            ("batch", "height", "width", 1),
            "(batch, height, width, 1); got (5, 28, 30): "
            "add a last axis of length 1 with .reshape(5, 28, 30, 1)",
        ),
        ((), ("batch", "time", ...), "(batch, time, ...); got ()"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_next_step(shape, pattern, message):
    assert not fits(shape, pattern)
    with pytest.raises(ValueError, match="takes inputs") as refusal:
        check_shape(Painted(), shape, pattern)
    assert str(refusal.value) == f"Painted() takes inputs {message}"


@pytest.mark.parametrize(
    ("shape", "pattern", "advice", "follow"),
    [
        ((3,), ("batch", ..., 3), ".reshape(1, 3)", lambda x: x.reshape(1, 3)),
        ((5, 2, 2), ("batch", 4), "Flatten()", dl.Flatten()),
        ((5, 4), ("batch", 2, 2, 1), "Reshape(2, 2, 1)", dl.Reshape(2, 2, 1)),
        ((5, 3, 4, 6), IMAGES, ".transpose(0, 2, 3, 1)", lambda x: x.transpose(0, 2, 3, 1)),
        ((5, 7), ("batch", "time", 1), ".reshape(5, 7, 1)", lambda x: x.reshape(5, 7, 1)),
    ],
)
def test_following_the_advice_gives_an_input_that_fits(shape, pattern, advice, follow):
    x = dl.zeros(shape)
    with pytest.raises(ValueError, match=re.escape(advice)):
        check_input(Painted(), x, pattern)
    check_input(Painted(), follow(x), pattern)


@pytest.mark.parametrize(
    ("kinds", "dtype", "words"),
    [
        ("f", "int64", "floating-point"),
        ("iu", "float32", "integer"),
        ("iu", "bool", "integer"),
        ("fb", "int8", "floating-point or boolean"),
    ],
)
def test_another_kind_of_number_is_refused(kinds, dtype, words):
    with pytest.raises(TypeError, match=rf"^Painted\(\) takes {words} inputs; got {dtype}$"):
        check_input(Painted(), dl.zeros((2, 3), dtype), (...,), kinds=kinds)


def test_the_dtype_of_a_parameter_is_required_unless_kinds_are_given():
    weight = dl.Parameter(dl.ones((3,)))
    x = dl.zeros((2, 3), "int64")
    check_input(Painted(), x, (...,), like=weight, kinds="iu")
    with pytest.raises(TypeError, match=r"computes in float32; got int64: .*\.astype\('float32'\)"):
        check_input(Painted(), x, (...,), like=weight)


def test_the_device_of_a_parameter_is_required(strict_gpu):
    weight = dl.Parameter(dl.ones((3,)))
    with pytest.raises(DeviceError, match=r"is on cpu; got an input on gpu:0: .*\.to\('cpu'\)"):
        check_input(Painted(), dl.zeros((2, 3), device="gpu"), (...,), like=weight, kinds="fi")


@pytest.mark.parametrize("x", [[1.0, 2.0], 3.0, None])
def test_what_is_no_tensor_is_refused(x):
    with pytest.raises(TypeError, match=rf"Dense\(2, 2\) takes Tensors or arrays; got {type(x).__name__}"):
        dl.Dense(2, 2)(x)
