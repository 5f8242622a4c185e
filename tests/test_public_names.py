"""The face of the package: what `dl.` offers, what it says about other names, and what importing it costs."""

import builtins
import importlib.metadata
import os
import re
import statistics
import subprocess
import sys
import types
from functools import reduce

import pytest

import minidl as dl
from minidl import errors
from minidl.foreign_names import NAMES, OPTIONS, hint


def run(code, **environment):
    """Run Python code in a process of its own, and return what it prints."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_dir_gives_the_public_names_and_nothing_else():
    names = dir(dl)
    assert "check_layer" in names
    assert "Any" not in names
    public = {
        name
        for name, value in vars(dl).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "Any"
    }
    public -= {"TYPE_CHECKING"}
    modules = {"data", "devices", "distributed", "initializers", "interop", "linalg", "random", "schedules"}
    when_used = {
        "Callback",
        "History",
        "ReduceOnPlateau",
        "Trainer",
        "check_gradients",
        "check_layer",
        "from_dlpack",
        "plot_confusion_matrix",
    }
    assert set(names) == public | modules | when_used | {"__version__"}
    assert all(hasattr(dl, name) for name in names)


def test_a_star_import_hides_nothing_of_pythons():
    assert not [name for name in dl.__all__ if hasattr(builtins, name)]
    namespace = {}
    exec("from minidl import *", namespace)
    namespace.pop("__builtins__")
    assert set(namespace) == set(dl.__all__)


def test_every_exception_is_public():
    exceptions = [x for x in vars(errors).values() if isinstance(x, type) and issubclass(x, Exception)]
    assert len(exceptions) >= 5
    for exception in exceptions:
        assert getattr(dl, exception.__name__) is exception


def test_the_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", dl.__version__)
    assert importlib.metadata.version("minidl") == dl.__version__


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("Linear", "it is called 'Dense' here"),
        ("Sequential", "it is called 'Network' here"),
        ("stop_gradient", "it is called 'Tensor.detach' here"),
        ("adam", "did you mean 'Adam'?"),
        ("sofmax", "did you mean 'softmax'?"),
        ("binary_crossentropy", "did you mean 'binary_cross_entropy'?"),
    ],
)
def test_a_foreign_or_misspelt_name_is_answered_with_ours(name, answer):
    with pytest.raises(
        AttributeError, match=re.escape(f"module 'minidl' has no attribute '{name}': {answer}")
    ):
        getattr(dl, name)


def test_a_name_like_nothing_gets_no_advice():
    with pytest.raises(AttributeError, match=r"^module 'minidl' has no attribute 'zzz'$"):
        dl.zzz  # noqa: B018
    assert not hasattr(dl, "__wrapped__")


def test_every_name_in_the_table_of_foreign_names_is_foreign_and_its_answer_exists():
    for foreign, ours in NAMES.items():
        assert foreign not in dir(dl), f"{foreign} is a name of ours"
        reduce(getattr, ours.split("."), dl)


def test_options_are_answered_with_ours():
    known = ["learning_rate", "l2", "momentum"]
    assert hint("lr", known, OPTIONS) == ": it is called 'learning_rate' here"
    assert hint("eps", known, OPTIONS) == ""  # epsilon is no option here
    assert hint("learningRate", known, OPTIONS) == ": did you mean 'learning_rate'?"
    assert hint("momentun", known, OPTIONS) == ": did you mean 'momentum'?"


def test_the_table_is_loaded_only_when_a_name_is_missing():
    assert run("import sys, minidl; print('minidl.foreign_names' in sys.modules)").strip() == "False"


SETTINGS = """
import gc, locale, os, resource, signal, sys, threading, warnings
import numpy
import threadpoolctl


def settings():
    umask = os.umask(0)
    os.umask(umask)
    return {
        "signal handlers": [signal.getsignal(number) for number in signal.valid_signals()],
        "warnings filters": list(warnings.filters),
        "NumPy errors": (numpy.geterr(), numpy.geterrcall(), numpy.get_printoptions()),
        "NumPy random state": [str(part) for part in numpy.random.get_state()],
        "threads": threading.active_count(),
        "threads of BLAS": [(lib["filepath"], lib["num_threads"]) for lib in threadpoolctl.threadpool_info()],
        "umask": umask,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "hooks": (sys.excepthook, sys.displayhook, threading.excepthook, sys.unraisablehook),
        "limits": (sys.getrecursionlimit(), resource.getrlimit(resource.RLIMIT_STACK), gc.get_threshold()),
        "locale": locale.setlocale(locale.LC_ALL),
        "files": sorted(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None,
    }


before = settings()
import minidl
after = settings()
print([name for name in before if before[name] != after[name]])
"""


def test_importing_changes_no_setting_of_the_process():
    pytest.importorskip("resource")
    assert run(SETTINGS).strip() == "[]"


def test_the_test_of_settings_sees_a_change():
    changed = SETTINGS.replace("import minidl\n", "import minidl; os.umask(1); numpy.seterr(all='raise')\n")
    assert run(changed).strip() == "['NumPy errors', 'umask']"


def test_importing_loads_nothing_heavy():
    heavy = ["matplotlib", "scipy", "tqdm", "mpi4py", "sklearn", "safetensors", "cupy", "minidl.checks"]
    heavy += ["minidl.training", "minidl.inspection"]
    loaded = run(f"import sys, minidl; print([name for name in {heavy} if name in sys.modules])")
    assert loaded.strip() == "[]"


@pytest.mark.slow
def test_importing_costs_at_most_1_4_times_numpy(tmp_path):
    resource = pytest.importorskip("resource")  # of POSIX

    def seconds(module):  # of processors, which other work on the machine does not change
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(f"import {module}", PYTHONPYCACHEPREFIX=str(tmp_path), PYTHONDONTWRITEBYTECODE="")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds("numpy"), seconds("minidl")  # writes the bytecode
    pairs = [(seconds("numpy"), seconds("minidl")) for _ in range(15)]
    assert statistics.median(minidl / numpy for numpy, minidl in pairs) <= 1.4
