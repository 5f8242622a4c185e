import contextlib
import importlib

import numpy
import pytest

import minidl as dl
from minidl.training.arrays import OnDisk, as_arrays, fingerprint
from tests.training.helpers import QUIET, assert_same_weights


@pytest.fixture(scope="module", autouse=True)
def imported():
    """Libraries that set variables of the environment when they are imported do it before a test begins."""
    for name in ("polars", "jax"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def of_pandas(array, folder):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(
        array, columns=[f"column {i}" for i in range(array.shape[1])], index=range(5, 101)
    )


def of_polars(array, folder):
    return pytest.importorskip("polars").DataFrame(array)


def of_torch(array, folder):
    return pytest.importorskip("torch").tensor(array)


def of_jax(array, folder):
    return pytest.importorskip("jax").numpy.asarray(array)


def of_h5py(array, folder):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(folder / f"{array.shape[1]}.h5", "w")
    return file.create_dataset("data", data=array)


def of_lists(array, folder):
    return array.tolist()


def of_tensor(array, folder):
    return dl.tensor(array)


KINDS = [of_lists, of_tensor, of_pandas, of_polars, of_torch, of_jax, of_h5py]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the other library
def test_data_of_any_kind_train_alike(make_trainer, data, tmp_path, kind):
    x, y = (kind(array, tmp_path) for array in data)
    trainers = make_trainer(), make_trainer()
    options = {"epochs": 2, "batch_size": 40, "drop_last": False, "output_network": "last", **QUIET}
    trainers[0].fit(*data, validation_data=data, **options)
    trainers[1].fit(x, y, validation_data=(x, y), **options)
    assert_same_weights(*trainers)
    assert trainers[1].evaluate(x, y) == trainers[0].evaluate(*data)
    numpy.testing.assert_array_equal(trainers[1].predict(x), trainers[0].predict(data[0]))
    assert {x.dtype for x in trainers[1].network.parameters()} == {numpy.dtype("float32")}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mini_batches_of_any_kind(make_trainer, data, tmp_path, kind):
    whole, other = make_trainer(), make_trainer()
    whole.fit([data], epochs=2, **QUIET)
    other.fit([tuple(kind(array, tmp_path) for array in data)], epochs=2, **QUIET)
    assert_same_weights(whole, other)


def test_a_data_loader_of_torch(make_trainer, data):
    torch = pytest.importorskip("torch")
    dataset = torch.utils.data.TensorDataset(*map(torch.tensor, data))
    loader = torch.utils.data.DataLoader(dataset, batch_size=32, drop_last=True)
    whole, other = make_trainer(), make_trainer()
    expected = whole.fit(*data, epochs=2, batch_size=32, shuffle="never", validation_data=data, **QUIET)
    history = other.fit(loader, epochs=2, validation_data=loader, **QUIET)
    assert_same_weights(whole, other)
    assert history.settings["steps_per_epoch"] == 3
    assert history.validation["loss"][-1] == pytest.approx(expected.validation["loss"][-1], rel=1e-6)


def test_a_column_of_a_table_is_targets(data):
    pandas = pytest.importorskip("pandas")
    labels = pandas.Series((data[1][:, 0] > 0).astype(int), index=range(200, 104, -1))
    trainer = dl.Trainer(dl.Dense(4, 2, seed=0), dl.softmax_cross_entropy, seed=0, device="cpu")
    history = trainer.fit(data[0], labels, epochs=1, **QUIET)
    other = dl.Trainer(dl.Dense(4, 2, seed=0), dl.softmax_cross_entropy, seed=0, device="cpu")
    assert other.fit(data[0], labels.to_numpy(), epochs=1, **QUIET).steps == history.steps


def with_gradient():
    return pytest.importorskip("torch").ones((96, 4), requires_grad=True)


def mixed():
    return pytest.importorskip("pandas").DataFrame({"a": [1.0] * 96, "b": ["text"] * 96})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (with_gradient, "detach the Tensor first"),
        (mixed, "expected an array of numbers, got DataFrame of object"),
        (lambda: numpy.array(["a"] * 96), "expected an array of numbers, got ndarray of <U1"),
        (lambda: numpy.ma.masked_less(numpy.ones((96, 4)), 2), "masked"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused(make_trainer, data, make, message):
    with pytest.raises(TypeError, match=message):
        make_trainer().fit(make(), data[1], **QUIET)


def test_a_dataset_on_disk_is_cut_as_an_array(tmp_path, rng):
    array = rng.normal(size=(20, 3))
    on_disk = OnDisk(of_h5py(array, tmp_path))
    for index in (slice(3, 9), numpy.array([4, 1, 4, 19, 0]), 5):
        numpy.testing.assert_array_equal(on_disk[index], array[index])
    assert len(on_disk) == 20


def test_fingerprints_tell_arrays_from_others(rng):
    x = rng.normal(size=(100, 3))
    same = fingerprint([x])
    assert fingerprint([x.copy()]) == fingerprint([numpy.asfortranarray(x)]) == same
    others = [x.astype("f4"), x[:99], x.reshape(100, 1, 3), x[::-1], -x]
    assert len({same, *(fingerprint([other]) for other in others), fingerprint([x, x])}) == 7
    fingerprint([numpy.zeros((0, 3)), numpy.float64(3)])


def test_lists_are_arrays_or_several_arrays():
    assert [x.shape for x in as_arrays([[1, 2, 3], [4, 5, 6]])] == [(2, 3)]
    assert [x.shape for x in as_arrays([numpy.ones(3), [1.0, 2.0]])] == [(3,), (2,)]
