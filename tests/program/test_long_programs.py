"""Unrolled recurrences: twice the steps take twice the time to record, improve and plan, and no more."""

import gc
from time import process_time

import numpy
import pytest

import minidl as dl
from minidl.program.cpu.executor import NumpyExecutor
from minidl.program.passes.pipeline import optimize
from tests.program.networks import recorded

BATCH, UNITS = 2, 4


def seconds(steps):
    """Return what it takes to make an executor of the training step of a recurrence, all but compiling C."""
    layer = dl.LSTM(3, UNITS, seed=0)

    optimizer = dl.Adam(layer.parameters())

    def step(x):
        loss = dl.mean(layer(x) ** 2)
        loss.backward()
        optimizer.step()
        return loss

    x = numpy.ones((BATCH, steps, 3), "float32")
    gc.collect()
    gc.disable()  # a collection looks at everything that the other tests have left
    try:
        started = process_time()
        NumpyExecutor(optimize(recorded(step, x)), threads=2, kernels="numpy")
        return process_time() - started
    finally:
        gc.enable()


def test_time_grows_with_the_steps():
    seconds(4)
    ratios = []
    for _ in range(3):  # other processes may disturb one of them
        ratios.append(seconds(80) / seconds(40))
        if ratios[-1] < 2.6:
            return
    pytest.fail(f"twice the steps take {min(ratios):.1f} times as long")
