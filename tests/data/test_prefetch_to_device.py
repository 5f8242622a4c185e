import itertools
import sys

import numpy
import pytest

import minidl.data
from minidl.data import batches, prefetch, prefetch_to_device
from minidl.devices import to_numpy
from tests import strict_device


@pytest.fixture
def observations(rng):
    return rng.normal(size=(40, 3)).astype("float32"), numpy.arange(40)


def test_mini_batches_arrive_whole_and_in_order(gpu, gpu_name, observations):
    cut = batches(*observations, batch_size=6)
    found = [
        (tuple(map(to_numpy, item)), {x.device.id for x in item})
        for item in prefetch_to_device(cut, gpu_name)
    ]
    for (ours, places), theirs in zip(found, cut, strict=True):
        assert places == {int(gpu_name[-1])}
        for a, b in zip(ours, theirs, strict=True):
            numpy.testing.assert_array_equal(a, b, strict=True)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_few_items(gpu, count):
    items = [numpy.full(3, float(i)) for i in range(count)]
    assert [to_numpy(x).tolist() for x in prefetch_to_device(items, "gpu")] == [x.tolist() for x in items]


def test_any_layout_and_dtype(gpu, rng):
    x = rng.normal(size=(6, 4, 5))
    arrays = [
        x,
        x.T,
        x[::2, 1:, ::-1],
        x.astype("float16"),
        x.astype(">f4"),
        x > 0,
        (100 * x).astype("int8"),
        x[:0],
        numpy.array(2, "float32"),
        numpy.broadcast_to(x[0], (3, 4, 5)),
    ]
    (found,) = prefetch_to_device([(tuple(arrays[:3]), list(arrays[3:]))], "gpu")
    for ours, theirs in zip((*found[0], *found[1]), arrays, strict=True):
        assert ours.dtype == theirs.dtype.newbyteorder("=")
        numpy.testing.assert_array_equal(to_numpy(ours), theirs)


def test_an_array_that_is_there_twice_is_uploaded_once(gpu):
    x = numpy.ones((4, 3))
    for (a,), (b, c) in prefetch_to_device([((x,), (x, x.copy()))], "gpu"):
        assert a is b
        assert a is not c


def test_arrays_on_the_device_stay_as_they_are(strict_gpu):
    x, y = strict_gpu.asarray(numpy.ones(3)), numpy.zeros(3)
    for a, b in prefetch_to_device([(x, y)], "gpu"):
        assert a is x
        assert b.device.id == 0
    strict_device.synchronisations.clear()
    assert list(prefetch_to_device([x, x], "gpu")) == [x, x]


def test_arrays_of_another_gpu_are_moved(gpu, gpu_name):
    x = gpu.asarray(numpy.arange(3.0))
    (y,) = prefetch_to_device([x], gpu_name)
    assert y.device.id == int(gpu_name[-1])
    assert (y is x) == (gpu_name == "gpu:0")
    assert to_numpy(y).tolist() == [0, 1, 2]


def test_on_the_cpu_nothing_is_done_ahead():
    made = []

    def items():
        for i in range(3):
            made.append(i)
            yield numpy.full(2, i), (numpy.ones(1),)

    for i, (x, (_,)) in enumerate(prefetch_to_device(items(), "cpu")):
        assert made == list(range(i + 1))
        assert x.tolist() == [i, i]


def test_the_next_item_is_on_its_way_while_the_present_one_is_used(strict_gpu):
    made = []

    def items():
        for i in range(4):
            made.append(i)
            yield numpy.full(2, float(i))

    seen = []
    for x in prefetch_to_device(items(), "gpu"):
        seen.append(len(made))
        assert x.sum() is not None
    assert seen == [2, 3, 4, 4]


def test_the_host_waits_only_at_the_end(strict_gpu, observations):
    strict_device.synchronisations.clear()
    total = strict_gpu.asarray(numpy.zeros(3, "float32"))
    ahead = prefetch_to_device(batches(observations[0], batch_size=2), "gpu")
    for x in ahead:
        strict_gpu.add(total, x.sum(axis=0), out=total)
        assert not strict_device.synchronisations
    assert strict_device.synchronisations == ["synchronize()"]
    numpy.testing.assert_allclose(strict_gpu.asnumpy(total), observations[0].sum(axis=0), rtol=1e-5)


def test_memory_is_used_again_and_nothing_is_overwritten(strict_gpu):
    """The stand-in raises `Race` where a copy, or who reads it, does not wait for the other."""
    places, sums, kept = [], [], []
    for i, x in enumerate(prefetch_to_device((numpy.full(1000, float(i)) for i in range(12)), "gpu")):
        places.append(x.data.ptr)
        sums.append(x.sum())
        if i % 5 == 1:
            kept.append(x)  # longer than the loop needs it
    assert len(set(places)) < 8
    assert [s.item() for s in sums] == [1000.0 * i for i in range(12)]
    assert [x.sum().item() for x in kept] == [1000, 6000, 11000]


def test_work_on_another_stream(strict_gpu):
    """The stream that is current when an item is asked for is the one that may use it."""
    sums = []
    with strict_gpu.cuda.Stream(non_blocking=True) as stream:
        for i, x in enumerate(prefetch_to_device((numpy.full(100, float(i)) for i in range(8)), "gpu")):
            sums.append(x.sum())
            assert strict_gpu.cuda.get_current_stream() is stream
            del x, i
        assert [s.item() for s in sums] == [100.0 * i for i in range(8)]


def test_uploads_side_by_side(strict_gpu):
    """A validation amid an epoch."""
    sums = []
    for x in prefetch_to_device((numpy.full(50, float(i)) for i in range(6)), "gpu"):
        for y in prefetch_to_device((numpy.full(50, 10.0 * j) for j in range(3)), "gpu"):
            sums.append(strict_gpu.multiply(x, y).sum())
            del y
    assert [s.item() for s in sums] == [50 * i * 10.0 * j for i in range(6) for j in range(3)]


@pytest.mark.parametrize("leave", ["close", "drop", "error"])
def test_who_leaves_early_gets_no_copy_into_other_memory(strict_gpu, leave):
    items = (numpy.full(64, float(i)) for i in itertools.count())
    ahead = prefetch_to_device(items, "gpu")
    place = next(ahead).data.ptr
    if leave == "close":
        ahead.close()
    elif leave == "error":
        with pytest.raises(KeyboardInterrupt):
            ahead.throw(KeyboardInterrupt)
    del ahead
    others = [strict_gpu.empty(64) for _ in range(3)]  # the memory of what was uploaded is among it
    assert place in {other.data.ptr for other in others}
    for other in others:
        other.fill(7)
    for stream in {stream for other in others for stream in _memory(other).used}:
        stream.run_until(stream.enqueued)
    assert all((strict_gpu.asnumpy(other) == 7).all() for other in others)


def _memory(array):
    return strict_device._memory_of(array.host)


def test_a_host_that_is_ahead_waits_for_the_gpu(strict_gpu, monkeypatch):
    monkeypatch.setattr(sys.modules["minidl.data.prefetch_to_device"], "MAX_ON_THEIR_WAY", 1)
    strict_device.synchronisations.clear()
    ahead = prefetch_to_device((numpy.full(4, float(i)) for i in range(5)), "gpu")
    assert [x.sum().item() for x in ahead] == [0, 4, 8, 12, 16]
    # The second item is begun while the first one waits, the others when the one before was handed over.
    assert strict_device.synchronisations.count("synchronize()") >= 2


@pytest.mark.parametrize("good", [0, 1, 2])
def test_errors_come_when_their_turn_does(gpu, good):
    def items():
        for i in range(good):
            yield numpy.full(2, float(i))
        raise OSError("unplugged")

    seen = []
    with pytest.raises(OSError, match="unplugged"):
        for x in prefetch_to_device(items(), "gpu"):
            seen.append(to_numpy(x).tolist())
    assert seen == [[float(i)] * 2 for i in range(good)]


def test_something_else_than_an_array_is_refused(gpu):
    ahead = prefetch_to_device([numpy.ones(2), (numpy.ones(2), "text")], "gpu")
    assert to_numpy(next(ahead)).tolist() == [1, 1]
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array, got str"):
        next(ahead)


def test_read_ahead_in_a_thread_and_uploaded_ahead(gpu, gpu_name, observations):
    cut = batches(observations[0], batch_size=7, shuffle=True, seed=3)
    found = [to_numpy(x) for x in prefetch_to_device(prefetch(cut), gpu_name)]
    again = batches(observations[0], batch_size=7, shuffle=True, seed=3)
    for ours, theirs in zip(found, again, strict=True):
        numpy.testing.assert_array_equal(ours, theirs)


def test_a_consumer_that_changes_its_stream(strict_gpu):
    streams = [strict_gpu.cuda.Stream(non_blocking=True) for _ in range(2)]
    ahead = prefetch_to_device((numpy.full(30, float(i)) for i in range(9)), "gpu")
    sums, others = [], []
    for i in range(9):
        with streams[i % 2]:
            x = next(ahead)
            sums.append(x.sum().item())
            del x  # its memory belongs to the stream on which the item before was asked for
        with streams[(i + 1) % 2]:
            others.append(strict_gpu.empty(30))
            others[-1].fill(1)
    assert sums == [30.0 * i for i in range(9)]


def test_an_item_that_is_not_used_has_arrived_before_its_memory_is_used_again(strict_gpu):
    first, second = (strict_gpu.cuda.Stream(non_blocking=True) for _ in range(2))
    ahead = prefetch_to_device((numpy.full(30, float(i)) for i in range(3)), "gpu")
    with first:
        next(ahead)
    with second:
        place = next(ahead).data.ptr  # taken while the first stream was current, and dropped at once
    with first:
        others = [strict_gpu.empty(30) for _ in range(2)]
        assert place in {other.data.ptr for other in others}
        for other in others:
            other.fill(7)
        assert [other.sum().item() for other in others] == [210, 210]


def test_two_items_are_on_the_device_if_the_consumer_keeps_none(strict_gpu):
    ahead = prefetch_to_device((numpy.full(300, float(i)) for i in range(9)), "gpu")
    assert len({next(ahead).data.ptr for _ in range(9)}) == 2


def test_upload_ahead_is_a_deprecated_name():
    with pytest.warns(DeprecationWarning, match="is now called prefetch_to_device") as warned:
        assert minidl.data.upload_ahead is prefetch_to_device
    assert warned[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'upload_behind'"):
        minidl.data.upload_behind  # noqa: B018
