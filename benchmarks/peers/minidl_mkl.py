"""minidl, compiled by plain `dl.compile`, with the extra `mkl`."""

import importlib.metadata
from functools import partial

from benchmarks.peers import minidl_eager

importlib.metadata.version("mkl")  # not installed: this peer is left out
build = partial(minidl_eager.build, kernels="auto")
