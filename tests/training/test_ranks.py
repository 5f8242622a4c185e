"""Trainings on several processes: what one process would do, up to rounding or to the last bit."""

import json

import numpy
import pytest

import minidl as dl
from minidl.program.cpu import kernel_cache
from minidl.training import ranks
from minidl.training.ranks import micro_batches, options_of_rank
from tests.distributed import other_data, trainings
from tests.distributed.mirror import Mirror
from tests.distributed.mpi import needs_mpi, run

needs_c = pytest.mark.skipif(kernel_cache.compiler() is None, reason="there is no C compiler on this machine")
WAYS = [pytest.param(way, marks=needs_c if way == "c" else []) for way in trainings.WAYS]


@pytest.fixture(scope="module", params=[2, 3])
def folder(request, tmp_path_factory):
    """What a number of processes left of all trainings."""
    path = tmp_path_factory.mktemp("trainings")
    run(request.param, trainings.__file__, path)
    return path


@needs_mpi
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", trainings.KINDS)
def test_several_processes_train_as_one(folder, kind, way):
    _, weights, figures = trainings.train(kind, way, distributed=False)
    theirs = numpy.load(folder / f"{kind}-{way}.npz")
    for name, array in weights.items():
        if way == "ordered":
            numpy.testing.assert_array_equal(theirs[name], array, err_msg=name)
        else:
            error = numpy.linalg.norm(theirs[name] - array) / numpy.linalg.norm(array)
            assert error < 1e-5, name
    found = json.loads((folder / f"{kind}-{way}.json").read_text())
    assert len(found["steps"]["loss"]) == 50
    assert found["validation"]["step"] == figures["validation"]["step"]
    for table in ("steps", "validation"):
        for name, column in figures[table].items():
            limit = 0 if way == "ordered" else 1e-5
            numpy.testing.assert_allclose(found[table][name], column, rtol=limit, err_msg=name)


@needs_mpi
def test_other_data_and_optimizers_on_several_processes(tmp_path):
    assert run(3, other_data.__file__, tmp_path) == "all agree\n"


def test_a_training_on_gpus_sums_there(gpu):
    """Two processes that have the same rows, on a stand-in for their GPU."""
    x, y = (array[:10] for array in trainings.data("lstm"))
    weights = []
    for together, data in (
        (Mirror(2), (numpy.concatenate([x, x]), numpy.concatenate([y, y]))),
        (False, (x, y)),
    ):
        network = trainings.network("lstm", 0)
        trainer = dl.Trainer(
            network, dl.softmax_cross_entropy, "sgdm", device="gpu:0", seed=0, distributed=together
        )
        trainer.fit(*data, epochs=2, batch_size=20, shuffle="never", drop_last=False, verbose=False)
        weights.append(network.to("cpu").state_dict())
    for name, array in weights[0].items():
        numpy.testing.assert_allclose(array, weights[1][name], rtol=1e-4, atol=1e-6)


def test_reproducible_steps_are_those_of_plain_ones_up_to_rounding():
    _, ordered, _ = trainings.train("lstm", "ordered", distributed=False)
    _, plain, _ = trainings.train("lstm", "numpy", distributed=False)
    for name, array in plain.items():
        numpy.testing.assert_allclose(ordered[name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_the_number_of_micro_batches_depends_on_the_observations_alone():
    assert [micro_batches(n) for n in (1, 4, 8, 47, 48, 1024)] == [1, 1, 2, 11, 12, 12]


def test_reproducible_steps_use_one_thread_unless_told_otherwise():
    assert options_of_rank({}, Mirror(1), True) == {"threads": 1}
    assert options_of_rank({"threads": 2}, Mirror(1), True) == {"threads": 2}
    assert options_of_rank({}, Mirror(1), False) == {}
    assert options_of_rank({"kernels": "c"}, Mirror(1000), False) == {"threads": 1, "kernels": "c"}


def test_cores_are_shared_among_the_processes_that_may_use_them(monkeypatch):
    class Placed(Mirror):
        def gather(self, value):
            return places

    monkeypatch.setattr(ranks, "_cores", lambda: places[0])
    places = [("a", {0, 1, 2, 3}), ("a", {4, 5, 6, 7}), ("b", {0, 1, 2, 3})]  # placed by mpiexec
    assert options_of_rank({}, Placed(3), False) == {"threads": 4}
    places = [("a", {*range(8)})] * 3 + [("b", {*range(8)})] * 3
    assert options_of_rank({}, Placed(6), False) == {"threads": 2}


def sum_of_squares(y, target):
    return dl.mean_squared_error(y, target, reduction="sum")


def square_of_mean(y, target):
    return (y - target).mean() ** 2


@pytest.mark.parametrize("loss", [sum_of_squares, square_of_mean])
def test_a_loss_that_is_no_mean_over_observations_is_refused(loss):
    x, _ = trainings.data("batchnorm")
    network = trainings.network("batchnorm", 0)
    trainer = dl.Trainer(network, loss, "sgdm", device="cpu", distributed=Mirror(2))
    before = network.state_dict()
    with pytest.raises(ValueError, match="mean over the observations"):
        trainer.fit(x, x[:, :3], epochs=1, batch_size=20, verbose=False)
    after = network.state_dict()
    assert all((after[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("way", [*WAYS[:2], pytest.param("c", marks=needs_c)])
@pytest.mark.parametrize("weights", ["none", "some", "some are 0", "all of a mini-batch are 0"])
def test_two_processes_with_the_same_rows_train_as_one_with_them(way, weights):
    x, y = (array[:30] for array in trainings.data("lstm"))
    weight = numpy.arange(30) % 4 + 0.5
    weight[{"some are 0": slice(5, 9), "all of a mini-batch are 0": slice(10, 20)}.get(weights, slice(0))] = 0
    found = []
    for together, size in ((Mirror(2), 20), (False, 10)):
        # Of each mini-batch, both processes have the same half.
        rows = [i + j for i in (0, 10, 20) for _ in range(size // 10) for j in range(10)]
        network = trainings.network("lstm", 0)
        trainer = dl.Trainer(
            network,
            dl.softmax_cross_entropy,
            "sgdm",
            device="cpu",
            seed=0,
            distributed=together,
            **trainings.WAYS[way],
        )
        history = trainer.fit(
            x[rows],
            y[rows],
            epochs=2,
            batch_size=size,
            shuffle="never",
            drop_last=False,
            verbose=False,
            sample_weight=None if weights == "none" else weight[rows],
        )
        found.append(network.state_dict() | {"losses": numpy.array(history.steps["loss"])})
    for name, array in found[0].items():
        numpy.testing.assert_allclose(array, found[1][name], rtol=1e-5, atol=1e-7, err_msg=name)


def mean_over_weighted_rows(y, target, weight):
    return (dl.softmax_cross_entropy(y, target, reduction="none") * weight).mean()


def test_a_loss_that_does_not_divide_by_the_weights_is_refused_with_them():
    x, y = trainings.data("batchnorm")
    network = trainings.network("batchnorm", 0)
    trainer = dl.Trainer(network, mean_over_weighted_rows, "sgdm", device="cpu", distributed=Mirror(2))
    with pytest.raises(ValueError, match="mean over the observations, weighted if they have weights"):
        trainer.fit(x, y, epochs=1, batch_size=20, verbose=False, sample_weight=numpy.arange(131.0))


def test_reproducible_steps_take_no_weights():
    x, y = trainings.data("lstm")
    network = trainings.network("lstm", 0)
    trainer = dl.Trainer(network, dl.softmax_cross_entropy, "sgdm", device="cpu", reproducible=True)
    weight = numpy.ones(131, "float32")
    for data, options in (((x, y), {"sample_weight": weight}), (([(x, y, weight)],), {})):
        with pytest.raises(ValueError, match="reproducible=True takes no weights of observations"):
            trainer.fit(*data, epochs=1, verbose=False, **options)
