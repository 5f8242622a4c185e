"""What kernels share: their code, the size of positions, and NVIDIA's compiler."""

import itertools

import numpy
import pytest

from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.elementwise import (
    advance_kernel,
    draw_kernel,
    group_kernel,
)
from minidl.program.gpu.kernels.reductions import reduction_kernel
from minidl.program.program import Instruction, Value
from minidl.random import philox
from tests.primitives.test_gradients import BUILT_IN, FLOAT32_ONLY
from tests.program.gpu.kernels.running import ELEMENTWISE, compile_for_gpus, kernel_of, zeros_of

pytestmark = pytest.mark.gpu_source


def test_equal_kernels_share_their_code(strict_gpu):
    kernels = [
        kernel_of(strict_gpu, BUILT_IN["add"], [numpy.ones(3), numpy.ones(3)], {})[0] for _ in range(5)
    ]
    text = cuda_source.source([kernels[:3], kernels[3:]])
    assert text.count("static __device__ void step_") == 1
    assert text.count("__global__") == 2


def test_large_arrays_are_indexed_with_64_bits():
    line = Value((2**31,), numpy.dtype("uint8"))
    array = numpy.broadcast_to(numpy.uint8(1), line.shape)
    member = Instruction(BUILT_IN["negative"], [line], {}, Value(line.shape, line.dtype))
    big = group_kernel([member], [member.output], {line: array, member.output: array}, line.shape)
    small = group_kernel([member], [member.output], {line: array[:9], member.output: array[:9]}, (9,))
    assert "long long i" in big.code
    assert "int i" in small.code


def test_the_cuda_compiler_takes_every_kernel(strict_gpu, rng):
    kernels = []
    attributes = {
        "clip": {"low": -1, "high": numpy.inf},
        "cast": {"dtype": numpy.dtype("int32")},
        "round_off": {"bits": 10},
    }
    for name, primitive in ELEMENTWISE.items():
        dtypes = ("float32",) if name in FLOAT32_ONLY else ("float16", "float32", "float64")
        for dtype in ("bool", "uint8", "int64") if name.startswith("bitwise") else dtypes:
            inputs = [rng.uniform(0.5, 1, (3, 4)).astype(dtype) for _ in primitive.gradients]
            inputs = [inputs[0] > 0.7, *inputs[1:]] if name == "where" else inputs
            kernels.append(kernel_of(strict_gpu, primitive, inputs, attributes.get(name, {}))[0])
    for name, dtype in itertools.product(
        ("sum", "max", "min"), ("float16", "float32", "float64", "int64", "uint8")
    ):
        for axis in ((0,), (1,), (0, 1)):
            x = strict_gpu.asarray(numpy.ones((3000, 70), dtype))
            out = strict_gpu.asarray(numpy.zeros((3000, 70), dtype).sum(axis=axis))
            kernels.append(reduction_kernel(name, x, axis, out, zeros_of(strict_gpu)))
    state = strict_gpu.zeros(2, "uint64")
    kernels.append(advance_kernel(state, 3))
    for name, dtype in itertools.product(("random_uniform", "random_normal"), ("float32", "float64")):
        kernels.append(draw_kernel(name, state, 7, strict_gpu.zeros(9, dtype)))
    text = cuda_source.source([kernels[i : i + 20] for i in range(0, len(kernels), 20)])
    compile_for_gpus(text, philox.source())
