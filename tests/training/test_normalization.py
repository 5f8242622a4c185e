import numpy
import pytest

import minidl as dl
from minidl.training.normalization import fit_normalization


def test_layers_are_fitted_to_what_reaches_them(rng):
    """The second one sees what the first and the dense layer make of the data."""
    x = (rng.normal(size=(40, 3)) * [1, 10, 100] + 5).astype("float32")
    first, dense, second = dl.Normalize((3,)), dl.Dense(3, 2, seed=0), dl.Normalize((2,), "rescale-symmetric")
    network = dl.Network([first, dense, dl.Network([second])])
    calls = []

    def batches():
        calls.append(1)
        return [(x[:25],), (x[25:],)]

    fit_normalization(network, batches)
    numpy.testing.assert_allclose(
        first(x).numpy(), (x - x.mean(axis=0)) / x.std(axis=0), rtol=1e-4, atol=1e-4
    )
    y = network(x).numpy()
    numpy.testing.assert_allclose(y.min(axis=0), -1, atol=1e-5)
    numpy.testing.assert_allclose(y.max(axis=0), 1, atol=1e-5)
    count = len(calls)
    fit_normalization(network, batches)
    assert len(calls) == count  # all are fitted
    x = x * 2
    fit_normalization(network, batches, refit=True)
    numpy.testing.assert_allclose(first(x).numpy().std(axis=0), 1, rtol=1e-4)


def test_normalize_layers_are_fitted_to_the_training_data(rng):
    x = (rng.normal(size=(64, 3)) * 50 + 200).astype("float32")
    y = x[:, :1] / 50
    network = dl.Network([dl.Normalize((3,)), dl.Dense(3, 1, seed=0)])
    trainer = dl.Trainer(network, dl.mean_squared_error, seed=0, device="cpu")
    trainer.fit(x, y, epochs=1, batch_size=32, verbose=False)
    numpy.testing.assert_allclose(network[0].offset.numpy(), x.mean(axis=0), rtol=1e-5)
    before = network[0].offset.numpy()
    trainer.fit(x + 1, y, epochs=1, verbose=False)
    numpy.testing.assert_array_equal(network[0].offset.numpy(), before)
    trainer.fit(x + 1, y, epochs=1, verbose=False, normalization="all")
    numpy.testing.assert_allclose(network[0].offset.numpy(), before + 1, rtol=1e-5)


def test_an_iterator_cannot_be_gone_through_for_normalization(rng):
    x = rng.normal(size=(8, 3)).astype("float32")
    network = dl.Network([dl.Normalize((3,)), dl.Dense(3, 1, seed=0)])
    trainer = dl.Trainer(network, dl.mean_squared_error, seed=0, device="cpu")
    with pytest.raises(ValueError, match="Normalize layers must be fitted first"):
        trainer.fit(iter([(x, x[:, :1])]), epochs=1, verbose=False)
    trainer.fit([(x, x[:, :1])], epochs=1, verbose=False)
    assert network[0].fitted


def test_a_network_without_mini_batches_is_not_fitted():
    with pytest.raises(ValueError, match="there are no mini-batches to fit it to"):
        fit_normalization(dl.Network([dl.Normalize((3,))]), lambda: iter([]))
