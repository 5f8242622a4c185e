"""What all tests share: settings of hypothesis, a check that no test leaves a trace, and GPUs."""

import os
import signal
import threading
from pathlib import Path

import numpy
import pytest
import threadpoolctl
from hypothesis import Phase, settings

from minidl import devices
from minidl.mode import mode
from minidl.random.generator import default_generator
from tests import strict_device

# Processes that tests start use this copy of minidl, too, even if another one is installed.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# Examples are derived from the test's name: a failure shows again in every run.
# Which parts of a failing example do not matter is not looked for: that takes as long as a hundred examples.
settings.register_profile(
    "minidl", deadline=None, derandomize=True, max_examples=25, phases=set(Phase) - {Phase.explain}
)
settings.load_profile("minidl")


_BLAS = threadpoolctl.ThreadpoolController()  # finding the libraries takes long, asking them does not


#: Variables of the environment that pytest sets for each test, and scikit-learn when it is imported.
_SET_BY_OTHERS = ("PYTEST_CURRENT_TEST", "KMP_INIT_AT_FORK")


def process_settings():
    """Return what belongs to the whole process, and what a test must leave as it was.

    Warnings filters are not among it: pytest puts them back by itself.
    """
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "recording of gradients": mode.grad_enabled,
        "recorder": mode.recorder,
        "layer hook": mode.layer_hook,
        "current GPU": strict_device.state.device,
        "NumPy errors": numpy.geterr(),
        "umask": umask,
        **{f"handler of signal {number}": signal.getsignal(number) for number in signal.valid_signals()},
        "threads of BLAS": [library.num_threads for library in _BLAS.lib_controllers],
        "folder": os.getcwd(),
        **{f"${name}": value for name, value in os.environ.items() if name not in _SET_BY_OTHERS},
    }


def lasting_threads():
    """Return the threads without which Python does not end."""
    return {thread for thread in threading.enumerate() if not thread.daemon}


@pytest.fixture(autouse=True)
def nothing_leaks():
    before, threads = process_settings(), lasting_threads()
    yield
    after = process_settings()
    names = sorted(before.keys() | after.keys())
    changed = {x: (before.get(x), after.get(x)) for x in names if before.get(x) != after.get(x)}
    assert not changed, "the test changed settings of the whole process"
    for thread in lasting_threads() - threads:
        thread.join(timeout=1)  # it may be about to end
    assert lasting_threads() <= threads, "the test left a thread behind"


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
    default_generator.on_device.clear()  # its streams there end with the device


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
