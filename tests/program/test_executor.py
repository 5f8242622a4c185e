"""Every executor gives the numbers of the reference, and answers what a listing and a profile ask."""

import numpy
import pytest

import minidl as dl
from minidl.program.cpu.executor import NumpyExecutor
from minidl.program.passes.pipeline import optimize
from minidl.program.reference_executor import ReferenceExecutor
from tests.program.networks import needs_c, recorded

EXECUTORS = {
    "reference": ReferenceExecutor,
    "numpy": lambda program: NumpyExecutor(program, threads=2),
    "c": lambda program: NumpyExecutor(program, threads=2, kernels="c"),
}


@pytest.mark.parametrize("name", ["reference", "numpy", pytest.param("c", marks=needs_c)])
def test_all_executors_do_the_same(name, rng):
    x = rng.normal(size=(40, 30))
    state = dl.Parameter(rng.normal(size=(30, 30)))

    def function(x):
        y = dl.tanh(x @ state)
        state.assign(state * 0.5)
        return y.sum(axis=0)

    before = state.numpy()
    program = recorded(function, x)
    state.assign(before)
    executor = EXECUTORS[name](optimize(program))
    executor.poison()
    executor.run()
    (output,) = executor.program.outputs
    numpy.testing.assert_allclose(executor.array(output), numpy.tanh(x @ before).sum(axis=0))
    numpy.testing.assert_allclose(state.numpy(), before / 2)
    assert isinstance(executor.note(), str)
    if executor.memory is not None:
        seconds = {}
        assert executor.timed(lambda task, time: seconds.update({id(task): time}))() > 0
        assert seconds
        assert all(rate > 0 for rate in executor.peak_rates())


def test_the_reference_executor_refuses_to_time_steps():
    executor = ReferenceExecutor(recorded(lambda x: x * 2, numpy.ones(3)))
    for ask in (lambda: executor.timed(print), executor.peak_rates):
        with pytest.raises(ValueError, match="reference executor"):
            ask()
