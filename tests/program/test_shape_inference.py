"""Shapes and dtypes without values: the same as those of what is computed, for every primitive."""

import tracemalloc

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.primitives.primitive import PRIMITIVES, Primitive, elementwise
from minidl.program.shape_inference import NeedsValues, result_without_values
from tests.primitives.test_gradients import BUILT_IN, WITHOUT_RESULT, case

#: Only passes apply these.
LOWERED = {"add_at", "check", "sort_places", "merge_places", "sum_runs", "scatter_sorted"}
LOWERED |= {"round_off", "to_bfloat16"}
RECORDED = [p for name, p in BUILT_IN.items() if name not in LOWERED | WITHOUT_RESULT and p.kind != "view"]


@pytest.mark.parametrize("primitive", RECORDED, ids=lambda p: p.name)
@given(data=st.data())
def test_shape_and_dtype_are_those_of_the_result(primitive, data):
    inputs, attributes = data.draw(case(primitive))
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    inputs = [numpy.asarray(x, dtype if x.dtype.kind == "f" else x.dtype) for x in inputs]
    expected = numpy.asarray(primitive.forward(numpy, *inputs, **attributes))
    result = result_without_values(primitive, inputs, attributes)
    assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
    assert not any(result.strides)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "int64", "uint8"])
@pytest.mark.parametrize("name", ["sum", "max", "cumsum", "argmax", "argsort", "equal", "add", "where"])
def test_dtypes_of_whole_numbers(name, dtype):
    x = numpy.ones((2, 3), dtype)
    attributes = {"sum": {"axis": (0,), "keepdims": False}, "max": {"axis": (0,), "keepdims": True}}
    attributes |= {"cumsum": {"axis": 1}, "argmax": {"axis": 1}, "argsort": {"axis": 0}}
    inputs = {"equal": [x, x], "add": [x, x], "where": [x != 0, x, x]}.get(name, [x])
    computed = PRIMITIVES[name].forward(numpy, *inputs, **attributes.get(name, {}))
    result = result_without_values(PRIMITIVES[name], inputs, attributes.get(name, {}))
    assert (result.shape, result.dtype) == (computed.shape, computed.dtype)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x + x.T,
        lambda x: dl.where(x > 0, x, x.T),
        lambda x: dl.linalg.solve(dl.ones((2, 2)), x.T),
        lambda x: dl.concatenate([x, x.T]),
        lambda x: x[dl.tensor([0, 1, 0]), dl.tensor([0, 1])],
        lambda x: x.reshape(7),
        lambda x: x @ x,
    ],
)
def test_shapes_that_do_not_fit_are_refused_as_by_the_plain_function(wrong):
    x = dl.ones((2, 3))
    with pytest.raises((ValueError, IndexError)) as plain:
        wrong(x)
    with pytest.raises(type(plain.value)) as compiled:
        dl.compile(wrong, kernels="numpy")(x)
    assert str(compiled.value) == str(plain.value)


def test_views_share_the_memory_of_what_has_no_values():
    x = result_without_values(PRIMITIVES["add"], [numpy.ones((4, 3)), numpy.ones(3)], {})
    other = result_without_values(PRIMITIVES["add"], [x, x], {})
    for view in (x.T, x[1:, ::-1], x.reshape(2, 6), x[None]):
        assert numpy.shares_memory(view, x)
        assert not numpy.shares_memory(view, other)


@pytest.fixture
def own_primitive():
    """Declare primitives of a user's, and forget them afterwards."""
    before = dict(PRIMITIVES)
    yield
    for name in PRIMITIVES.keys() - before.keys():
        del PRIMITIVES[name]


def sorted_lines(xp, x, out=None):
    result = xp.sort(x, axis=-1)
    return result if out is None else xp.copyto(out, result)


@pytest.mark.parametrize("catches", [False, True])
def test_a_primitive_of_which_nothing_is_known_is_computed(own_primitive, catches):
    seen = []

    def forward(xp, x, out=None):
        seen.append(x.copy())
        return sorted_lines(xp, x, out)

    own = Primitive("sorted_lines_of_the_test", forward, gradients=(None,))
    with pytest.raises(NeedsValues):
        result_without_values(own, [numpy.ones(3)], {})

    def f(x):
        try:
            return own(x * 2) + 1
        except BaseException:
            if not catches:
                raise
            return x

    x = dl.tensor([[3.0, 1.0, 2.0]])
    numpy.testing.assert_array_equal(dl.compile(f, kernels="numpy")(x).numpy(), [[3.0, 5.0, 7.0]])
    assert all((values == [[6.0, 2.0, 4.0]]).all() for values in seen)


def test_an_elementwise_primitive_of_the_users_is_recorded_without_values(own_primitive):
    shapes = []

    def forward(xp, x, out=None):
        shapes.append(x.shape)
        return xp.multiply(x, 3, out=out)

    own = elementwise("three_times_of_the_test", forward, gradients=(lambda g, out, x: 3 * g,))
    f = dl.compile(lambda x: own(x) + 1, kernels="numpy")
    numpy.testing.assert_array_equal(f(dl.tensor([1.0, 2.0])).numpy(), [4.0, 7.0])
    assert shapes == [(1,), (2,)]  # the second is the replay


def test_recording_takes_no_memory_for_results():
    width = 1024
    w = dl.Parameter(numpy.zeros((width, width), "float32"))

    def step(x):
        y = x
        for _ in range(40):
            y = dl.tanh(y @ w) * 2 + x
        loss = (y * y).mean()
        loss.backward()
        w.assign(w - w.grad)
        return loss

    x = dl.tensor(numpy.ones((width, width), "float32"))
    whole = width * width * 4
    compiled = dl.compile(step, kernels="numpy")
    peaks = []
    run = type(compiled)._finished

    def finished(self, *arguments):
        peaks.append(tracemalloc.get_traced_memory()[1])
        return run(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(compiled), "_finished", finished)
        patch.setattr(type(compiled), "_replay", lambda self, *arguments: None)
        tracemalloc.start()
        try:
            compiled(x)
        finally:
            tracemalloc.stop()
    assert peaks[0] < 4 * whole  # copies of the argument; the tape of the plain function has 120 such arrays


def test_an_error_in_values_is_raised_by_the_first_call_and_changes_nothing():
    w = dl.Parameter(numpy.eye(2, dtype="float32"))

    @dl.compile(kernels="numpy")
    def step(x):
        y = dl.linalg.inv(x * 1)
        w.assign(w + y)
        return y

    with pytest.raises(numpy.linalg.LinAlgError):
        step(dl.zeros((2, 2)))
    numpy.testing.assert_array_equal(w.numpy(), numpy.eye(2))
    numpy.testing.assert_array_equal(step(dl.tensor(numpy.eye(2) * 2)).numpy(), numpy.eye(2) / 2)
    numpy.testing.assert_array_equal(w.numpy(), numpy.eye(2) * 1.5)
