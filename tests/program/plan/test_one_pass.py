"""What is joined to a group's pass over memory, what is not stored, and that nothing else comes out."""

import numpy
import pytest

import minidl as dl
from minidl.primitives.windows import select_maxima_
from minidl.program.passes.pipeline import optimize
from minidl.program.plan.one_pass import join_passes
from minidl.program.plan.partition import split_sums
from minidl.program.program import Group, OnePass
from tests.program.networks import needs_c, recorded
from tests.program.passes.evaluation import evaluated

RNG = numpy.random.default_rng(0)


@pytest.fixture(autouse=True)
def small_arrays_count(monkeypatch):
    for module in ("one_pass", "partition", "schedule"):
        monkeypatch.setattr(f"minidl.program.plan.{module}.MIN_SHARED_WORK", 100)


def lengthened(x):
    """Return x and an image of zeros, which needs a gradient: inputs themselves are matrices in a program."""
    zero = dl.Parameter(numpy.zeros((1, *x.shape[1:]), x.dtype))
    return dl.concatenate([x, zero])


def joined(function, x, threads=2):
    """Return the program of a function, joined, after a check that it still computes the same."""
    program = optimize(recorded(lambda x: function(lengthened(x)), x))
    after = split_sums(join_passes(program, threads, set()), threads, set())
    x = x.reshape(len(x), -1)
    for ours, theirs in zip(evaluated(after, x), evaluated(program, x), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    return after


def passes(program):
    return [step for step in program.steps if isinstance(step, OnePass)]


def images(channels=5, dtype="float32", batch=6):
    return RNG.normal(size=(batch, 8, 4, channels)).astype(dtype)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("axis", [(0, 1, 2), None])
def test_sums_of_columns_and_of_everything_are_added_up_in_the_pass_that_computes_them(axis, threads):
    (step,) = passes(joined(lambda x: dl.sum(dl.exp(x) * x, axis=axis), images(), threads=threads))
    assert len(step.sums) == 1
    assert step.outputs == [step.sums[0].output]  # what is summed is not stored
    assert step.sums[0].output.shape[0] == threads


def test_what_is_needed_besides_its_sum_is_stored():
    def function(x):
        y = dl.exp(x)
        return y, y.sum(axis=(0, 1, 2))

    program = joined(function, images())
    (step,) = passes(program)
    assert step.outputs == [program.outputs[0], step.sums[0].output]


@pytest.mark.parametrize("axis", [(0,), (0, 2), (1, 2), (3,), (0, 1, 3)])
def test_other_sums_stay_steps_of_their_own(axis):
    assert not passes(joined(lambda x: dl.sum(dl.exp(x), axis=axis), images()))


def test_max_pooling_and_its_gradient_join_what_is_elementwise_beside_them():
    def function(x):
        y = dl.max_pool2d(dl.tanh(x), 2)
        return y, dl.grad((y * y).sum(), [x])[0]

    program = joined(function, images())
    names = [step.name for step in passes(program)]
    assert any(name.endswith("select_maxima") for name in names)
    assert any(name.startswith("scatter_to_maxima") for name in names)


@pytest.mark.parametrize(("window", "stride"), [(3, 2), (3, 3), (2, 3)])
def test_windows_that_overlap_or_leave_something_out_are_not_joined(window, stride):
    program = joined(lambda x: dl.max_pool2d(dl.tanh(x), window, stride), images())
    assert not passes(program)


def batch_norm_network(dtype="float32", channels=5):
    norm = dl.BatchNorm(channels).astype(dtype)

    def function(x):
        y = dl.max_pool2d(dl.relu(norm(x)), 2)
        return y, *dl.grad((y * y * y).sum(), [x, norm.gain, norm.bias])

    return function


def test_a_normalisation_stores_little_between_its_input_and_the_pool():
    program = joined(batch_norm_network(), images())
    large = [value for step in program.steps for value in step.outputs if value.shape == (7, 8, 4, 5)]
    # The input, its gradient, and two arrays that it is made of; all else is computed again from the input.
    assert len(large) == 4


def test_nothing_is_computed_again_for_what_needs_it_stored(monkeypatch):
    weight = dl.Parameter(RNG.normal(size=(5, 5)).astype("float32"))

    def function(x):
        y = x - 1
        return y @ weight, dl.exp(y).sum(axis=(0, 1, 2))

    for program in (
        joined(function, images()),
        joined(lambda x: (dl.exp(x), dl.exp(dl.exp(x)).sum()), images()),
    ):
        groups = [step for step in program.steps if isinstance(step, Group)]
        assert sum(member.name in ("subtract", "exp") for g in groups for member in g.members) == 2


def test_a_derivative_is_computed_where_it_is_needed_and_not_kept_from_the_forward_pass():
    weight = dl.Parameter(RNG.normal(size=(5, 5)).astype("float32"))
    shift = dl.Parameter(RNG.normal(size=5).astype("float32"))

    def function(x):
        y = dl.gelu(x + shift) @ weight
        return dl.grad((y * y).sum(), [shift])[0]

    x = RNG.normal(size=(64, 5)).astype("float32")
    program = optimize(recorded(function, x))
    after = join_passes(program, 2, set())
    numpy.testing.assert_allclose(evaluated(after, x)[0], evaluated(program, x)[0], rtol=1e-5, atol=1e-5)
    groups = [step for step in after.steps if isinstance(step, Group)]
    named = [{member.name for member in group.members} for group in groups]
    assert sum("erf" in names for names in named) == sum("exp" in names for names in named) == 1
    assert not any({"erf", "exp"} <= names for names in named)


def test_what_two_later_passes_need_is_not_computed_twice_if_it_is_not_cheap():
    weight = dl.Parameter(RNG.normal(size=(5, 5)).astype("float32"))

    def function(x):
        y = dl.exp(x)
        z = x @ weight
        return z * y, (z @ weight) * y

    groups = [step for step in joined(function, images()).steps if isinstance(step, Group)]
    assert sum(member.name == "exp" for group in groups for member in group.members) == 1


def test_a_result_or_a_new_state_is_stored():
    state = dl.tensor(numpy.zeros((7, 8, 4, 5), "float32"))

    def function(x):
        y = x * 2
        state.assign(state + y)
        return y, dl.exp(y).sum(axis=(0, 1, 2))

    program = joined(function, images())
    stored = {value for step in program.steps for value in step.outputs}
    assert {*program.outputs, *program.updates.values()} <= stored


def pooled_over_one_axis(x):
    """Return x (images, 8, 4, channels) pooled by 4, as (images, 32, channels)."""
    x = dl.concatenate([x.reshape(len(x), 32, x.shape[-1]), dl.ones((1, 32, x.shape[-1]), x.dtype)])
    x = dl.relu(x + 1)
    return select_maxima_(x, x, window=(4,), stride=(4,))


CASES = {
    "normalised, pooled": batch_norm_network,
    "pooled over one axis": lambda dtype, channels: (
        lambda x: dl.grad((pooled_over_one_axis(dl.relu(x + 1)) ** 2).sum(), [x])[0]
    ),
    "pooled by 2 x 4": lambda dtype, channels: (
        lambda x: dl.grad((dl.max_pool2d(dl.tanh(x), (2, 4)) ** 3).sum(), [x])[0]
    ),
    "pooled of what is stored": lambda dtype, channels: (
        lambda x: dl.grad(dl.max_pool2d(x, 2).sum(), [x])[0] * x * 2
    ),
    "broadcast by image and by column": lambda dtype, channels: (
        lambda x: (dl.exp(x * x[:, :1, :1]) * x[:1, :, :1, :1] + x[..., :1]).sum(axis=(0, 1, 2))
    ),
    "permuted": lambda dtype, channels: (
        lambda x: dl.exp(
            x.transpose(2, 1, 0, 3)[::-1] + x[:4, :, :, ::-1].transpose(2, 1, 0, 3)[:, :, :1]
        ).sum(axis=(0, 1, 2))
    ),
}


@needs_c
@pytest.mark.parametrize(("channels", "dtype"), [(1, "float64"), (5, "float32"), (40, "float32")])
@pytest.mark.parametrize("name", CASES)
def test_eager_numpy_and_c_agree_on_one_and_several_threads(name, channels, dtype):
    x = images(channels, dtype)
    x[1] = numpy.round(x[1])  # some are equal
    close = {"rtol": 2e-4, "atol": 2e-4} if dtype == "float32" else {"rtol": 1e-9, "atol": 1e-9}

    def run(kernels, threads=None):
        function = CASES[name](dtype, channels)

        def step(x):
            results = function(lengthened(x))
            return results if isinstance(results, tuple) else (results,)

        if kernels:
            step = dl.compile(step, kernels=kernels, threads=threads)
        results = [step(dl.tensor(x, requires_grad=True)) for _ in range(2)][-1]
        if kernels == "c" and threads == 1:
            assert any(isinstance(s, OnePass) for p in step.programs for s in p.steps)
        return [result.numpy() for result in results]

    expected = run(None)
    for kernels, threads in [("numpy", 2), ("c", 1), ("c", 3)]:
        for ours, theirs in zip(run(kernels, threads), expected, strict=True):
            numpy.testing.assert_allclose(ours, theirs, **close)
            assert ours.dtype == theirs.dtype


@needs_c
@pytest.mark.parametrize("row", [8, 1024])
def test_nan_infinities_and_equal_elements_are_pooled_as_eagerly(monkeypatch, row):
    """Also where a row is taken in parts."""
    monkeypatch.setattr("minidl.program.cpu.one_pass.ROW", row)
    x = images(4)
    x[0, 0, 0], x[1, 3, 1], x[2] = numpy.nan, numpy.inf, -numpy.inf
    x[3], x[4] = 0.0, -0.0

    def function(x):
        x = lengthened(x)
        y = dl.max_pool2d(dl.maximum(x, x), 2)
        return y, dl.grad((dl.where(dl.isfinite(y), y, 0 * y) + y).sum(), [x])[0]

    with numpy.errstate(invalid="ignore"):
        expected = function(dl.tensor(x, requires_grad=True))
        compiled = dl.compile(function, kernels="c", threads=2)
        for ours, theirs in zip(compiled(dl.tensor(x, requires_grad=True)), expected, strict=True):
            numpy.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@needs_c
def test_a_step_gives_the_same_bits_every_time():
    results = []
    for _ in range(2):
        step = dl.compile(batch_norm_network(channels=8), kernels="c", threads=2)
        x = dl.tensor(
            numpy.random.default_rng(3).normal(size=(6, 8, 4, 8)).astype("float32"), requires_grad=True
        )
        results += [[result.numpy() for result in step(x)] for _ in range(2)]
    for again in results[1:]:
        assert all(map(numpy.array_equal, again, results[0]))
