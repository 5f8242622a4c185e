"""The fast convolution against the textbook one, in blocks of every size."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.primitives import convolution
from minidl.primitives.windows import windows


def textbook(x, weight, stride=1, dilation=1):
    """Convolve by the formula: all windows, times the weights, summed."""
    axes = weight.ndim - 2
    product = windows(x, weight.shape[:axes], stride, dilation)[..., None] * weight
    return product.sum(tuple(range(1 + axes, 2 + 2 * axes)))


@st.composite
def convolutions(draw):
    """Draw inputs and settings for one, two or three middle axes; borders may be larger than windows."""
    axes = draw(st.integers(1, 3))
    several = lambda low, high: draw(st.tuples(*[st.integers(low, high)] * axes))
    window, stride, dilation = several(1, 3), several(1, 3), several(1, 2)
    before, after, more = several(0, 3), several(0, 3), several(0, 3)
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    lengths = [max(r - b - a, 1) + m for r, b, a, m in zip(reach, before, after, more, strict=True)]
    groups, inside, outside = draw(st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 2)))
    rng = numpy.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(draw(st.integers(1, 3)), *lengths, groups * inside))
    w = rng.normal(size=(*window, inside, groups * outside))
    where = {"stride": stride, "padding": tuple(zip(before, after, strict=True)), "dilation": dilation}
    return x, w, where | {"groups": groups}


def by_formula(x, w, stride, padding, dilation, groups):
    x = dl.pad(x, ((0, 0), *padding, (0, 0)))
    inside, outside = w.shape[-2], w.shape[-1] // groups
    parts = [
        textbook(
            x[..., group * inside : (group + 1) * inside],
            w[..., group * outside : (group + 1) * outside],
            stride,
            dilation,
        )
        for group in range(groups)
    ]
    return dl.concatenate(parts, -1)


@pytest.mark.parametrize(("block", "rows"), [(2**16, 64), (40, 1), (1, 3)])
@given(case=convolutions())
def test_values_and_gradients_are_those_of_the_textbook(block, rows, case):
    x, w, where = case
    patch = pytest.MonkeyPatch()
    patch.setattr(convolution, "_BLOCK", block)
    patch.setattr(convolution, "_ROWS", rows)
    try:
        results = []
        for function in (convolution.conv_, by_formula):
            inputs = [dl.tensor(x, requires_grad=True), dl.tensor(w, requires_grad=True)]
            y = function(*inputs, **where)
            results.append([y, *dl.grad((y * dl.sin(y)).sum(), inputs)])
    finally:
        patch.undo()
    for ours, expected in zip(*results, strict=True):
        numpy.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-10, atol=1e-11)


def test_a_destination_that_is_not_contiguous_is_filled(rng):
    x, w = rng.normal(size=(2, 5, 5, 3)), rng.normal(size=(3, 3, 3, 4))
    where = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}
    out = numpy.full((2, 5, 5, 8), 7.0)
    convolution.conv_.forward(numpy, x, w, out=out[..., ::2], **where)
    numpy.testing.assert_allclose(out[..., ::2], convolution.conv_.forward(numpy, x, w, **where), rtol=1e-12)
    assert (out[..., 1::2] == 7).all()


def test_no_more_than_a_block_is_unfolded(rng):
    import tracemalloc

    x, w = (
        rng.normal(size=(1, 300, 300, 8)).astype("float32"),
        rng.normal(size=(5, 5, 8, 8)).astype("float32"),
    )
    out = numpy.empty((1, 300, 300, 8), "float32")
    where = {"stride": (1, 1), "padding": ((2, 2), (2, 2)), "dilation": (1, 1), "groups": 1}
    tracemalloc.start()
    convolution.conv_.forward(numpy, x, w, out=out, **where)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < x.nbytes  # all windows would take 25 times the memory of x


def test_causal_padding_sees_no_later_step(rng):
    x = rng.normal(size=(1, 6, 2))
    w = rng.normal(size=(3, 2, 1))
    before = dl.conv1d(x, w, padding=[(4, 0)], dilation=2).numpy()
    x[:, 4:] = 9
    numpy.testing.assert_array_equal(
        dl.conv1d(x, w, padding=[(4, 0)], dilation=2).numpy()[:, :4], before[:, :4]
    )


@pytest.mark.parametrize("length", [5, 6, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 3, 4])
def test_same_keeps_or_divides_lengths_and_transposed_multiplies_them(window, stride, length):
    y = dl.conv2d(dl.ones((1, length, length, 1)), dl.ones((window, window, 1, 2)), stride, "same")
    assert y.shape == (1, -(-length // stride), -(-length // stride), 2)
    z = dl.conv_transpose2d(y, dl.ones((window, window, 1, 2)), stride, "same")
    assert z.shape[1] == y.shape[1] * stride


def test_what_does_not_fit_is_refused():
    x, w = dl.ones((1, 4, 4, 3)), dl.ones((3, 3, 3, 2))
    with pytest.raises(ValueError, match="conv2d takes 4 axes"):
        dl.conv2d(x[0], w)
    with pytest.raises(ValueError, match="3 channels in 1 groups do not fit weights of"):
        dl.conv2d(x, w[:, :, :2])
    with pytest.raises(ValueError, match="3 channels in 1 groups"):
        dl.conv_transpose2d(x, w)
    with pytest.raises(ValueError, match=r"a window of \(3, 3\) does not fit into \(2, 2\)"):
        dl.conv2d(x[:, :2, :2], w)
    with pytest.raises(ValueError, match="stride"):
        dl.conv2d(x, w, stride=0)
    with pytest.raises(ValueError, match="does not fit"):
        dl.conv_transpose2d(dl.ones((1, 1, 1, 2)), w, padding=2)
