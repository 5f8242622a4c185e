import numpy
import pytest

import minidl as dl
from minidl.checks import check_gradients


@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 3, 4), (3, 28, 28, 1), (0, 28, 28, 1), (2, 0, 3)])
def test_flatten(shape, rng):
    x = rng.normal(size=shape)
    features = int(numpy.prod(shape[1:]))
    numpy.testing.assert_array_equal(dl.Flatten()(x).numpy(), x.reshape(shape[0], features))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 1), (28, 28, 1)),
        ((-1,), (784,)),
        ((28, -1), (28, 28)),
        ((-1, 7, 7), (16, 7, 7)),
        ((784, -1), (784, 1)),
    ],
)
@pytest.mark.parametrize("batch", [0, 3])
def test_reshape(shape, expected, batch, rng):
    x = rng.normal(size=(batch, 784))
    numpy.testing.assert_array_equal(dl.Reshape(*shape)(x).numpy(), x.reshape(batch, *expected))


def test_reshape_to_scalars(rng):
    assert dl.Reshape()(rng.normal(size=(3, 1, 1))).shape == (3,)


def test_reshape_undoes_flatten(rng):
    x = rng.normal(size=(3, 4, 5, 1))
    network = dl.Network([dl.Flatten(), dl.Reshape(4, 5, 1)])
    numpy.testing.assert_array_equal(network(x).numpy(), x)


def test_copies_nothing():
    x = dl.ones((3, 4, 5))
    assert numpy.shares_memory(dl.Flatten()(x).data, x.data)
    assert numpy.shares_memory(dl.Reshape(5, 4)(x).data, x.data)


@pytest.mark.parametrize("layer", [dl.Flatten(), dl.Reshape(4, 1, 3), dl.Reshape(2, -1)], ids=repr)
def test_gradients(layer, rng):
    check_gradients(lambda x: layer(x) * layer(x), rng.normal(size=(2, 3, 4)), order=2)


@pytest.mark.parametrize(
    ("shape", "got", "values"),
    [
        ((28, 28, 1), (128, 783), 784),
        ((28, 28, 1), (784, 128), 784),
        ((5, -1), (2, 784), 5),
        ((2,), (3,), 2),
    ],
)
def test_reshape_refuses_observations_of_another_size(shape, got, values):
    layer = dl.Reshape(*shape)
    with pytest.raises(ValueError, match="takes inputs") as refusal:
        layer(dl.zeros(got))
    message = str(refusal.value)
    assert message.startswith(repr(layer))
    assert f"with {values} values each; got {got}" in message


@pytest.mark.parametrize("layer", [dl.Flatten(), dl.Reshape(1), dl.Reshape(-1)], ids=repr)
def test_a_tensor_without_a_batch_axis_is_refused(layer):
    with pytest.raises(
        ValueError, match=rf"{type(layer).__name__}\(.*\) takes inputs \(batch, \.\.\.\); got"
    ):
        layer(dl.tensor(1.0))


def test_prints_its_shape():
    assert repr(dl.Reshape(28, 28, 1)) == "Reshape(28, 28, 1)"
    assert repr(dl.Flatten()) == "Flatten()"
