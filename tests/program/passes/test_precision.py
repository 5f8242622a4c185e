"""Matrix products in a lower precision: rounded factors, float32 sums, on the CPU as on a GPU."""

import numpy
import pytest

import minidl as dl
from minidl import devices
from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.primitives.shape import transpose_
from minidl.program.cpu import kernel_cache
from minidl.program.gpu import executor as gpu_executor
from minidl.program.lowered.rounding import PRECISIONS, round_off
from minidl.program.passes import pipeline
from minidl.program.passes.precision import round_factors
from minidl.program.program import Gemm
from tests.program.lowered.exact_rounding import rounded
from tests.program.networks import autoencoder, make_step, recorded

LOWER = ["tf32", "bfloat16"]


KERNELS = [
    "numpy",
    pytest.param(
        "c", marks=pytest.mark.skipif(kernel_cache.compiler() is None, reason="there is no C compiler here")
    ),
]


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", LOWER)
def test_factors_are_rounded_and_sums_are_not(precision, kernels, rng):
    a, b = rng.normal(size=(40, 300)).astype("float32"), rng.normal(size=(300, 50)).astype("float32")
    result = dl.compile(lambda a, b: a @ b, precision=precision, kernels=kernels)(dl.tensor(a), dl.tensor(b))
    bits = PRECISIONS[precision]
    expected = rounded(a, bits).astype("float64") @ rounded(b, bits)
    numpy.testing.assert_allclose(result.numpy(), expected, rtol=0, atol=1e-4)
    assert abs(expected - a.astype("float64") @ b).max() > 1e-3  # what the rounding changes is seen


NUMBERS = numpy.random.default_rng(0).integers(0, 2**32, (64, 64), "uint32").view("float32")


NUMBERS = numpy.where(abs(NUMBERS) < 1e38, NUMBERS, 0)  # infinity times 0 would spoil a product


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", LOWER)
def test_all_kernels_round_to_the_same_bits(precision, kernels):
    step = dl.compile(
        lambda x: x @ dl.tensor(numpy.eye(64, dtype="float32")), precision=precision, kernels=kernels
    )
    expected = round_off.forward(numpy, NUMBERS, bits=PRECISIONS[precision])
    numpy.testing.assert_array_equal(step(dl.tensor(NUMBERS)).numpy(), expected)


def test_a_gpu_rounds_to_the_same_bits(gpu):
    eye = on_gpu(numpy.eye(64, dtype="float32"))
    step = dl.compile(lambda x: x @ eye, precision="bfloat16")
    expected = round_off.forward(numpy, NUMBERS, bits=7)
    numpy.testing.assert_array_equal(step(on_gpu(NUMBERS)).numpy(), expected)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", LOWER)
def test_training_is_near_that_in_float32(precision, kernels, rng):
    batches = rng.random((5, 8, 12)).astype("float32")
    losses = {}
    for choice in ("float32", precision):
        network = autoencoder()
        optimizer = dl.Adam(network.parameters())
        step = dl.compile(make_step(network, optimizer), precision=choice, kernels=kernels, verify=True)
        losses[choice] = numpy.array([step(dl.tensor(x)).item() for x in batches])
    difference = abs(losses[precision] - losses["float32"]).max()
    assert 0 < difference < 20 * 2.0 ** -PRECISIONS[precision]


def test_other_dtypes_are_left_alone(rng):
    a = rng.normal(size=(6, 6))
    step = dl.compile(lambda a: a @ a, precision="bfloat16")
    numpy.testing.assert_array_equal(step(dl.tensor(a)).numpy(), a @ a)


def test_stacks_of_matrices_are_rounded_too(rng):
    a = rng.normal(size=(3, 4, 5)).astype("float32")
    step = dl.compile(lambda a: a @ a.transpose(0, 2, 1), precision="bfloat16")
    expected = rounded(a, 7) @ rounded(a, 7).swapaxes(-1, -2)
    numpy.testing.assert_allclose(step(dl.tensor(a)).numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("precision", LOWER)
def test_convolutions_are_rounded_too(precision, kernels, rng):
    """And the factors of their gradients."""
    x = rng.normal(size=(4, 9, 8, 3)).astype("float32")
    w = rng.normal(size=(3, 3, 3, 8)).astype("float32")

    def function(x, w):
        x.requires_grad = w.requires_grad = True
        y = dl.conv2d(x, w, stride=2, padding="same")
        return y, *dl.grad((y * y).sum(), [x, w])

    y, *gradients = dl.compile(function, precision=precision, kernels=kernels)(dl.tensor(x), dl.tensor(w))
    bits = PRECISIONS[precision]
    where = {"stride": (2, 2), "padding": ((1, 1), (0, 1)), "dilation": (1, 1), "groups": 1}
    x, w, g = (rounded(a, bits).astype("float64") for a in (x, w, 2 * y.numpy()))
    expected = [
        conv_.forward(numpy, x, w, **where),
        conv_input_.forward(numpy, g, w, lengths=(9, 8), **where),
        conv_weight_.forward(numpy, x, g, window=(3, 3), **where),
    ]
    for ours, exact in zip((y, *gradients), expected, strict=True):
        numpy.testing.assert_allclose(ours.numpy(), exact, rtol=0, atol=1e-5 * abs(exact).max())


def test_a_tied_weight_is_rounded_once(rng):
    weight = dl.Parameter(rng.normal(size=(6, 4)).astype("float32"))

    def function(x):
        return dl.tanh(x @ weight) @ weight.T

    program = round_factors(recorded(function, rng.normal(size=(5, 6)).astype("float32")), "bfloat16")
    improved = pipeline.optimize(program)
    members = [member for step in improved.steps for member in getattr(step, "members", [step])]
    assert sum(member.name == "round_off" for member in members) == 3  # of x, the weight and tanh


def on_gpu(x):
    return dl.tensor(x, device="gpu")


@pytest.mark.parametrize("precision", LOWER)
def test_a_gpu_is_asked_for_it(gpu, rng, precision):
    a, b = rng.random((2, 512, 512)).astype("float32")
    exact = a.astype("float64") @ b
    step = dl.compile(lambda a, b: a @ b, precision=precision)
    result = step(on_gpu(a), on_gpu(b)).numpy()
    if precision == "bfloat16":
        bits = PRECISIONS[precision]
        expected = rounded(a, bits).astype("float64") @ rounded(b, bits)
        numpy.testing.assert_allclose(result, expected, rtol=1e-5)
    if hasattr(gpu_executor.library(), "computed_as"):  # the stand-in
        assert gpu_executor.library().computed_as == [77 if precision == "tf32" else 68]
    else:
        assert 3e-6 < abs(result - exact).max() / exact.max() < 3e-2


def test_a_gpu_computes_in_float32_unless_asked(gpu, rng):
    a, b = rng.random((2, 512, 512)).astype("float32")
    exact = a.astype("float64") @ b
    result = dl.compile(lambda a, b: a @ b)(on_gpu(a), on_gpu(b)).numpy()
    assert abs(result - exact).max() / exact.max() < 3e-6


def test_factors_are_packed_in_the_kernels_that_make_them(gpu, rng):
    batches = rng.random((4, 8, 12)).astype("float32")
    losses, launches = {}, {}
    for precision in ("float32", "bfloat16"):
        network = autoencoder().to("gpu")
        optimizer = dl.Adam(network.parameters())
        step = dl.compile(make_step(network, optimizer), precision=precision, verify=True)
        losses[precision] = [step(on_gpu(x)).item() for x in batches]
        (program,) = step.programs
        launches[precision] = len(program.executor.calls)
        (segment,) = program.executor.segments
        assert segment.graph is not None
    factors = [v for s in program.steps if isinstance(s, Gemm) for term in s.terms for v in term]
    assert {value.dtype.name for value in factors} == {"uint16"}
    # Only input and weights, and a gradient that one product hands to another, have no kernel to join.
    assert launches["bfloat16"] == launches["float32"] + 2
    network = autoencoder()
    cpu = dl.compile(make_step(network, dl.Adam(network.parameters())), precision="bfloat16")
    numpy.testing.assert_allclose(losses["bfloat16"], [cpu(dl.tensor(x)).item() for x in batches], rtol=1e-4)


def test_what_others_read_is_not_packed(gpu, rng):
    x = rng.normal(size=(5, 5)).astype("float32")

    def function(x):
        return x @ x, (x @ x.T).sum(), x * 2

    step = dl.compile(function, precision="bfloat16", verify=True)
    for _ in range(3):
        ours = step(on_gpu(x))
    numpy.testing.assert_array_equal(ours[2].numpy(), x * 2)  # x itself is as it was


def test_packed_factors_need_no_cublas(gpu, rng, monkeypatch):
    monkeypatch.setattr(gpu_executor, "library", lambda: None)
    a = rng.normal(size=(6, 7)).astype("float32")
    step = dl.compile(lambda a: a @ a.T + a.sum(), precision="bfloat16", verify=True)
    for _ in range(3):
        step(on_gpu(a))
    assert not step.programs[0].executor.cublas


def test_a_factor_that_is_constant_or_also_in_a_stack(gpu, rng):
    constant = numpy.eye(5, dtype="float32") / 3
    weight = dl.Parameter(dl.tensor(rng.normal(size=(5, 5)).astype("float32"), device="gpu"))

    def function(x):
        return x[0] @ dl.tensor(constant, device="gpu"), x[0] @ weight, x @ weight

    step = dl.compile(function, precision="bfloat16", verify=True)
    x = rng.normal(size=(2, 3, 5)).astype("float32")
    for _ in range(3):
        ours = step(on_gpu(x))
    expected = rounded(x, 7)[0] @ rounded(constant, 7)
    numpy.testing.assert_allclose(ours[0].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_packed_programs_are_evaluated_alike(rng):
    a = rng.normal(size=(6, 7)).astype("float32")
    program = round_factors(recorded(lambda a: a @ a.T, a), "bfloat16")
    improved = pipeline.optimize(program, on_gpu=True)
    assert any(step.primitive is transpose_ for step in improved.steps if hasattr(step, "primitive"))
    assert any(value.dtype == numpy.uint16 for value in improved.values())
    (plain,), _ = program.evaluate([a])
    (packed,), _ = improved.evaluate([a])
    numpy.testing.assert_allclose(packed, plain, rtol=1e-6)


def test_an_old_gpu_is_refused(strict_gpu, monkeypatch):
    monkeypatch.setattr(strict_gpu.cuda.Device, "compute_capability", "75")
    assert devices.compute_capability("gpu:0") == (7, 5)
    x = on_gpu(numpy.ones((2, 2), "float32"))
    with pytest.raises(devices.DeviceError, match=r"8\.0 or higher; gpu:0 has 7\.5: use 'float32'"):
        dl.compile(lambda x: x @ x, precision="bfloat16")(x)
    assert dl.compile(lambda x: x @ x, precision="tf32")(x).numpy()[0, 0] == 2


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="precision 'half': use one of 'float32', 'tf32', 'bfloat16'"):
        dl.compile(lambda x: x, precision="half")


def test_whole_numbers_of_16_bits_are_no_bfloat16(gpu, rng):
    counts, w = rng.integers(0, 999, (4, 3)).astype("uint16"), rng.random((3, 5)).astype("float32")
    for place in ("cpu", "gpu"):
        step = dl.compile(lambda x, w: (x @ w, w.T @ x.T), verify=True)
        for _ in range(3):
            results = step(dl.tensor(counts, device=place), dl.tensor(w, device=place))
        for y, expected in zip(results, (counts @ w, w.T @ counts.T), strict=True):
            numpy.testing.assert_allclose(y.numpy(), expected, rtol=1e-5)
