"""minidl, compiled with elementwise work and the step's driver as generated C."""

from functools import partial

from benchmarks.peers import minidl_eager

build = partial(minidl_eager.build, kernels="c")
