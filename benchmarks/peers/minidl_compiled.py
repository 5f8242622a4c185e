"""minidl, compiled: the same step under `dl.compile`."""

from functools import partial

from benchmarks.peers import minidl_eager

build = partial(minidl_eager.build, kernels="numpy")
