import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET


@pytest.mark.parametrize("compile", [True, False])
def test_predict_and_evaluate_in_mini_batches(make_trainer, data, compile):
    x, y = data
    trainer = make_trainer(rate=0.5, compile=compile, metrics=[dl.rmse, dl.mae])
    with dl.no_grad(), trainer.network.evaluating():
        expected = trainer.network(x).numpy()
    for batch_size in (96, 50, 7, 200):
        numpy.testing.assert_allclose(trainer.predict(x, batch_size=batch_size), expected, atol=1e-6)
        figures = trainer.evaluate(x, y, batch_size=batch_size)
        assert figures["rmse"] == pytest.approx(numpy.sqrt(((expected - y) ** 2).mean()), rel=1e-5)
        assert figures["loss"] == pytest.approx(figures["rmse"] ** 2, rel=1e-5)
        assert figures["mae"] == pytest.approx(numpy.abs(expected - y).mean(), rel=1e-5)


def test_several_inputs_and_outputs(data):
    class Both(dl.Layer):
        def __init__(self):
            self.left, self.right = dl.Dense(4, 2, seed=0), dl.Dense(2, 2, seed=1)

        def forward(self, x, z):
            return self.left(x) + self.right(z), self.left(x)

    def loss(sum_, left, y, z):
        return dl.mean_squared_error(sum_, y) + dl.mean_absolute_error(left, z)

    def first_error(sum_, left, y, z):
        return dl.mean_absolute_error(sum_, y)

    x, y = data
    trainer = dl.Trainer(Both(), loss, metrics=[first_error], seed=0, device="cpu")
    history = trainer.fit((x, y), (y, y), epochs=5, batch_size=32, validation_data=((x, y), (y, y)), **QUIET)
    assert history.epochs["loss"][-1] < history.epochs["loss"][0]
    outputs = trainer.predict((x, y), batch_size=50)
    assert [output.shape for output in outputs] == [(96, 2), (96, 2)]
    assert trainer.evaluate((x, y), (y, y))["first_error"] == pytest.approx(numpy.abs(outputs[0] - y).mean())


def test_bad_trainers_are_refused(make_trainer):
    network = dl.Network([dl.Dense(2, 2)])
    for arguments, options, message in [
        ((abs, dl.mean_squared_error), {}, "Trainer trains a Layer, got builtin_function"),
        ((network, dl.mean_squared_error, "adamm"), {}, "unknown optimizer 'adamm': use one of adam"),
        ((network, dl.mean_squared_error, 0.1), {}, "takes an Optimizer or a name, got float"),
        (
            (network, dl.mean_squared_error, dl.Adam([dl.Parameter(dl.zeros(2))])),
            {},
            "trains none of the network's Parameters",
        ),
        ((network, dl.mean_squared_error), {"metrics": [dl.rmse, dl.rmse]}, "different names"),
        ((network, dl.mean_squared_error), {"device": "tpu"}, "unknown device 'tpu'"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            dl.Trainer(*arguments, **options)


def test_a_trainer_shows_what_it_trains_with():
    network = dl.Network([dl.Dense(2, 1)])
    trainer = dl.Trainer(network, dl.mean_squared_error, "sgdm", metrics=[dl.rmse], device="cpu")
    shown = f"Trainer(Network, mean_squared_error, {trainer.optimizer!r}, rmse, device='cpu')"
    assert repr(trainer) == shown


# --- outputs of inner layers ----------------------------------------------------------------------


@pytest.mark.parametrize("compile", [False, {"kernels": "numpy"}, {"kernels": "c"}])
def test_outputs_of_inner_layers(make_trainer, data, compile):
    x, _ = data
    trainer = make_trainer(rate=0.5, compile=compile)
    network = trainer.network
    with dl.no_grad(), network.evaluating():
        hidden = network[1](network[0](x)).numpy()
    for batch_size in (96, 40):
        numpy.testing.assert_allclose(trainer.predict(x, batch_size, outputs="1"), hidden, atol=1e-6)
        first, last = trainer.predict(x, batch_size, outputs=["3", "1"])
        numpy.testing.assert_allclose(first, trainer.predict(x), atol=1e-6)
        numpy.testing.assert_allclose(last, hidden, atol=1e-6)
    assert trainer.predict(x).shape == (96, 2)
    network[0].weight.assign(network[0].weight * 0)
    assert numpy.ptp(trainer.predict(x, outputs="1"), axis=0).max() == 0


def test_names_of_layers_that_give_nothing(make_trainer, data):
    class Odd(dl.Layer):
        def __init__(self):
            self.twice, self.unused, self.inner = (
                dl.Dense(4, 4, seed=0),
                dl.Dense(4, 4),
                dl.Network([dl.Tanh()]),
            )

        def forward(self, x):
            return self.inner(self.twice(self.twice(x)))

    trainer = dl.Trainer(Odd(), dl.mean_squared_error, device="cpu")
    for name, message in [
        ("twice", "layer 'twice' is called more than once"),
        ("unused", "the network does not call 'unused'"),
        ("other", "there is no layer 'other'; there are twice, unused, inner, inner.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            trainer.predict(data[0], outputs=name)
    assert trainer.predict(data[0], outputs=["inner.0", "inner"])[0].shape == (96, 4)
