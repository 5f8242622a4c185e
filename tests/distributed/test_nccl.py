"""Sums on GPUs, on a stand-in for NCCL: streams, addresses, dtypes; else through the host."""

import sys
import types

import numpy
import pytest

import minidl as dl
from minidl import devices
from minidl.distributed.nccl import GPUSums
from tests import strict_device
from tests.distributed.mirror import Mirror

DTYPES = {7: "float32", 8: "float64", 4: "int64"}


class FakeNCCL(types.ModuleType):
    """As cupy.cuda.nccl: a communicator that finds arrays by their addresses, and multiplies by the size."""

    available = True

    def __init__(self, arrays):
        super().__init__("cupy.cuda.nccl")
        self.arrays, self.calls = arrays, []
        fake = self

        class NcclCommunicator:
            def __init__(self, size, name, rank):
                assert name == ("name",)
                self.size, self.rank = size, rank

            def allReduce(self, source, target, count, kind, operation, stream):
                assert source == target
                assert operation == 0
                array = next(a for a in fake.arrays if a.data.ptr == source)
                assert (array.size, array.dtype.name) == (count, DTYPES[kind])
                fake.calls.append((count, DTYPES[kind], stream))
                devices.write(array, devices.to_device(devices.to_numpy(array) * self.size, "gpu"))

        self.NcclCommunicator = NcclCommunicator

    def get_unique_id(self):
        return ("name",)


class GPUs(Mirror):
    """Processes with one GPU each."""

    def gather(self, value):
        if isinstance(value, tuple):
            return [(f"{value[0]} {rank}", value[1]) for rank in range(self.size)]
        return super().gather(value)


def on_gpu(dtype):
    return dl.tensor(numpy.arange(4, dtype=dtype), device="gpu").data


@pytest.fixture
def nccl(strict_gpu, monkeypatch):
    fake = FakeNCCL([])
    monkeypatch.setitem(sys.modules, "cupy.cuda", types.SimpleNamespace(nccl=fake))
    return fake


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_nccl_sums_where_the_array_lies_on_its_own_stream(nccl, dtype):
    array = on_gpu(dtype)
    nccl.arrays.append(array)
    sums = GPUSums(GPUs(3), array)
    for factor in (3, 9):
        sums.begin(array)()
        assert devices.to_numpy(array).tolist() == [0, factor, 2 * factor, 3 * factor]
    assert nccl.calls == [(4, dtype, sums.stream.ptr)] * 2
    assert sums.stream is not strict_device.current_stream()


def test_without_nccl_sums_go_through_the_host(strict_gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy.cuda", types.SimpleNamespace())
    array, ranks = on_gpu("float32"), GPUs(2)
    GPUSums(ranks, array).begin(array)()
    assert devices.to_numpy(array).tolist() == [0, 2, 4, 6]
    assert [kind for kind, *_ in ranks.log] == ["begin", "end"]


def test_two_processes_on_one_gpu_go_through_the_host(nccl):
    array, ranks = on_gpu("float32"), Mirror(2)
    GPUSums(ranks, array).begin(array)()
    assert devices.to_numpy(array).tolist() == [0, 2, 4, 6]
    assert nccl.calls == []
