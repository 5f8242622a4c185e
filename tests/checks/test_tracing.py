import numpy
import pytest

import minidl as dl
from minidl.checks.tracing import OperationTrace, UsageRecorder
from minidl.layers.layer import layer_hook
from minidl.mode import mode
from minidl.primitives.primitive import elementwise
from tests.checks.mistakes import named


@pytest.fixture
def found():
    return []


def contains(values, x):
    return any(value is x for value in values)


def test_what_a_function_uses_is_reported(found):
    layer, dropout, state, outside = dl.Dense(3, 2, seed=0), dl.Dropout(0.5, seed=1), dl.zeros(2), dl.ones(2)
    recorder = UsageRecorder(found.append)
    with recorder.recording():
        y = dropout(layer(dl.ones((4, 3)))) + outside
        state.assign(y.sum(axis=0))
    for used in (layer, layer.weight, layer.bias, dropout, dropout.generator, state, outside):
        assert contains(found, used)
    assert not contains(found, y)
    assert list(recorder.assigned) == [id(state)]
    assert mode.recorder is None


def test_the_hook_that_was_there_is_called_too(found):
    hooked = []

    def hook(layer, inputs):
        hooked.append(layer)
        return layer.forward(*inputs)

    layer = dl.ReLU()
    with layer_hook(hook), UsageRecorder(found.append).recording():
        layer(dl.ones(3))
    assert hooked == found == [layer]


def test_tensors_that_the_function_makes_are_not_reported(found):
    with UsageRecorder(found.append).recording():
        dl.exp(dl.ones(3)) * 2.0
    assert found == []


def test_reading_values_is_allowed_and_kept(found):
    trace, x = OperationTrace(found.append), dl.tensor([1.0, 2.0])
    with trace.recording():
        assert x.sum().item() == 3
    (source, reader, line) = trace.readings[0]
    assert source is trace.operations[0].out
    assert "item" in reader
    assert "test_tracing.py" in line


def test_operations_are_kept_with_their_values_at_that_time(found):
    trace, x = OperationTrace(found.append), dl.tensor([1.0, 2.0])
    with trace.recording():
        y = x * x
        with dl.no_grad():
            z = dl.exp(y)
        x.assign([5.0, 5.0])
    trace.finish()
    first, second, last = trace.operations
    assert (first.primitive.name, second.primitive.name, last.primitive.kind) == ("multiply", "exp", "assign")
    numpy.testing.assert_array_equal(first.arrays[0], [1, 2])
    assert (first.taped, second.taped) == (True, False)
    assert trace.descendants(x) >= {id(x), id(y), id(z)}
    assert trace.overwritten == []


def test_a_forward_that_overwrites_its_input_is_named(found):
    name = named("careless")
    careless = elementwise(name, lambda xp, x, out=None: xp.multiply(x, 2, out=x), gradients=(None,))
    trace, x = OperationTrace(found.append), dl.tensor([1.0, 2.0])
    with trace.recording():
        dl.exp(x)
        careless(x)
    ((overwritten, text),) = trace.overwritten
    assert overwritten is x
    assert text.startswith(
        f"the forward of '{name}' overwrites its input of shape (2,) (test_tracing.py, line"
    )


def test_an_array_that_is_overwritten_after_its_last_use_is_noticed(found):
    trace, x = OperationTrace(found.append), dl.tensor([1.0, 2.0], requires_grad=True)
    with trace.recording():
        y = dl.exp(x)
        y.data[0] = 7
    trace.finish()
    ((_, text),) = trace.overwritten
    assert text == "the result of 'exp' of shape (2,) is overwritten after it was used"
