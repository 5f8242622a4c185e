"""PyTorch, eager, with the fused Adam."""

from functools import partial

from benchmarks.peers import torch_eager

build = partial(torch_eager.build, fused=True)
