"""Each pass computes the same as before on random programs, and does what it is for on a small one."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as dl
from minidl.mode import mode
from minidl.program.passes import expand, group, pipeline, simplify
from minidl.program.program import Gemm, Group
from minidl.program.recorder import Recorder
from tests.program.random_programs import functions


def recorded(function, *inputs):
    """Return the unimproved program of a function of Tensors."""
    tensors = [dl.tensor(x) for x in inputs]
    recorder = Recorder(tensors)
    mode.recorder = recorder
    try:
        results = function(*tensors)
    finally:
        mode.recorder = None
    return recorder.finish(list(results) if isinstance(results, tuple) else [results])


def names(program):
    return [step.name for step in program.steps]


def evaluated(program, x):
    """Return outputs and new states; what each step computes has the shape and dtype that it declares."""
    arrays = {value: value.array for value in program.values() if value.kind in ("state", "constant")}
    arrays |= zip(program.inputs, [x], strict=True)
    for step in program.steps:
        for value, array in step.evaluate(numpy, arrays).items():
            assert (array.shape, array.dtype) == (value.shape, value.dtype), step
            arrays[value] = array
    states = sorted(program.updates, key=lambda state: state.tensor.created_at)
    return [arrays[value] for value in [*program.outputs, *(program.updates[state] for state in states)]]


@pytest.mark.parametrize(
    "count", range(1, len(pipeline.PASSES) + 1), ids=lambda n: pipeline.PASSES[n - 1].__name__
)
@given(drawn=functions())
@settings(max_examples=20)
def test_each_pass_on_top_of_the_ones_before_computes_the_same(count, drawn):
    function, make_states, shape = drawn
    states = make_states()
    x = numpy.random.default_rng(1).uniform(-1, 1, shape)
    saved = [state.numpy() for state in states]
    program = recorded(lambda x: function(x, states), x)
    for state, value in zip(states, saved, strict=True):  # what a program reads is the state before
        state.assign(value)
    before = evaluated(program, x)
    for improve in pipeline.PASSES[:count]:
        program = improve(program)
    for ours, theirs in zip(evaluated(program, x), before, strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@given(drawn=functions())
@settings(max_examples=20)
def test_the_passes_for_a_gpu_compute_the_same(drawn):
    function, make_states, shape = drawn
    states, saved = make_states(), make_states()
    x = numpy.random.default_rng(1).uniform(-1, 1, shape)
    program = recorded(lambda x: function(x, states), x)
    for state, value in zip(states, saved, strict=True):
        state.assign(value)
    improved = pipeline.optimize(program, on_gpu=True)
    for ours, theirs in zip(evaluated(improved, x), evaluated(program, x), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("keepdims", [False, True])
def test_expanded_reductions_keep_what_is_not_finite(keepdims):
    x = numpy.array([[1.0, 1000.0], [-numpy.inf, -numpy.inf], [numpy.inf, 0.0], [numpy.nan, 0.0]])

    def function(x):
        return dl.logsumexp(x, axis=1, keepdims=keepdims), dl.softmax(x)

    with numpy.errstate(all="ignore"):
        program = recorded(function, x)
        expanded = expand.expand_reductions(program)
        assert not {"softmax", "logsumexp"} & set(names(expanded))
        for ours, theirs in zip(evaluated(expanded, x), evaluated(program, x), strict=True):
            numpy.testing.assert_array_equal(ours, theirs)


def test_dead_instructions_are_dropped_but_random_draws_stay():
    generator = dl.Generator(0)

    def function(x):
        dl.exp(x * 3)
        dl.primitives.random.random_uniform(x, generator=generator)
        return x + 1

    assert names(simplify.drop_dead(recorded(function, numpy.ones(2)))) == ["random_uniform", "add"]


def test_constants_are_folded():
    program = recorded(lambda x: x * (dl.sqrt(dl.full((), 16.0, "float64")) + 1), numpy.ones(2))
    program = simplify.drop_dead(simplify.fold_constants(program))
    assert names(program) == ["multiply"]
    assert program.steps[0].inputs[1].array == 5


def test_equal_expressions_are_merged_but_random_draws_are_not():
    generator = dl.Generator(0)

    def function(x):
        draws = [dl.primitives.random.random_uniform(x, generator=generator) for _ in range(2)]
        return dl.exp(x * 2) + dl.exp(x * 2) + draws[0] + draws[1]

    merged = names(simplify.merge_equal(recorded(function, numpy.ones(2))))
    assert merged.count("exp") == merged.count("multiply") == 1
    assert merged.count("random_uniform") == 2


def test_products_of_a_tied_weight_add_up_in_one_gemm():
    weight = dl.Parameter(numpy.random.default_rng(0).normal(size=(5, 3)))

    def function(x):
        y = (x @ weight) @ weight.T
        (y * y).sum().backward()
        gradient, weight.grad = weight.grad, None
        return gradient

    program = pipeline.optimize(recorded(function, numpy.random.default_rng(1).normal(size=(4, 5))))
    gemms = [step for step in program.steps if isinstance(step, Gemm)]
    assert [len(gemm.terms) for gemm in gemms] == [1, 1, 1, 2]
    assert gemms[-1].output is program.outputs[0]


def test_a_transpose_that_exchanges_nothing_leaves_its_product_alone(rng):
    a, b = rng.normal(size=(3, 3)), rng.normal(size=(3, 4))
    for function in (
        lambda a, b: (a @ b).transpose(0, 1) * 2,
        lambda a, b: dl.swapaxes(a @ a, 0, 0),
        lambda a, b: ((a @ b).T.transpose(0, 1) @ a).T.transpose(1, 0),
    ):
        step = dl.compile(function)
        for _ in range(2):
            y = step(dl.tensor(a), dl.tensor(b))
        numpy.testing.assert_allclose(y.numpy(), function(dl.tensor(a), dl.tensor(b)).numpy())


def test_elementwise_chains_form_groups_with_their_broadcast_operands():
    bias, scale = dl.Parameter(numpy.ones(3)), dl.Parameter(numpy.ones((4, 1)))

    def function(x):
        y = dl.relu(x + bias)
        return (y * scale - 1) * dl.sigmoid(y), y

    program = pipeline.optimize(recorded(function, numpy.ones((4, 3))))
    assert len(program.steps) == 1
    (step,) = program.steps
    assert isinstance(step, Group)
    assert set(step.outputs) == set(program.outputs)


def test_a_group_never_waits_for_itself():
    def function(x):
        y = x * 2  # read by the sum in between and by the last product
        return y * (y + x).sum(axis=0) + dl.exp(y)

    program = group.group_elementwise(recorded(function, numpy.ones((4, 3))))
    done = set(program.inputs)
    for step in program.steps:
        assert all(v in done or v.kind != "result" for v in step.inputs)
        done.update(step.outputs if not isinstance(step, Group) else [m.output for m in step.members])


def test_broadcast_gradients_are_not_written_out():
    def function(x):
        x.requires_grad = True
        return dl.grad(dl.tanh(x).mean(), x)

    program = pipeline.optimize(recorded(function, numpy.ones((4, 3))))
    assert names(program) == ["tanh tanh_backward"]


def test_old_state_that_is_returned_is_copied():
    p = dl.Parameter([1.0, 2.0])

    def function(x):
        old = p.detach().reshape(2, 1).reshape(2)
        return old, p * x

    program = simplify.protect_old_state(simplify.drop_aliases(recorded(function, numpy.ones(2))))
    assert names(program)[-1] == "multiply" or "cast" in names(program)
    assert program.outputs[0] not in program.states


def test_empty_arrays_of_many_axes_stay_empty():
    step = dl.compile(lambda x: (x * 2 + x.sum(), x.sum()))
    results = step(numpy.zeros((2, 0, 3)))
    assert [result.shape for result in results] == [(2, 0, 3), ()]


@given(st.integers(0, 5))
def test_the_pipeline_leaves_a_program_that_is_done_alone(extra):
    program = pipeline.optimize(recorded(lambda x: dl.exp(x) + extra, numpy.ones(3)))
    assert len(program.steps) == 1
