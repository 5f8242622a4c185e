import threading

import numpy
import pytest

import minidl as dl
from tests.training.helpers import QUIET, assert_same_weights


@pytest.mark.parametrize(("shuffle", "equal"), [("every-epoch", False), ("once", True), ("never", True)])
def test_shuffling(make_trainer, data, shuffle, equal):
    x, y = data
    seen = []

    def loss(prediction, target):
        return dl.mean_squared_error(prediction, target)

    trainer = make_trainer(compile=False)
    inner = trainer.train_step
    trainer.train_step = lambda inputs, targets: (seen.append(targets[0].copy()), inner(inputs, targets))[1]
    trainer.fit(x, y, epochs=2, batch_size=96, shuffle=shuffle, **QUIET)
    assert numpy.array_equal(*seen) == equal
    assert numpy.array_equal(seen[0], y) == (shuffle == "never")
    for targets in seen:
        numpy.testing.assert_array_equal(numpy.sort(targets, axis=0), numpy.sort(y, axis=0))


@pytest.mark.parametrize(("drop_last", "steps"), [(True, 2), (False, 3)])
def test_the_last_mini_batch(make_trainer, data, drop_last, steps):
    history = make_trainer().fit(*data, epochs=1, batch_size=40, drop_last=drop_last, **QUIET)
    assert len(history) == steps


def test_memory_mapped_arrays(make_trainer, data, tmp_path):
    for name, array in zip("xy", data, strict=True):
        numpy.save(tmp_path / f"{name}.npy", array)
    mapped = [numpy.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xy"]
    first, other = make_trainer(), make_trainer()
    first.fit(*data, epochs=2, batch_size=32, **QUIET)
    other.fit(*mapped, epochs=2, batch_size=32, validation_data=tuple(mapped), output_network="last", **QUIET)
    assert_same_weights(first, other)


def test_iterables_and_generators_of_mini_batches(make_trainer, data):
    x, y = data
    batches = [(x[i : i + 32], y[i : i + 32]) for i in (0, 32, 64)]
    trainers = [make_trainer() for _ in range(3)]
    trainers[0].fit(x, y, epochs=2, batch_size=32, shuffle="never", **QUIET)
    trainers[1].fit(batches, epochs=2, **QUIET)
    trainers[2].fit(lambda: iter(batches), epochs=2, validation_data=batches, output_network="last", **QUIET)
    assert_same_weights(trainers[0], trainers[1])
    assert_same_weights(trainers[0], trainers[2])
    numpy.testing.assert_array_equal(trainers[0].predict(x), trainers[0].predict(part for part, _ in batches))
    assert threading.active_count() == 1 or not any(
        thread.name == "minidl prefetch" for thread in threading.enumerate()
    )


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "the data gave no mini-batches"),
        ([numpy.zeros((2, 4))], r"pair \(inputs, targets\), got ndarray of length 2"),
        ([(["a"], numpy.zeros(2))], "expected an array or a tuple of arrays, got str"),
        ([(numpy.zeros((0, 4), "f"), numpy.zeros((0, 2), "f"))], "mini-batch of step 1 is empty"),
    ],
)
def test_bad_mini_batches_are_refused(make_trainer, items, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make_trainer().fit(items, epochs=1, **QUIET)


def test_an_iterator_that_is_used_up_says_so(make_trainer, data):
    with pytest.raises(ValueError, match="epoch 2: an iterator can be used only once"):
        make_trainer().fit(iter([data, data]), epochs=2, **QUIET)


def test_an_error_in_the_data_is_raised_here(make_trainer, data):
    def batches():
        yield data
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        make_trainer().fit(batches, epochs=1, **QUIET)


def test_bad_data_is_refused(make_trainer, data):
    x, y = data
    trainer = make_trainer()
    for arguments, message in [
        ((x,), "targets are missing: pass x and y"),
        ((x, y[:50]), r"equally many observations; got \[96, 50\]"),
        ((x[:0], y[:0]), "the arrays are empty"),
        (([x], y), "must be an array or a tuple of arrays, got list"),
        ((x, "y"), "expected an array or a tuple of arrays, got str"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            trainer.fit(*arguments, **QUIET)


@pytest.mark.parametrize("free", [1 << 30, 1000])
def test_data_are_kept_on_the_device_where_there_is_room(strict_gpu, make_trainer, data, monkeypatch, free):
    monkeypatch.setattr(strict_gpu.cuda.Device, "mem_info", (free, 1 << 30))
    moved, uploaded = [], []
    asarray, upload = strict_gpu.asarray, strict_gpu.ndarray.set
    monkeypatch.setattr(strict_gpu, "asarray", lambda x: moved.append(x) or asarray(x), raising=False)
    monkeypatch.setattr(
        strict_gpu.ndarray, "set", lambda self, x, stream: uploaded.append(x.shape) or upload(self, x, stream)
    )
    trainer = make_trainer(device="gpu")
    moved.clear()
    trainer.fit(*data, epochs=2, batch_size=32, **QUIET)
    whole = [x.shape for x in moved if type(x) is numpy.ndarray and x.ndim > 1]
    assert whole == ([array.shape for array in data] if free > 1000 else [])
    assert uploaded == ([] if free > 1000 else [(32, 4), (32, 2)] * 6)
    assert all(type(array) is numpy.ndarray for array in data)


def test_an_autoencoders_data_are_uploaded_once(strict_gpu, monkeypatch, data):
    monkeypatch.setattr(dl.devices, "has_room", lambda device, nbytes: False)
    uploaded = []
    upload = strict_gpu.ndarray.set
    monkeypatch.setattr(
        strict_gpu.ndarray, "set", lambda self, x, stream: uploaded.append(x.shape) or upload(self, x, stream)
    )
    x = data[0]
    for source in ((x, x), ([(x[:48], x[:48])],), ([((part := x[:48].astype(float)), part)],)):
        uploaded.clear()
        network = dl.Network([dl.Dense(4, 4, seed=0)])
        trainer = dl.Trainer(network, dl.mean_squared_error, device="gpu", seed=0)
        trainer.fit(*source, epochs=1, batch_size=48, **QUIET)
        assert set(uploaded) == {(48, 4)}
        assert len(uploaded) == (2 if len(source) == 2 else 1 if part is source[0][0][0] else 2)


def endless(data):
    x, y = data
    while True:
        for i in (0, 32, 64):
            yield x[i : i + 32], y[i : i + 32]


def test_steps_per_epoch_of_an_endless_iterator(make_trainer, data):
    """The next epoch goes on where the one before has ended."""
    whole, other = make_trainer(), make_trainer()
    expected = whole.fit(*data, epochs=4, batch_size=32, shuffle="never", **QUIET)
    history = other.fit(endless(data), epochs=3, steps_per_epoch=4, **QUIET)
    assert_same_weights(whole, other)
    assert history.epochs["step"] == [4, 8, 12]
    assert history.steps["loss"] == expected.steps["loss"]
    assert history.settings["steps_per_epoch"] == 4


def test_steps_per_epoch_of_arrays_and_functions(make_trainer, data):
    history = make_trainer().fit(*data, epochs=2, batch_size=32, steps_per_epoch=2, **QUIET)
    assert history.epochs["step"] == [2, 4]
    history = make_trainer().fit(*data, epochs=2, batch_size=32, steps_per_epoch=99, **QUIET)
    assert history.epochs["step"] == [3, 6]
    history = make_trainer().fit(lambda: endless(data), epochs=2, steps_per_epoch=2, **QUIET)
    assert history.epochs["step"] == [2, 4]
    assert history.steps["loss"][2] < history.steps["loss"][0]  # of the same mini-batch


@pytest.mark.parametrize("stop", [3, 4, 7])
def test_an_endless_iterator_is_resumed_where_it_was(make_trainer, data, tmp_path, stop):
    whole, first, second = make_trainer(), make_trainer(), make_trainer()
    whole.fit(endless(data), epochs=3, steps_per_epoch=4, **QUIET)
    options = {"epochs": 3, "steps_per_epoch": 4, "checkpoint_folder": tmp_path, "resume": True, **QUIET}
    first.fit(endless(data), callbacks=[lambda fit: fit.step == stop], **options)
    second.fit(endless(data), **options)
    assert_same_weights(whole, second)


@pytest.mark.parametrize("wrong", [0, -1, 2.5, "all"])
def test_wrong_steps_per_epoch(make_trainer, data, wrong):
    message = "steps_per_epoch (must be a number of steps|is an integer or None)"
    with pytest.raises((ValueError, TypeError), match=message):
        make_trainer().fit(*data, steps_per_epoch=wrong, **QUIET)
