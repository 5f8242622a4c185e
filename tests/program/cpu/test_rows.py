"""Rows in C: stages, buffers and reductions, of every length, dtype and special value."""

import numpy
import pytest

import minidl as dl
from tests.program.networks import needs_c

RNG = numpy.random.default_rng(0)


@needs_c
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp"])
@pytest.mark.parametrize("shape", [(6, 10), (3, 2500), (4, 5, 64), (7, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_lines_of_every_length_and_special_values(name, shape, dtype):
    x = (RNG.normal(size=shape) * 30).astype(dtype)
    lines = x.reshape(-1, shape[-1])
    lines[0, 1], lines[1, : shape[-1] // 2] = numpy.nan, -numpy.inf
    lines[2], lines[3 % len(lines), 0] = -numpy.inf, numpy.inf
    function = getattr(dl, name)
    with numpy.errstate(all="ignore"):
        expected = function(dl.tensor(x), axis=-1).numpy()
        for kernels in ("numpy", "c"):
            result = dl.compile(lambda x: function(x, axis=-1), kernels=kernels, threads=2)(dl.tensor(x))
            tolerance = 3e-6 if dtype == "float32" else 1e-13
            numpy.testing.assert_allclose(result.numpy(), expected, rtol=tolerance, atol=tolerance)


@needs_c
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "int64"])
@pytest.mark.parametrize("name", ["max", "min", "sum"])
def test_reductions_of_every_dtype_and_what_is_made_of_them(name, dtype):
    x = (RNG.normal(size=(9, 41)) * 40).astype(dtype)
    if x.dtype.kind == "f":
        x[2, 3], x[4, 5], x[5] = numpy.nan, -numpy.nan, -numpy.inf

    def function(x):
        y = x + x
        result = getattr(dl, name)(y, axis=1, keepdims=True)
        return result, y - result

    with numpy.errstate(all="ignore"):
        expected = function(dl.tensor(x))
        for ours, theirs in zip(dl.compile(function, kernels="c")(dl.tensor(x)), expected, strict=True):
            assert ours.dtype == theirs.dtype
            numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-4)


@needs_c
def test_long_sums_are_sums_of_sums():
    x = numpy.full((2, 30_000), 0.1, "float32")
    result = dl.compile(lambda x: x * 0 + x.sum(axis=1, keepdims=True), kernels="c")(dl.tensor(x))
    numpy.testing.assert_allclose(result.numpy(), 30_000 * numpy.float64(numpy.float32(0.1)), rtol=2e-6)


@needs_c
@pytest.mark.parametrize("kernels", ["numpy", "c"])
@pytest.mark.parametrize("layout", ["rows", "columns", "permuted"])
def test_what_is_needed_again_is_kept_or_computed_again(kernels, layout):
    """Values that several stages read: stored results, cheap chains, and powers in a buffer."""
    shape = (5, 6, 21)
    x = RNG.normal(size=shape).astype("float32")
    x = {"rows": x, "columns": numpy.asfortranarray(x), "permuted": x.transpose(1, 0, 2)}[layout]
    gain, mask = RNG.normal(size=21).astype("float32"), RNG.random((x.shape[1], 21)) < 0.7

    def function(x, gain):
        y = dl.where(mask, x * gain, -3.0)
        powers = dl.exp(y) * dl.tanh(y)
        shifted = powers - powers.max(axis=-1, keepdims=True)
        normal = shifted / (1 + (shifted * shifted).sum(axis=-1, keepdims=True))
        return normal, powers, (normal * y + powers).min(axis=-1)

    inputs = [dl.tensor(x), dl.tensor(gain)]
    for ours, theirs in zip(dl.compile(function, kernels=kernels)(*inputs), function(*inputs), strict=True):
        numpy.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-5, atol=2e-6)


@needs_c
@pytest.mark.parametrize("returned", [False, True])
def test_a_value_is_the_same_in_every_stage(returned):
    """A compiler may make one instruction of a product and a sum, which rounds once, or two."""
    x, gain, bias = (
        dl.tensor(RNG.normal(size=shape).astype("float32")) for shape in [(300, 37), (37,), (37,)]
    )

    def function(x):
        product = x * gain
        y = product + bias
        largest = y.max(axis=-1, keepdims=True)
        is_largest = y == largest
        return is_largest.sum(axis=-1), dl.where(is_largest, product, 0), *([product] if returned else [])

    numpy.testing.assert_array_equal(dl.compile(function, kernels="c")(x)[0].numpy(), 1)


@needs_c
@pytest.mark.parametrize("layer", [dl.LayerNorm, dl.RMSNorm])
@pytest.mark.parametrize("kernels", ["numpy", "c"])
@pytest.mark.parametrize("shape", [(40, 12), (6, 7, 12)])
def test_normalisation_and_its_gradients(layer, kernels, shape):
    x, target = (dl.Tensor(RNG.normal(size=shape).astype("float32")) for _ in range(2))
    trained = []
    for compiled in (False, True):
        network = dl.Network([layer(12), dl.Dense(12, 12, seed=0), layer(12)])
        optimizer = dl.SGD(network.parameters(), learning_rate=0.1)

        def step(x, target, network=network, optimizer=optimizer):
            loss = ((network(x) - target) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = dl.compile(step, kernels=kernels, threads=2) if compiled else step
        losses = [float(run(x, target)) for _ in range(4)]
        trained.append([losses, *(p.numpy() for p in network.parameters())])
    for plain, ours in zip(*trained, strict=True):
        numpy.testing.assert_allclose(ours, plain, rtol=2e-5, atol=2e-6)
