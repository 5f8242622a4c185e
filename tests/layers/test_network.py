import numpy
import pytest

import minidl as dl
from minidl.checks import check_gradients


@pytest.fixture
def network():
    generator = dl.Generator(0)
    return dl.Network(
        [
            dl.Dense(4, 3, seed=generator),
            dl.Tanh(),
            dl.Network([dl.Dense(3, 3, seed=generator), dl.Network([dl.Sigmoid()])]),
            dl.Dense(3, 2, seed=generator),
        ]
    )


def test_layers_run_one_after_another(network, rng):
    x = rng.normal(size=(5, 4)).astype("float32")
    first, _, (second, _), third = network
    hidden = numpy.tanh(x @ first.weight.numpy())
    hidden = 1 / (1 + numpy.exp(-(hidden @ second.weight.numpy())))
    numpy.testing.assert_allclose(network(x).numpy(), hidden @ third.weight.numpy(), rtol=1e-5, atol=1e-6)


def test_gradients(network, rng):
    check_gradients(network.astype("float64"), rng.normal(size=(2, 4)), order=2)


def test_names_are_positions(network):
    assert [name for name, _ in network.named_parameters()] == [
        "0.weight",
        "0.bias",
        "2.0.weight",
        "2.0.bias",
        "3.weight",
        "3.bias",
    ]


def test_indexes_slices_and_iterates_like_a_list(network):
    assert len(network) == 4
    assert list(network) == network.layers
    assert network[0] is network.layers[0]
    assert network[-1] is network.layers[3]
    assert network[2][1][0] is network.layers[2].layers[1].layers[0]
    with pytest.raises(IndexError):
        network[4]
    assert isinstance(network[1:3], dl.Network)
    assert network[1:3].layers == network.layers[1:3]
    assert network[::-1].layers == network.layers[::-1]


def test_a_slice_shares_its_layers(network):
    part = network[:1]
    part(dl.ones((1, 4))).sum().backward()
    assert network[0].weight.grad is not None
    assert part.parameters() == network.parameters()[:2]


def test_functions_are_entries_too():
    network = dl.Network([dl.relu, lambda x: x * 2, dl.Dense(2, 1, weight_initializer="ones")])
    assert network(dl.tensor([[-1.0, 3.0]])).tolist() == [[6]]
    assert [name for name, _ in network.named_parameters()] == ["2.weight", "2.bias"]


def test_a_tuple_becomes_several_inputs():
    network = dl.Network(
        [lambda x: (x, x * 2), lambda x, y: (x + y, y), lambda x, y: (x * y,), lambda x: x + 1]
    )
    assert network(dl.tensor([1.0, 2.0])).tolist() == [7, 25]
    assert network[1:3](dl.tensor(1.0), dl.tensor(2.0)).item() == 6
    first, second = network[:1](dl.tensor(3.0))
    assert (first.item(), second.item()) == (3, 6)


def test_an_empty_network_passes_its_input():
    x = dl.ones(2)
    assert dl.Network([])(x) is x
    assert repr(dl.Network([])) == "Network()"


def test_takes_any_iterable():
    assert len(dl.Network(dl.ReLU() for _ in range(3))) == 3


@pytest.mark.parametrize("entry", ["relu", 3, None, [dl.ReLU()]])
def test_an_entry_that_computes_nothing_is_refused(entry):
    with pytest.raises(TypeError, match=f"entry 1 is no Layer or function, but {type(entry).__name__}"):
        dl.Network([dl.ReLU(), entry])


def test_attributes_may_be_added():
    class Scaled(dl.Network):
        def __init__(self, layers):
            super().__init__(layers)
            self.scale = dl.Parameter([2.0])

        def forward(self, x):
            return super().forward(x) * self.scale

    network = Scaled([dl.Dense(2, 1, bias=False, weight_initializer="ones")])
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "scale"]
    assert network(dl.ones((1, 2))).tolist() == [[4]]


def test_layers_may_be_appended(network):
    network.layers.append(dl.Dense(2, 1))
    assert network(dl.ones((1, 4))).shape == (1, 1)
    assert [name for name, _ in network.named_parameters()][-1] == "4.bias"


def test_the_printed_tree():
    block = dl.Network([dl.Dense(8, 8, bias=False), dl.Dropout(0.2)])
    network = dl.Network([dl.Flatten(), block, block, dl.Network([dl.Softmax(axis=0)]), block[0]])
    assert repr(network) == (
        "Network(\n"
        "  (0): Flatten()\n"
        "  (1): Network(\n"
        "    (0): Dense(8, 8, bias=False)\n"
        "    (1): Dropout(0.2)\n"
        "  )\n"
        "  (2): the same as 1\n"
        "  (3): Network(\n"
        "    (0): Softmax(axis=0)\n"
        "  )\n"
        "  (4): the same as 1.0\n"
        ")"
    )


def test_the_error_of_a_wrong_shape_names_the_layer_inside():
    network = dl.Network([dl.Network([dl.Dense(784, 392)])])
    with pytest.raises(ValueError, match=r"^Dense\(784, 392\) takes inputs \(batch, \.\.\., 784\)"):
        network(dl.ones((2, 28, 28, 1)))


def test_functions_among_the_layers_are_shown():
    network = dl.Network([dl.Dense(2, 2), dl.relu, abs])
    assert "(1): relu" in repr(network)
    assert "(2): abs" in repr(network)


def test_a_slice_has_the_mode_of_the_whole():
    assert not dl.Network([dl.ReLU(), dl.ReLU()]).eval()[:1].training


def test_editing_is_that_of_a_list(network):
    first, tanh, nested, last = network
    relu, head = dl.ReLU(), dl.Dense(2, 5, seed=0)
    network.append(head)
    network[1] = relu
    assert list(network) == [first, relu, nested, last, head]
    network.insert(-1, tanh)
    assert list(network) == [first, relu, nested, last, tanh, head]
    del network[4:]
    network[1:3] = [tanh]
    assert list(network) == [first, tanh, last]
    assert [name for name, _ in network.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_replacing_a_layer_by_several_or_by_none():
    dense, relu = dl.Dense(3, 3, seed=0), dl.ReLU()
    network = dl.Network([dense, relu, dense])
    network.replace(dense, dl.Dense(3, 3), dl.Tanh())
    assert [type(layer).__name__ for layer in network] == ["Dense", "Tanh", "ReLU", "Dense", "Tanh"]
    network.replace(relu)
    assert len(network) == 4
    with pytest.raises(ValueError, match="not in this Network"):
        network.replace(dense, relu)


def test_what_is_no_layer_is_refused_and_nothing_is_changed(network):
    before = list(network)
    for edit in (
        lambda: network.append(3),
        lambda: network.insert(0, None),
        lambda: network.replace(network[0], "relu"),
        lambda: network.__setitem__(0, 3),
    ):
        with pytest.raises(TypeError, match="is no Layer or function"):
            edit()
    assert list(network) == before


def test_a_compiled_function_notices_an_edit():
    network = dl.Network([dl.Dense(2, 2, seed=0)])
    call = dl.compile(lambda x: network(x))
    x = dl.ones((1, 2))
    before = call(x).numpy()
    network.append(lambda y: 2 * y)
    numpy.testing.assert_array_equal(call(x).numpy(), 2 * before)
    network[0] = dl.Dense(2, 3, seed=1)
    assert call(x).shape == (1, 3)
