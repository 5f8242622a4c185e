"""Windows and pooling: values against loops, and what is refused."""

import itertools

import numpy
import pytest

import minidl as dl
from minidl.primitives.windows import overlap_add, padding_pairs, windows


def test_windows_are_the_slices_of_the_input(rng):
    x = rng.normal(size=(2, 7, 6, 3))
    y = windows(dl.tensor(x), (3, 2), (2, 1), (1, 3)).numpy()
    assert y.shape == (2, 3, 3, 3, 2, 3)
    for row, column in itertools.product(range(3), range(3)):
        expected = x[:, 2 * row : 2 * row + 3, column : column + 4 : 3]
        numpy.testing.assert_array_equal(y[:, row, column], expected)


@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_overlap_add_is_the_adjoint_of_windows(stride, dilation, rng):
    x = rng.normal(size=(2, 8, 9, 2))
    y = windows(dl.tensor(x), (2, 3), stride, dilation)
    g = rng.normal(size=y.shape)
    back = overlap_add(dl.tensor(g), (8, 9), stride, dilation).numpy()
    numpy.testing.assert_allclose((y.numpy() * g).sum(), (x * back).sum(), rtol=1e-12)


def test_the_larger_half_of_an_odd_border_comes_after():
    assert padding_pairs("same", (5, 6), (2, 3), (1, 2), (1, 1)) == ((0, 1), (0, 1))
    assert padding_pairs("same", (7,), (4,), (1,), (1,)) == ((1, 2),)
    assert padding_pairs("same", (7,), (3,), (1,), (2,)) == ((2, 2),)
    assert padding_pairs("same", (8,), (1,), (4,), (1,)) == ((0, 0),)
    assert padding_pairs(((1, 0), 2), (7, 7), (3, 3), (1, 1), (1, 1)) == ((1, 0), (2, 2))


@pytest.mark.parametrize("padding", ["full", -1, (1,), ((1, 2, 3), 0), ((0, -1), 0)])
def test_a_wrong_padding_is_refused(padding):
    with pytest.raises(ValueError, match="padding"):
        dl.max_pool2d(dl.ones((1, 4, 4, 1)), 2, padding=padding)


def test_options_may_be_numpys_integers(rng):
    x, w = dl.tensor(rng.normal(size=(1, 7, 7, 2))), dl.tensor(rng.normal(size=(3, 3, 2, 1)))
    two = numpy.int64(2)
    for function in (
        lambda n: dl.max_pool2d(x, n, (n, 1), padding=n - 1),
        lambda n: dl.conv2d(x, w, n, ((n, 0), n), (1, n)),
        lambda n: dl.conv_transpose2d(dl.conv2d(x, w), w, n, n, n),
        lambda n: dl.resize(x, (n, 3)),
        lambda n: dl.upsample2d(x, n),
        lambda n: windows(x, n, n, n),
    ):
        numpy.testing.assert_array_equal(function(two).numpy(), function(2).numpy())


def pooled(x, window, stride, pairs, reduce):
    """Pool by loops; a border is left out."""
    batch, height, width, channels = x.shape
    starts = [
        [i * s - before for i in range((n + before + after - w) // s + 1)]
        for n, w, s, (before, after) in zip((height, width), window, stride, pairs, strict=True)
    ]
    y = numpy.empty((batch, len(starts[0]), len(starts[1]), channels))
    for (i, a), (j, b) in itertools.product(enumerate(starts[0]), enumerate(starts[1])):
        part = x[:, max(a, 0) : a + window[0], max(b, 0) : b + window[1]]
        y[:, i, j] = reduce(part, (1, 2))
    return y


CASES = [
    ((2, 2), (2, 2), ((0, 0), (0, 0))),
    ((3, 2), (2, 3), ((0, 0), (0, 0))),
    ((3, 3), (1, 1), ((1, 1), (1, 1))),
    ((2, 3), (2, 2), ((1, 0), (0, 2))),
]


@pytest.mark.parametrize(("window", "stride", "pairs"), CASES)
def test_pooling_against_loops(window, stride, pairs, rng):
    x = rng.normal(size=(3, 6, 7, 2)) - 5  # a border of zeros would be the maximum
    for function, reduce in ((dl.max_pool2d, numpy.max), (dl.average_pool2d, numpy.mean)):
        y = function(dl.tensor(x), window, stride, pairs)
        numpy.testing.assert_allclose(y.numpy(), pooled(x, window, stride, pairs, reduce), rtol=1e-13)


@pytest.mark.parametrize("stride", [2, 1])
def test_the_gradient_goes_to_the_first_of_equal_maxima(stride):
    x = dl.tensor(numpy.zeros((1, 2, 4, 1)), requires_grad=True)
    y = dl.max_pool2d(x, 2, stride)
    gradient = dl.grad(y.sum(), x).numpy()[0, :, :, 0]
    expected = [[1, 0, 1, 0], [0, 0, 0, 0]] if stride == 2 else [[1, 1, 1, 0], [0, 0, 0, 0]]
    numpy.testing.assert_array_equal(gradient, expected)


def test_nan_is_a_maximum_and_an_infinite_gradient_makes_none():
    x = numpy.array([1.0, numpy.nan, 2.0, 0.0]).reshape(1, 2, 2, 1)
    assert numpy.isnan(dl.max_pool2d(x, 2).numpy()).all()
    x = dl.tensor(numpy.array([1.0, 3.0, 2.0, 0.0]).reshape(1, 2, 2, 1), requires_grad=True)
    gradient = dl.grad(dl.max_pool2d(x, 2), x, gradient=dl.full((1, 1, 1, 1), numpy.inf, "float64"))
    numpy.testing.assert_array_equal(gradient.numpy().ravel(), [0, numpy.inf, 0, 0])


def test_images_larger_than_a_block_are_pooled_alike(rng, monkeypatch):
    from minidl.primitives import windows as module

    x = dl.tensor(rng.normal(size=(5, 6, 6, 2)), requires_grad=True)
    whole = dl.grad((dl.max_pool2d(x, 3, 1) ** 2).sum(), x).numpy()
    monkeypatch.setattr(module, "_BLOCK", 1)
    numpy.testing.assert_array_equal(dl.grad((dl.max_pool2d(x, 3, 1) ** 2).sum(), x).numpy(), whole)


def test_global_average_and_upsampling(rng):
    x = rng.normal(size=(2, 3, 4, 5))
    numpy.testing.assert_allclose(dl.global_average_pool2d(x).numpy(), x.mean((1, 2)), rtol=1e-13)
    numpy.testing.assert_array_equal(dl.upsample2d(x, (2, 3)).numpy(), x.repeat(2, 1).repeat(3, 2))


@pytest.mark.parametrize(
    "function", [dl.max_pool2d, dl.average_pool2d, dl.global_average_pool2d, dl.upsample2d]
)
def test_other_than_images_are_refused(function):
    with pytest.raises(ValueError, match=f"{function.__name__} takes images"):
        function(dl.ones((2, 3, 4)))


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"a window of \(5, 5\) does not fit into \(4, 4\)"):
        dl.max_pool2d(dl.ones((1, 4, 4, 1)), 5)
    with pytest.raises(ValueError, match="would lie in the border"):
        dl.average_pool2d(dl.ones((1, 4, 4, 1)), 2, padding=2)
    with pytest.raises(ValueError, match="does not hold the windows"):
        overlap_add(dl.ones((1, 3, 2, 1)), (5,))
    with pytest.raises(ValueError, match="window is an integer of at least 1"):
        windows(dl.ones((1, 4, 1)), 0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "float16", "float32"])
def test_pooling_keeps_the_numbers_of_every_dtype(dtype, rng):
    x = rng.integers(0, 100, (2, 5, 5, 3)).astype(dtype)
    if numpy.dtype(dtype).kind != "u":
        x = -x
    y = dl.max_pool2d(x, 3, 2, "same")
    assert y.dtype == dtype
    numpy.testing.assert_array_equal(y.numpy(), pooled(x, (3, 3), (2, 2), ((1, 1), (1, 1)), numpy.max))
    average = dl.average_pool2d(x, 3, 2, "same")
    assert average.dtype == (dtype if "float" in dtype else "float32")
    expected = pooled(x.astype("float64"), (3, 3), (2, 2), ((1, 1), (1, 1)), numpy.mean)
    numpy.testing.assert_allclose(average.numpy(), expected, rtol=2e-3 if dtype == "float16" else 1e-6)


def test_convolution_of_integers_is_float32(rng):
    y = dl.conv2d(rng.integers(0, 255, (1, 4, 4, 1)).astype("uint8"), numpy.ones((3, 3, 1, 1), "float32"))
    assert y.dtype == "float32"
