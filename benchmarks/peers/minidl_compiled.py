"""minidl, compiled by plain `dl.compile`: as C where there is a compiler; with NumPy's own BLAS."""

from functools import partial

from benchmarks.peers import minidl_eager
from minidl.program.cpu import blas

blas._mkl = lambda: None  # as without the extra `mkl`
build = partial(minidl_eager.build, kernels="auto")
