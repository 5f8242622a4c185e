import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET, assert_same_weights

SETTINGS = [False, {"kernels": "numpy"}, {"kernels": "c"}]


@pytest.fixture
def classes(rng):
    x = rng.normal(size=(60, 4)).astype("float32")
    return x, rng.integers(0, 3, 60)


def classifier(**options):
    network = dl.Network([dl.Dense(4, 16, seed=1), dl.Tanh(), dl.Dense(16, 3, seed=3)])
    return dl.Trainer(network, dl.softmax_cross_entropy, "sgdm", seed=0, device="cpu", **options)


def assert_close_weights(one, other):
    for name, array in one.network.state_dict().items():
        numpy.testing.assert_allclose(other.network.state_dict()[name], array, atol=1e-6, err_msg=name)


# --- weights of observations ----------------------------------------------------------------------


@pytest.mark.parametrize("compile", SETTINGS, ids=str)
def test_a_weight_of_two_is_an_observation_twice(classes, compile):
    x, y = classes
    twice = numpy.concatenate([numpy.arange(60), numpy.arange(20)])
    weighted, repeated = classifier(compile=compile), classifier(compile=compile)
    weight = numpy.where(numpy.arange(60) < 20, 2.0, 1.0)
    losses = weighted.fit(x, y, sample_weight=weight, epochs=3, batch_size=60, **QUIET).steps["loss"]
    expected = repeated.fit(x[twice], y[twice], epochs=3, batch_size=80, **QUIET).steps["loss"]
    assert losses == pytest.approx(expected, rel=1e-5)
    assert_close_weights(weighted, repeated)
    figures = weighted.evaluate(x, y, sample_weight=weight)
    assert figures["loss"] == pytest.approx(repeated.evaluate(x[twice], y[twice])["loss"], rel=1e-5)


@pytest.mark.parametrize("compile", SETTINGS, ids=str)
def test_class_weights_are_weights_of_observations(classes, compile):
    x, y = classes
    trainers = [classifier(compile=compile) for _ in range(4)]
    table = numpy.array([1.0, 0.25, 3.0])
    half = numpy.linspace(0.5, 1.5, 60)
    options = {"epochs": 2, "batch_size": 20, **QUIET}
    trainers[0].fit(x, y, class_weight=dict(enumerate(table)), **options)
    trainers[1].fit(x, y, class_weight=table, **options)
    trainers[2].fit(x, y, sample_weight=table[y], **options)
    assert_same_weights(trainers[0], trainers[1])
    assert_same_weights(trainers[0], trainers[2])
    other = classifier(compile=compile)
    trainers[3].fit(x, y, class_weight=table, sample_weight=half, **options)
    other.fit(x, y, sample_weight=table[y] * half, **options)
    assert_close_weights(trainers[3], other)


def test_weights_of_mini_batches_and_of_validation_data(classes):
    x, y = classes
    weight = numpy.linspace(0, 2, 60)
    whole, other = classifier(), classifier()
    options = {"epochs": 2, "validation_data": (x, y, weight), **QUIET}
    expected = whole.fit(x, y, sample_weight=weight, batch_size=20, shuffle="never", **options)
    parts = [slice(i, i + 20) for i in (0, 20, 40)]
    history = other.fit([(x[i], y[i], weight[i]) for i in parts], **options)
    assert_same_weights(whole, other)
    assert history.validation["loss"] == pytest.approx(expected.validation["loss"], rel=1e-6)
    logits = whole.predict(x)
    log_p = logits - numpy.log(numpy.exp(logits).sum(axis=-1, keepdims=True))
    right = -numpy.average(log_p[numpy.arange(60), y], weights=weight)
    for size in (60, 20, 7):
        figures = whole.evaluate(x, y, sample_weight=weight, batch_size=size)
        assert figures["loss"] == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("device", ["gpu"])
@pytest.mark.parametrize("free", [1 << 30, 1000])
def test_weights_on_a_gpu(strict_gpu, classes, monkeypatch, device, free):
    monkeypatch.setattr(strict_gpu.cuda.Device, "mem_info", (free, 1 << 30))
    x, y = classes
    weight = numpy.linspace(0, 2, 60)
    here = classifier()
    network = dl.Network([dl.Dense(4, 16, seed=1), dl.Tanh(), dl.Dense(16, 3, seed=3)])
    there = dl.Trainer(network, dl.softmax_cross_entropy, "sgdm", seed=0, device=device)
    options = {"epochs": 2, "batch_size": 20, **QUIET}
    expected = here.fit(x, y, sample_weight=weight, **options)
    assert there.fit(x, y, sample_weight=weight, **options).steps["loss"] == pytest.approx(
        expected.steps["loss"], rel=1e-5
    )


def plain_loss(prediction, target):
    return dl.mean_squared_error(prediction, target)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_weight": numpy.ones(50)}, r"equally many observations; got \[60, 60, 50\]"),
        ({"sample_weight": numpy.full(60, numpy.nan)}, "the training weights has 60 of 60 values"),
        ({"sample_weight": -numpy.ones(60)}, "weights"),
        ({"class_weight": {0: 1.0, 2: 1.0}}, r"class_weight has no weight for the classes \[1\]"),
        ({"class_weight": [1.0]}, r"class_weight has no weight for the classes \[1, 2\]"),
    ],
)
def test_wrong_weights_are_refused(classes, options, message):
    with pytest.raises(ValueError, match=message):
        classifier().fit(*classes, **options, **QUIET)


def test_weights_need_a_loss_and_targets_that_take_them(classes, data):
    x, y = data
    trainer = dl.Trainer(dl.Dense(4, 2), plain_loss, device="cpu")
    with pytest.raises(TypeError, match="the loss 'plain_loss' takes no weights of observations"):
        trainer.fit(x, y, sample_weight=numpy.ones(96), **QUIET)
    with pytest.raises(TypeError, match="class_weight needs targets that are class numbers"):
        trainer.fit(x, y, class_weight=[1.0, 2.0], **QUIET)
    with pytest.raises(TypeError, match="weights are the third entry of each"):
        classifier().fit([classes], sample_weight=numpy.ones(60), **QUIET)


# --- a part of the data for validation ------------------------------------------------------------


def test_a_share_for_validation_is_not_trained_on(data):
    x, y = data
    seen = []

    def loss(prediction, target):
        seen.append({"train": len(target)})
        return dl.mean_squared_error(prediction, target)

    trainer = dl.Trainer(dl.Dense(4, 2, seed=0), loss, device="cpu", compile=False, seed=0)
    history = trainer.fit(x, y, validation_split=0.25, epochs=1, batch_size=72, **QUIET)
    assert history.settings["observations"] == 72
    assert history.validation["step"] == [1]
    order = numpy.random.default_rng(0).permutation(96)
    held, kept = numpy.sort(order[:24]), numpy.sort(order[24:])
    assert trainer.evaluate(x[held], y[held])["loss"] == pytest.approx(history.validation["loss"][0])
    other = dl.Trainer(dl.Dense(4, 2, seed=0), loss, device="cpu", compile=False, seed=0)
    other.fit(x[kept], y[kept], validation_data=(x[held], y[held]), epochs=1, batch_size=72, **QUIET)
    assert_same_weights(trainer, other)


def test_a_share_of_an_autoencoders_data_and_of_weighted_ones(classes, data):
    x, y = classes
    trainer = dl.Trainer(dl.Dense(4, 4, seed=0), dl.mean_squared_error, device="cpu", seed=0)
    assert trainer.fit(x, x, validation_split=0.5, epochs=1, **QUIET).settings["observations"] == 30
    weight = numpy.linspace(0, 2, 60)
    history = classifier().fit(x, y, sample_weight=weight, validation_split=0.5, epochs=1, **QUIET)
    held = numpy.sort(numpy.random.default_rng(0).permutation(60)[:30])
    other = classifier()
    kept = numpy.setdiff1d(numpy.arange(60), held)
    validation = (x[held], y[held], weight[held])
    expected = other.fit(
        x[kept], y[kept], sample_weight=weight[kept], validation_data=validation, epochs=1, **QUIET
    )
    assert history.validation == expected.validation


def test_a_share_is_the_same_when_a_training_is_resumed(make_trainer, data, tmp_path):
    options = {"epochs": 3, "batch_size": 24, "validation_split": 0.25, "validation_frequency": 2, **QUIET}
    whole, first, second = make_trainer(seed=None), make_trainer(seed=None), make_trainer(seed=None)
    first.fit(*data, callbacks=[lambda fit: fit.step == 4], checkpoint_folder=tmp_path, **options)
    history = second.fit(*data, checkpoint_folder=tmp_path, resume=True, **options)
    assert "resumed" not in history.settings
    whole.seed = first.seed
    assert whole.fit(*data, **options).validation == history.validation


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"validation_split": 0.0}, ValueError, "between 0 and 1"),
        ({"validation_split": 1.5}, ValueError, "between 0 and 1"),
        ({"validation_split": 0.001}, ValueError, "of 96 observations leaves 0 for validation"),
        ({"validation_split": 0.5, "validation_data": ([1], [2])}, ValueError, "not both"),
    ],
)
def test_shares_that_cannot_be(make_trainer, data, options, error, message):
    with pytest.raises(error, match=message):
        make_trainer().fit(*data, **options, **QUIET)


def test_shares_of_other_data_are_refused(make_trainer, data, tmp_path):
    with pytest.raises(TypeError, match="of other data, pass validation_data"):
        make_trainer().fit([data], validation_split=0.5, **QUIET)
    numpy.save(tmp_path / "x.npy", data[0])
    mapped = numpy.load(tmp_path / "x.npy", mmap_mode="r")
    with pytest.raises(TypeError, match="would read data on disk into memory"):
        make_trainer().fit(mapped, data[1], validation_split=0.5, **QUIET)
