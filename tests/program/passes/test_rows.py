"""Which steps are joined around reductions of rows."""

import numpy
import pytest

import minidl as dl
from minidl.program.passes import pipeline
from minidl.program.program import Rows
from tests.program.networks import recorded
from tests.program.passes.evaluation import evaluated

RNG = numpy.random.default_rng(0)


def kinds(program):
    return [type(step).__name__ for step in program.steps if not step.is_view]


def test_softmax_between_elementwise_steps_is_one_step():
    program = pipeline.optimize(recorded(lambda x: dl.softmax(x * 2 + 1) * x, RNG.normal(size=(4, 3))))
    assert kinds(program) == ["Rows"]
    assert program.steps[0].outputs == program.outputs


@pytest.mark.parametrize("shape", [(6, 8), (2, 3, 8)])
def test_a_layer_normalisation_and_its_gradient_are_one_step_each(shape):
    layer = dl.LayerNorm(8)
    weight = dl.Parameter(RNG.normal(size=(8, 8)).astype("float32"))

    def function(x):
        return dl.grad(((dl.relu(layer(x @ weight)) @ weight) ** 2).sum(), [weight])[0]

    x = RNG.normal(size=shape).astype("float32")
    program = recorded(function, x)
    optimized = pipeline.optimize(program)
    assert kinds(optimized).count("Rows") == 2
    for ours, theirs in zip(evaluated(optimized, x), evaluated(program, x), strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_rows_never_wait_for_themselves():
    def function(x):
        y = x * 2
        total = y.sum(axis=1, keepdims=True)
        across = (y * total).sum(axis=0)  # waits for the rows, and some rows wait for it
        return y * across + total, dl.softmax(y + across)

    program = pipeline.optimize(recorded(function, RNG.normal(size=(4, 3))))
    assert kinds(program).count("Rows") == 2
    done = set(program.inputs)
    for step in program.steps:
        assert all(value in done or value.kind != "result" for value in step.inputs)
        done.update(step.outputs)


def test_reductions_of_other_axes_and_updates_are_not_joined():
    state = dl.tensor(numpy.ones((4, 3)))

    def function(x):
        state.assign(state - dl.softmax(state) * x)
        return dl.softmax(x, axis=0), x.sum(axis=0, keepdims=True)

    program = pipeline.optimize(recorded(function, RNG.normal(size=(4, 3))))
    rows = [step for step in program.steps if isinstance(step, Rows)]
    assert all(
        member.attributes["axis"] == (1,) for step in rows for member in step.members if member.attributes
    )


def test_the_order_of_random_draws_is_kept():
    generator = dl.Generator(0)

    def function(x):
        first = dl.random.normal((4, 3), generator=generator)
        y = dl.softmax(x + first)
        second = dl.random.normal((4, 3), generator=generator)
        return dl.softmax(y * second + x), dl.softmax(x)

    program = pipeline.optimize(recorded(function, RNG.normal(size=(4, 3))))
    draws = [step for step in program.steps if step.generator is not None]
    assert len(draws) == 2
    outputs = [step.output for step in draws]
    readers = [next(i for i, s in enumerate(program.steps) if o in s.inputs) for o in outputs]
    assert readers == sorted(readers)
