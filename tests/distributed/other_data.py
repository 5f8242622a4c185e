"""Data and optimizers of other kinds, on several processes and on each alone, which must agree.

mpiexec -n 3 python tests/distributed/other_data.py FOLDER
"""

import sys
from pathlib import Path

import numpy
import pytest

import minidl as dl
from tests.distributed import trainings


def fit(ranks, optimizer, data, y=None, compiled=True, **options):
    network = trainings.network("lstm", 0)
    trainer = dl.Trainer(
        network,
        dl.softmax_cross_entropy,
        optimizer(network.parameters()),
        [dl.accuracy, dl.auc],
        device="cpu",
        seed=1,
        compile=compiled and {"kernels": "numpy"},
        distributed=ranks,
    )
    history = trainer.fit(data, y, verbose=False, **options)
    return network.state_dict(), history, trainer


def agree(name, optimizer, data, y=None, limit=1e-5, **options):
    ranks = dl.distributed.communicator()
    together, history, trainer = fit(ranks, optimizer, data, y, **options)
    alone, expected, _ = fit(False, optimizer, data, y, **options)
    for key, array in alone.items():
        error = numpy.linalg.norm(together[key] - array) / numpy.linalg.norm(array)
        assert error < limit, (name, key, error)
    assert len(history) == len(expected), name
    numpy.testing.assert_allclose(history.steps["loss"], expected.steps["loss"], rtol=1e-4, err_msg=name)
    for column, values in expected.validation.items():
        numpy.testing.assert_allclose(history.validation[column], values, rtol=1e-4, err_msg=name)
    assert history.stop_reason == expected.stop_reason, name
    return trainer


def main(folder):
    ranks = dl.distributed.communicator()
    x, y = trainings.data("lstm", 100)
    adam, sgd = (lambda p: dl.Adam(p, 1e-2)), (lambda p: dl.SGD(p, 0.1))
    validation = {"validation_data": (x[:50], y[:50]), "validation_frequency": 3, "batch_size": 16}

    cuts = [slice(0, 30), slice(30, 31), slice(31, 50), slice(50, 100)]  # one has fewer rows than processes
    agree("iterable", adam, [(x[cut], y[cut]) for cut in cuts], epochs=3, **validation)
    agree("function", adam, lambda: ((x[cut], y[cut]) for cut in cuts), epochs=2, compiled=False)

    path = Path(folder) / "x.npy"
    ranks.from_first(lambda: numpy.save(path, x))
    on_disk = numpy.load(path, mmap_mode="r")
    agree("memory map", sgd, on_disk, y, epochs=3, drop_last=False, **validation)
    agree("not shuffled", sgd, on_disk, y, epochs=2, shuffle="never", **validation)

    agree("LBFGS", lambda p: dl.LBFGS(p, max_iterations=5), x, y, limit=1e-3)
    agree("patience", sgd, x, y, epochs=30, validation_patience=2, **validation)
    agree("stopped", sgd, x, y, epochs=9, callbacks=[lambda run: run.step == 8], **validation)

    # Weights of observations, some of them 0: for a process, and for all of a mini-batch.
    weight = numpy.random.default_rng(3).integers(0, 4, 100).astype("float32")
    some = numpy.where(numpy.arange(100) % 16 < 6, 0, weight)
    none = numpy.where(numpy.arange(100) < 32, 0, weight)
    weighed = {**validation, "validation_data": (x[:50], y[:50], weight[:50]), "drop_last": False}
    agree("weights", sgd, x, y, epochs=3, sample_weight=weight, **weighed)
    agree("weights, not compiled", adam, x, y, epochs=2, compiled=False, sample_weight=weight, **weighed)
    agree("whole numbers", sgd, x, y, epochs=2, sample_weight=weight.astype("int64"), **weighed)
    agree("classes", sgd, x, y, epochs=3, class_weight=[1, 5, 0.5], **weighed)
    agree("both", sgd, x, y, epochs=2, class_weight={0: 1, 1: 5, 2: 0}, sample_weight=weight, **weighed)
    for sparse in (some, none):
        agree("zeros", sgd, x, y, epochs=2, shuffle="never", sample_weight=sparse, **weighed)
    agree("weights of an iterable", sgd, [(x[cut], y[cut], weight[cut]) for cut in cuts], epochs=3)
    agree("weights of LBFGS", lambda p: dl.LBFGS(p, max_iterations=5), x, y, limit=1e-3, sample_weight=weight)

    # A weight of 2 is the observation twice, wherever both are computed.
    often = weight.astype(int)
    together, history, _ = fit(ranks, sgd, x, y, epochs=5, batch_size=100, sample_weight=weight)
    data = x.repeat(often, axis=0), y.repeat(often)
    alone, expected, _ = fit(False, sgd, *data, epochs=5, batch_size=int(often.sum()))
    for key, array in alone.items():
        numpy.testing.assert_allclose(together[key], array, rtol=1e-4, atol=1e-6, err_msg=key)
    numpy.testing.assert_allclose(history.steps["loss"], expected.steps["loss"], rtol=1e-4)

    # A callback of one process stops all of them.
    rank = ranks.rank
    _, history, _ = fit(ranks, sgd, x, y, epochs=9, callbacks=[lambda run: rank == 1 and run.step == 4])
    assert len(history) == 4 < 9 * (100 // 128 + 1), len(history)
    assert history.stop_reason == "stopped by a callback"

    # Predictions are made by whoever asks.
    _, _, trainer = fit(ranks, sgd, x, y, epochs=1)
    if rank == 0:
        assert trainer.predict(x).shape == (100, 3)
        assert 0 <= trainer.evaluate(x, y)["accuracy"] <= 1

    # All processes find the same loss that is not finite, and can go on from it.
    bad = x.copy()
    bad[77] = numpy.nan
    batches = [(bad[:60], y[:60]), (bad[60:], y[60:])]
    with pytest.raises(dl.DivergenceError) as caught:
        fit(ranks, sgd, batches, epochs=1)
    assert caught.value.step == 2
    ranks.barrier()
    if rank == 0:
        print("all agree")


if __name__ == "__main__":
    main(sys.argv[1])
