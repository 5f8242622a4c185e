"""Makes a process like Python in a browser, as far as Python code can tell: `begin()`, before other imports.

Pyodide (CPython for WebAssembly) starts neither threads nor processes and lacks some modules. The lists are
what Pyodide 314 (Python 3.14) says of itself; `FURTHER` holds what other such systems lack besides.
"""

import os
import sys
import sysconfig
import threading
from importlib.abc import MetaPathFinder

#: Modules that Pyodide does not have.
MISSING = {"_multiprocessing", "_posixshmem", "curses", "grp", "pwd", "readline", "resource", "tkinter"}
#: Modules that other systems without processes lack too.
FURTHER = {"_posixsubprocess", "fcntl", "mmap", "multiprocessing"}
#: Functions that Pyodide's os does not have.
MISSING_FUNCTIONS = ("sched_getaffinity", "sched_setaffinity", "memfd_create", "geteuid", "getloadavg")
#: Functions that its os has, and which fail.
FAILING_FUNCTIONS = ("fork", "posix_spawn", "system", "popen", "execv")


class _Absent(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in MISSING | FURTHER:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _no_thread(*arguments, **options):
    raise RuntimeError("can't start new thread")


def _no_process(*arguments, **options):
    raise OSError(138, "emscripten does not support processes.")


def begin():
    """Take away what a browser does not have."""
    import _thread

    early = {"numpy", "minidl", "subprocess", *FURTHER} & sys.modules.keys()
    assert not early, f"imported too early: {early}"
    for module in (_thread, threading):
        for name in ("start_new_thread", "start_joinable_thread"):
            for spelled in (name, f"_{name}"):
                if hasattr(module, spelled):
                    setattr(module, spelled, _no_thread)
    for name in MISSING_FUNCTIONS:
        if hasattr(os, name):
            delattr(os, name)
    for name in FAILING_FUNCTIONS:
        setattr(os, name, _no_process)
    os.cpu_count = lambda: 1
    sys.meta_path.insert(0, _Absent())
    sysconfig.get_config_vars()  # which the next line would hide
    sys.platform = "emscripten"  # for which subprocess, for example, has code of its own
