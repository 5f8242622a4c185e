"""What all tests share: hypothesis settings, and a check that no test leaves a mode switched."""

import numpy
import pytest
from hypothesis import settings

from minidl import devices
from minidl.mode import mode
from tests import strict_device

# Examples are derived from the test's name: a failure shows again in every run.
settings.register_profile("minidl", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("minidl")


@pytest.fixture(autouse=True)
def nothing_leaks():
    yield
    assert mode.grad_enabled, "the test left the tape switched off"
    assert mode.recorder is None, "the test left a recorder in place"
    assert mode.layer_hook is None, "the test left an observer of Layers in place"
    assert strict_device.state.device == 0, "the test left another GPU than the first the current one"


@pytest.fixture
def rng():
    return numpy.random.default_rng(0)


@pytest.fixture
def strict_gpu(monkeypatch):
    """Stand in for CuPy with arrays that refuse to mix with NumPy's, so that "gpu" exists."""
    from minidl.program.gpu import cublas, executor

    devices._cached_scalar.cache_clear()
    strict_device.begin_anew()
    monkeypatch.setitem(__import__("sys").modules, "cupy", strict_device.module)
    library = strict_device.Cublas()
    for user in (cublas, executor):
        monkeypatch.setattr(user, "library", lambda: library)
    yield strict_device.module
    devices._cached_scalar.cache_clear()


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.gpu)])
def gpu(request):
    """A GPU: the stand-in, and the real one where there is one."""
    if request.param == "stand-in":
        yield request.getfixturevalue("strict_gpu")
        return
    problem = devices.gpu_problem()
    if problem is not None:
        pytest.skip(problem)
    yield __import__("cupy")


@pytest.fixture(params=["gpu:0", "gpu:1"])
def gpu_name(gpu, request):
    """The name of a GPU: of the current one, and of another one where there are two."""
    if int(request.param[-1]) >= gpu.cuda.runtime.getDeviceCount():
        pytest.skip("there is no second GPU on this machine")
    return request.param
