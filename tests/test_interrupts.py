"""Ctrl-C where a function of minidl begins, each of them in turn, leaves nothing of it behind.

Python raises KeyboardInterrupt there, after calls and at the ends of loops. `processes/test_signals.py` sends
real signals at any instant.
"""

import inspect
import sys

import pytest

import minidl as dl
from minidl.mode import mode


def is_interrupted(number, function):
    """Call a function; return whether a KeyboardInterrupt came, where a function of minidl begins."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR  # closing one is not interrupted
        is_ours = frame.f_globals.get("__name__", "").startswith("minidl.") and not is_generator
        if event == "call" and is_ours:
            count += 1
            if count > number:
                sys.settrace(None)
                raise KeyboardInterrupt

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(outer)
    return False


def make_step(compiled):
    network = dl.Network([dl.Dense(3, 4, seed=0), dl.ReLU(), dl.Dropout(0.2, seed=0), dl.Dense(4, 2, seed=1)])
    optimizer = dl.Adam(network.parameters(), 0.01, clip_global_norm=1.0)
    x = dl.ones((5, 3))

    def step(x):
        loss = dl.mean(network(x) ** 2)
        loss.backward()
        optimizer.step()
        return loss

    call = dl.compile(step, **compiled) if compiled is not None else step
    call(x)
    return lambda: call(x)


@pytest.mark.parametrize("compiled", [None, {"kernels": "numpy"}, {"kernels": "auto"}])
def test_a_step_is_interrupted_where_any_function_begins(compiled):
    step = make_step(compiled)
    number = 0
    while is_interrupted(number, step):
        assert mode.grad_enabled, number
        assert mode.recorder is None, number
        assert mode.layer_hook is None, number
        step()
        number += 1
    assert number > 10


@pytest.mark.parametrize("compile", [False, True])
def test_a_training_is_interrupted_where_some_functions_begin(compile):
    x = dl.random.normal((8, 3), generator=dl.Generator(0)).numpy()

    def train():
        network = dl.Network([dl.Dense(3, 3, seed=0)])
        trainer = dl.Trainer(network, dl.mean_squared_error, "adam", compile=compile)
        trainer.fit(x, x, epochs=1, batch_size=4, validation_data=(x, x), verbose=False)

    number = 0
    while is_interrupted(number, train):
        assert mode.grad_enabled, number
        assert mode.recorder is None, number
        number += 41
    assert number > 300
