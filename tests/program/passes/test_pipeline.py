"""All passes, on random programs and on small ones."""

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidl as dl
from minidl.program.passes import pipeline
from tests.program.networks import recorded
from tests.program.passes.evaluation import evaluated
from tests.program.random_programs import functions


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


@given(st.integers(0, 5))
def test_the_pipeline_leaves_a_program_that_is_done_alone(extra):
    program = pipeline.optimize(recorded(lambda x: dl.exp(x) + extra, numpy.ones(3)))
    assert len(program.steps) == 1
