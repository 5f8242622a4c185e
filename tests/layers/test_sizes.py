"""Sizes that are left open and filled from a sample."""

import copy
import pickle

import numpy
import pytest

import minidl as dl

LAYERS = {
    "Dense": (lambda n: dl.Dense(n, 3, seed=1), (4,)),
    "Conv1D": (lambda n: dl.Conv1D(n, 3, 2, seed=1), (5, 4)),
    "Conv2D": (lambda n: dl.Conv2D(n, 3, 2, padding="same", bias=False, seed=1), (5, 5, 4)),
    "ConvTranspose2D": (lambda n: dl.ConvTranspose2D(n, 3, 2, seed=1), (3, 3, 4)),
    "DepthwiseConv2D": (lambda n: dl.DepthwiseConv2D(n, 3, 2, seed=1), (5, 5, 4)),
    "BatchNorm": (lambda n: dl.BatchNorm(n, momentum=0.2), (5, 5, 4)),
    "LayerNorm": (lambda n: dl.LayerNorm(n), (4,)),
    "RMSNorm": (lambda n: dl.RMSNorm(n), (4,)),
    "GroupNorm": (lambda n: dl.GroupNorm(2, n), (5, 4)),
    "RNN": (lambda n: dl.RNN(n, 3, seed=1), (5, 4)),
    "LSTM": (lambda n: dl.LSTM(n, 3, return_sequences=True, seed=1), (5, 4)),
    "GRU": (lambda n: dl.GRU(n, 3, seed=1), (5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_an_open_layer_becomes_the_one_of_that_size(name):
    make, shape = LAYERS[name]
    layer, expected = make(None), make(4)
    with pytest.raises(RuntimeError, match=rf"{name}\(.*None.*call initialize\(sample\) before it is used"):
        layer(dl.zeros((2, *shape)))
    assert layer.parameters() == []
    assert layer.initialize(shape) is layer
    assert vars(layer).keys() - {"training"} == vars(expected).keys()
    assert repr(layer) == repr(expected)
    state = layer.state_dict()
    assert list(state) == list(expected.state_dict())
    for key, value in expected.state_dict().items():
        numpy.testing.assert_array_equal(state[key], value)


def test_only_what_is_open_is_filled(rng):
    network = dl.Network(
        [
            dl.Conv2D(None, 4, 3, seed=0),
            dl.BatchNorm(None),
            dl.ReLU(),
            dl.Flatten(),
            dl.Dense(None, 5, seed=1),
            dl.Network([dl.Dropout(0.5, seed=2), dl.Dense(5, 2, seed=3)]),
        ]
    )
    network[2].eval()
    head = network[5][1].weight.numpy()
    network.initialize(rng.normal(size=(2, 6, 6, 3)).astype("float32"))
    assert [p.shape for p in network.parameters()] == [
        (3, 3, 3, 4), (4,), (4,), (4,), (64, 5), (5,), (5, 2), (2,)
    ]  # fmt: skip
    numpy.testing.assert_array_equal(network[5][1].weight.numpy(), head)
    numpy.testing.assert_array_equal(network[1].running_mean.numpy(), numpy.zeros(4))
    assert network.training
    assert not network[2].training
    before = network.state_dict()
    network.initialize((6, 6, 3))
    for name, value in network.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


def test_an_open_layer_can_be_copied_and_pickled():
    layer = dl.Dense(None, 3, seed=1)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        numpy.testing.assert_array_equal(
            twin.initialize((4,)).weight.numpy(), dl.Dense(4, 3, seed=1).weight.numpy()
        )


def test_a_network_that_fails_on_its_sample_says_so_and_stays_closed_to_calls():
    network = dl.Network([dl.Dense(None, 3), dl.Dense(4, 2)])
    with pytest.raises(ValueError, match=r"Dense\(4, 2\) takes inputs"):
        network.initialize((5,))
    with pytest.raises(RuntimeError, match="takes its size from a sample"):
        dl.Dense(None, 3)(dl.zeros((1, 5)))
