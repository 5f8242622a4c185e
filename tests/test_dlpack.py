import numpy
import pytest

import minidl as dl
from minidl import dlpack
from minidl.errors import DeviceError, RecordingError


class Foreign:
    """An array of another library that speaks only DLPack."""

    def __init__(self, array, device=(1, 0), requires_grad=False):
        self.array, self.device, self.requires_grad = array, device, requires_grad

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device


def capsule_of(x, **options):
    """Return what NumPy makes of a Tensor, given these keywords."""

    class Consumer:
        def __dlpack__(self, **_):
            return x.__dlpack__(**options)

        def __dlpack_device__(self):
            return x.__dlpack_device__()

    return numpy.from_dlpack(Consumer())


# --- out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool"])
def test_other_libraries_get_a_copy(dtype):
    x = dl.tensor([[1, 0], [1, 1]]).astype(dtype).T
    for options in ({}, {"copy": True}, {"max_version": (1, 0)}, {"dl_device": (1, 0)}, {"stream": None}):
        array = capsule_of(x, **options)
        numpy.testing.assert_array_equal(array, x.numpy(), strict=True)
        assert not numpy.shares_memory(array, x.data)
    assert numpy.from_dlpack(x).flags.writeable


def test_the_memory_itself_is_marked_as_read_only():
    x = dl.tensor([1.0, 2.0])
    array = numpy.from_dlpack(x, copy=False)
    assert numpy.shares_memory(array, x.data)
    assert not array.flags.writeable
    assert x.data.flags.writeable
    with pytest.raises(BufferError, match="leave out copy=False"):
        x.__dlpack__(copy=False)


def test_a_gradient_is_not_lost():
    x = dl.Parameter([1.0, 2.0])
    for lost in (x, x * 2):
        with pytest.raises(BufferError, match=r"\.detach\(\)"):
            numpy.from_dlpack(lost)
    assert numpy.from_dlpack(x.detach()).tolist() == [1, 2]
    with dl.no_grad():
        assert numpy.from_dlpack(x * 2).tolist() == [2, 4]


def test_what_a_tensor_on_the_host_cannot_do_is_refused():
    x = dl.tensor([1.0])
    with pytest.raises(BufferError, match="not handed to another device"):
        x.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="has no stream, got stream=1"):
        x.__dlpack__(stream=1)


def test_a_compiled_function_does_not_hand_out_values():
    step = dl.compile(lambda x: dl.tensor(numpy.from_dlpack(x)))
    with pytest.raises(RecordingError, match="__dlpack__"):
        step(dl.ones(2))


# --- in -------------------------------------------------------------------------------------------


def test_memory_is_shared_or_copied():
    array = numpy.arange(6.0, dtype="f4").reshape(2, 3)
    for source in (array, Foreign(array), Foreign(array[:, ::-2]), dl.Parameter(array)):
        x = dl.from_dlpack(source)
        assert not x.requires_grad
        assert x.dtype == numpy.float32
    x, y = dl.from_dlpack(Foreign(array.T)), dl.from_dlpack(Foreign(array), copy=True)
    array[0, 0] = 7
    assert (x[0, 0].item(), y[0, 0].item()) == (7, 0)
    assert x.shape == (3, 2)
    assert (x @ dl.ones((2, 1))).tolist() == [[10], [5], [7]]
    x.assign(dl.zeros((3, 2)))
    assert not array.any()


def test_our_own_tensors_share_too():
    x = dl.tensor([1.0, 2.0])
    y = dl.from_dlpack(x)
    assert numpy.shares_memory(x.data, y.data)
    assert y.device == "cpu"


def test_what_cannot_be_taken_is_refused():
    array = numpy.ones(2)
    for x, problem in (
        (Foreign(array, requires_grad=True), "detach the Foreign first"),
        ([1.0], "from_dlpack takes an array with __dlpack__, got list"),
    ):
        with pytest.raises(TypeError, match=problem):
            dl.from_dlpack(x)
    with pytest.raises(DeviceError, match="kind 7"):
        dl.from_dlpack(Foreign(array, device=(7, 0)))
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        dl.from_dlpack(array, device="tpu")

    class Broken(Foreign):
        dtype = "bfloat16"

        def __dlpack__(self, **options):
            raise BufferError("NumPy has no such type")

    with pytest.raises(TypeError, match="a Broken of dtype bfloat16 cannot be taken: NumPy has no such type"):
        dl.from_dlpack(Broken(array))


# --- on a GPU -------------------------------------------------------------------------------------


@pytest.fixture
def speaking_gpu(strict_gpu, monkeypatch):
    """The stand-in for CuPy, whose capsules are its arrays."""
    kind = strict_gpu.ndarray
    asked = []

    def export(self, stream=None, max_version=None):
        asked.append((stream, max_version))
        return self

    monkeypatch.setattr(kind, "__dlpack__", export, raising=False)
    monkeypatch.setattr(kind, "__dlpack_device__", lambda self: (2, self.device.id), raising=False)
    monkeypatch.setattr(strict_gpu, "from_dlpack", lambda x: x.__dlpack__(), raising=False)
    strict_gpu.asked = asked
    yield strict_gpu
    del strict_gpu.asked


def test_gpu_tensors_go_out_on_the_stream_that_is_asked_for(speaking_gpu):
    x = dl.tensor([1.0, 2.0], device="gpu")
    capsule = x.__dlpack__(stream=7, max_version=(1, 0))
    assert speaking_gpu.asked == [(7, (1, 0))]
    assert dl.devices.to_numpy(capsule).tolist() == [1, 2]
    assert capsule is not x.data


def test_gpu_tensors_go_to_the_host_by_a_copy(speaking_gpu):
    x = dl.tensor([1.0, 2.0], device="gpu")

    class Consumer:
        def __dlpack__(self, **_):
            return x.__dlpack__(stream=7, dl_device=(1, 0))

        def __dlpack_device__(self):
            return (1, 0)

    assert numpy.from_dlpack(Consumer()).tolist() == [1, 2]
    with pytest.raises(BufferError, match="on the host without a copy"):
        x.__dlpack__(dl_device=(1, 0), copy=False)
    with pytest.raises(BufferError, match="another device"):
        x.__dlpack__(dl_device=(2, 1))


def test_gpu_arrays_come_in_and_go_where_they_shall(speaking_gpu):
    array = dl.tensor([1.0, 2.0], device="gpu").data
    other = type("Other", (), {"__dlpack__": lambda self: array, "__dlpack_device__": lambda self: (2, 0)})()
    for source in (array, other):
        x = dl.from_dlpack(source)
        assert x.data is array
        assert dl.from_dlpack(source, device="cpu").tolist() == [1, 2]
        with pytest.raises(ValueError, match="without a copy"):
            dl.from_dlpack(source, device="cpu", copy=False)
        assert dl.from_dlpack(source, copy=True).data is not array
        assert dl.tensor(source).device == "gpu:0"
    assert dl.from_dlpack(numpy.ones(2), device="gpu").device == "gpu:0"
    assert dlpack.shared(dl.tensor([3.0])).tolist() == [3]
