import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET, assert_same_weights

MISFIT = r"the validation data do not fit: .* the target \(96, 1\)"


@pytest.mark.parametrize("compile", [False, {"kernels": "numpy"}, {"kernels": "c"}])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (lambda x, y: (x[:, :3], y), r"takes inputs \(batch, ..., 4\); got \(96, 3\)"),
        (lambda x, y: (x, y[:, :1]), MISFIT),
        (lambda x, y: [(x, y[:, :1])], MISFIT),
        (
            lambda x, y: lambda: iter([(x, y[:, :1])]),
            MISFIT,
        ),
        (lambda x, y: 5, "expected arrays, an iterable of mini-batches"),
    ],
)
def test_validation_data_that_do_not_fit_are_an_error_before_the_first_step(
    make_trainer, data, bad, message, compile
):
    steps = []
    trainer = make_trainer(compile=compile)
    before = trainer.network.state_dict()
    with pytest.raises((ValueError, TypeError), match=message):
        trainer.fit(
            *data, validation_data=bad(*data), callbacks=[lambda fit: steps.append(fit.step)], **QUIET
        )
    assert [step for step in steps if step] == []
    for name, array in trainer.network.state_dict().items():
        numpy.testing.assert_array_equal(before[name], array)


def test_trying_them_draws_nothing(data):
    """A layer that draws in evaluation too, from its own Generator and from the shared one."""

    class Noisy(dl.Layer):
        def __init__(self):
            self.dense, self.source = dl.Dense(4, 2, seed=0), dl.random.Generator(1)

        def forward(self, x):
            noise = dl.random.normal(x.shape, generator=self.source) + dl.random.normal(x.shape)
            return self.dense(x + 0.1 * noise)

    trained = []
    for validation in (None, data):
        dl.random.seed(3)
        trainer = dl.Trainer(Noisy(), dl.mean_squared_error, seed=0, device="cpu")
        options = {
            "validation_data": validation,
            "validation_frequency": 50,
            "output_network": "last",
            **QUIET,
        }
        trainer.fit(*data, epochs=2, batch_size=32, **options)
        trained.append(trainer)
    assert_same_weights(*trained)


def test_an_iterator_is_not_used_up_by_trying(make_trainer, data):
    validation = iter([data])
    history = make_trainer().fit(*data, epochs=1, batch_size=96, validation_data=validation, **QUIET)
    assert history.validation["step"] == [1]


class Short:
    """Says that it has fewer mini-batches than it has, or more."""

    def __init__(self, batches, length):
        self.batches, self.length = batches, length

    def __len__(self):
        return self.length

    def __iter__(self):
        return iter(self.batches)


@pytest.mark.parametrize("length", [1, 2, 3, 10])
def test_a_length_that_is_wrong_validates_once_an_epoch(make_trainer, data, length):
    x, y = data
    batches = [(x[i : i + 32], y[i : i + 32]) for i in (0, 32, 64)]
    history = make_trainer().fit(
        Short(batches, length), epochs=2, validation_data=data, validation_frequency="epoch", **QUIET
    )
    assert history.epochs["step"] == [3, 6]
    assert history.validation["step"] == [3, 6]


def test_labels_that_count_from_one_are_named_and_no_learning_rate_is_advised(rng):
    x, labels = rng.normal(size=(40, 4)).astype("float32"), numpy.arange(40) % 10 + 1
    trainer = dl.Trainer(dl.Dense(4, 10, seed=0), dl.softmax_cross_entropy, seed=0, device="cpu")
    with pytest.raises(ValueError, match="class numbers") as refusal:
        trainer.fit(x, labels, epochs=1, batch_size=40, **QUIET)
    assert "learning rate" not in str(refusal.value)


def test_labels_that_count_from_one_on_a_gpu(strict_gpu, rng):
    """There the loss is NaN, and the error says what the loss would say on the CPU."""
    x, labels = rng.normal(size=(40, 4)).astype("float32"), numpy.arange(40) % 10 + 1
    trainer = dl.Trainer(dl.Dense(4, 10, seed=0), dl.softmax_cross_entropy, seed=0, device="gpu")
    with pytest.raises(dl.DivergenceError, match=r"the targets were refused: .*class numbers") as refusal:
        trainer.fit(x, labels, epochs=1, batch_size=40, **QUIET)
    assert "learning rate" not in str(refusal.value)
