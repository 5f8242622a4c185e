"""Recurrent layers: formulas, states, masks and what is refused. Against PyTorch: tests/oracle."""

import numpy
import pytest

import minidl as dl

KINDS = [dl.RNN, dl.LSTM, dl.GRU]


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


def test_an_lstm_step_is_the_formula(rng):
    layer = dl.LSTM(3, 2, return_state=True, seed=0).astype("float64")
    x, h, c = rng.normal(size=(4, 1, 3)), rng.normal(size=(4, 2)), rng.normal(size=(4, 2))
    gates = x[:, 0] @ layer.input_weight.numpy() + h @ layer.recurrent_weight.numpy() + layer.bias.numpy()
    i, f, g, o = numpy.split(gates, 4, axis=1)
    c_after = sigmoid(f) * c + sigmoid(i) * numpy.tanh(g)
    h_after = sigmoid(o) * numpy.tanh(c_after)
    for ours, expected in zip(layer(x, h, c), (h_after, h_after, c_after), strict=True):
        numpy.testing.assert_allclose(ours.numpy(), expected, rtol=1e-12)


def test_the_forget_gate_is_open_to_begin_with():
    numpy.testing.assert_array_equal(dl.LSTM(3, 2).bias.numpy(), [0, 0, 1, 1, 0, 0, 0, 0])
    assert (dl.LSTM(3, 2, bias_initializer="zeros").bias.numpy() == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_step_or_all_of_them(kind, rng):
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    last, sequences = kind(3, 4, seed=0)(x), kind(3, 4, return_sequences=True, seed=0)(x)
    assert sequences.shape == (2, 5, 4)
    numpy.testing.assert_array_equal(last.numpy(), sequences.numpy()[:, -1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_two_parts_is_the_sequence(kind, rng):
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    layer = kind(3, 4, return_sequences=True, return_state=True, seed=0)
    whole, *_ = layer(x)
    first, *state = layer(x[:, :2])
    second, *_ = layer(x[:, 2:], *state)
    numpy.testing.assert_allclose(dl.concatenate([first, second], 1).numpy(), whole.numpy(), atol=1e-6)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stateful_layer_goes_on_where_it_ended(kind, compiled, rng):
    x = rng.normal(size=(2, 6, 3)).astype("float32")
    whole = kind(3, 4, return_sequences=True, seed=0)(x).numpy()
    layer = kind(3, 4, return_sequences=True, stateful=True, seed=0)
    call = dl.compile(lambda x: layer(x)) if compiled else layer
    layer.reset_state(2)
    parts = [call(dl.tensor(x[:, i : i + 2])).numpy() for i in (0, 2, 4)]
    numpy.testing.assert_allclose(numpy.concatenate(parts, 1), whole, atol=1e-6)
    layer.reset_state(2)
    numpy.testing.assert_allclose(layer(x[:, :2]).numpy(), whole[:, :2], atol=1e-6)


def test_a_reset_state_needs_no_new_program(rng):
    layer = dl.LSTM(3, 4, stateful=True, seed=0)
    layer.reset_state(2)
    run = dl.compile(layer.forward)
    x = dl.tensor(rng.normal(size=(2, 5, 3)).astype("float32"))
    first, second = run(x).numpy(), run(x).numpy()
    assert not numpy.array_equal(first, second)
    layer.reset_state(2)
    numpy.testing.assert_array_equal(run(x).numpy(), first)
    assert len(run.programs) == 1


def test_a_stateful_layer_needs_a_state_for_its_sequences():
    layer = dl.GRU(3, 4, stateful=True)
    with pytest.raises(ValueError, match=r"no state for 2 sequences: call reset_state\(2\) first"):
        layer(dl.ones((2, 5, 3)))
    layer.reset_state(3)
    with pytest.raises(ValueError, match="no state for 2 sequences"):
        layer(dl.ones((2, 5, 3)))
    assert layer.state_dict()["carried.h"].shape == (3, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_steps_change_nothing(kind, rng):
    x = rng.normal(size=(2, 5, 3)).astype("float32")
    mask = numpy.array([[1, 1, 1, 0, 0], [0, 1, 1, 1, 1]], bool)  # padding behind, and before
    layer = kind(3, 4, return_sequences=True, return_state=True, seed=0)
    y, *state = layer(x, mask=mask)
    for sequence, part in enumerate((slice(0, 3), slice(1, 5))):
        alone, *end = layer(x[sequence : sequence + 1, part])
        numpy.testing.assert_allclose(y.numpy()[sequence, part], alone.numpy()[0], atol=1e-6)
        for ours, expected in zip(state, end, strict=True):
            numpy.testing.assert_allclose(ours.numpy()[sequence], expected.numpy()[0], atol=1e-6)
    assert (y.numpy()[~mask] == 0).all()
    last = kind(3, 4, seed=0)(x, mask=mask)
    numpy.testing.assert_array_equal(last.numpy(), state[0].numpy())


def test_what_does_not_fit_is_refused():
    layer = dl.LSTM(3, 4)
    with pytest.raises(ValueError, match=r"LSTM\(3, 4\) takes inputs \(batch, time, 3\)"):
        layer(dl.ones((2, 3)))
    with pytest.raises(ValueError, match="at least one step"):
        layer(dl.ones((2, 0, 3)))
    with pytest.raises(ValueError, match=r"takes inputs \(2, 4\); got \(2, 5\)"):
        layer(dl.ones((2, 5, 3)), dl.ones((2, 5)))
    with pytest.raises(TypeError, match="boolean"):
        layer(dl.ones((2, 5, 3)), mask=dl.ones((2, 5)))
    with pytest.raises(ValueError, match="at least one feature"):
        dl.GRU(0, 3)
    assert repr(dl.LSTM(3, 4, return_sequences=True)) == "LSTM(3, 4, return_sequences=True)"
