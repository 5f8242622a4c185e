import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minidl as dl
from minidl.data import batches

sizes = st.integers(1, 40), st.integers(1, 45)


@given(*sizes, st.booleans(), st.booleans())
def test_every_observation_once_and_rows_stay_together(n, batch_size, shuffle, drop_last):
    x, y = numpy.arange(n * 6).reshape(n, 2, 3), numpy.arange(n)
    cut = batches(x, y, batch_size=batch_size, shuffle=shuffle, seed=0, drop_last=drop_last)
    epoch = list(cut)
    assert len(epoch) == len(cut)
    assert all(numpy.array_equal(a, x[b]) for a, b in epoch)
    assert all(len(b) == batch_size for _, b in epoch[:-1])
    seen = numpy.concatenate([b for _, b in epoch])
    assert len(set(seen.tolist())) == len(seen)
    dropped = n % batch_size if drop_last and n >= batch_size else 0
    assert len(seen) == n - dropped
    if not shuffle:
        assert numpy.array_equal(seen, numpy.arange(n - dropped))


def test_the_originals_39_steps_an_epoch():
    assert len(batches(numpy.zeros(5000), batch_size=128, drop_last=True)) == 39
    assert len(batches(numpy.zeros(5000), batch_size=128)) == 40


def test_a_single_small_batch_is_kept():
    (only,) = batches(numpy.arange(5), batch_size=128, drop_last=True)
    assert only.tolist() == [0, 1, 2, 3, 4]


def test_one_array_gives_bare_arrays_and_several_give_tuples():
    x = numpy.arange(4)
    assert isinstance(next(iter(batches(x, batch_size=2))), numpy.ndarray)
    assert isinstance(next(iter(batches(x, x, batch_size=2))), tuple)


def test_in_order_means_views():
    x = numpy.arange(10)
    assert all(numpy.shares_memory(batch, x) for batch in batches(x, batch_size=3))
    assert not any(numpy.shares_memory(batch, x) for batch in batches(x, batch_size=3, shuffle=True))


def test_epochs_differ_and_follow_the_seed():
    def two_epochs(seed):
        cut = batches(numpy.arange(100), batch_size=30, shuffle=True, seed=seed)
        return [numpy.concatenate(list(cut)).tolist() for _ in range(2)]

    first, second = two_epochs(1)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(100))
    assert two_epochs(1) == [first, second]
    assert two_epochs(numpy.random.default_rng(1)) == [first, second]
    assert two_epochs(2) != [first, second]


def test_two_iterations_at_once():
    cut = batches(numpy.arange(10), batch_size=1, shuffle=True, seed=0)
    pairs = list(zip(cut, cut, strict=True))
    for side in zip(*pairs, strict=True):
        assert sorted(int(batch[0]) for batch in side) == list(range(10))


def test_memory_maps(tmp_path):
    stored = numpy.memmap(tmp_path / "x", "f4", "w+", shape=(10, 3))
    stored[:] = numpy.arange(30).reshape(10, 3)
    for shuffle in (False, True):
        epoch = numpy.concatenate(list(batches(stored, batch_size=4, shuffle=shuffle, seed=0)))
        assert numpy.array_equal(epoch[epoch[:, 0].argsort()], stored)


@pytest.mark.parametrize("shuffle", [False, True])
def test_arrays_on_a_device_are_indexed_there(strict_gpu, shuffle):
    host = numpy.arange(10)
    device = strict_gpu.asarray(host)
    pairs = list(batches(device, host, batch_size=4, shuffle=shuffle, seed=0))
    assert [len(b) for _, b in pairs] == [4, 4, 2]
    for on_device, on_host in pairs:
        assert isinstance(on_device, strict_gpu.ndarray)
        assert numpy.array_equal(strict_gpu.asnumpy(on_device), on_host)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("device", ["cpu", "gpu", "gpu:1"])
def test_tensors_stay_tensors_where_they_are(strict_gpu, device, shuffle):
    x = dl.tensor(numpy.arange(10), device=device)
    parts = list(batches(x, batch_size=4, shuffle=shuffle, seed=0))
    assert {part.device for part in parts} == {x.device}
    assert sorted(i for part in parts for i in part.tolist()) == list(range(10))


@pytest.mark.parametrize(
    ("arrays", "options", "error", "message"),
    [
        ((), {}, ValueError, "at least one array"),
        ((numpy.zeros(3), numpy.zeros(4)), {}, ValueError, r"\[3, 4\]"),
        ((numpy.zeros((0, 3)),), {}, ValueError, "empty"),
        ((numpy.zeros(3),), {"batch_size": 0}, ValueError, "got 0"),
        ((numpy.zeros(3),), {"batch_size": 2.5}, TypeError, "batch_size is an integer, got 2.5"),
        ((numpy.zeros(3), [1, 2, 3]), {}, TypeError, "argument 1 is a list"),
        ((numpy.zeros(()),), {}, TypeError, "argument 0 is a ndarray without axes"),
    ],
)
def test_bad_arguments(arrays, options, error, message):
    with pytest.raises(error, match=message):
        batches(*arrays, **{"batch_size": 2, **options})
