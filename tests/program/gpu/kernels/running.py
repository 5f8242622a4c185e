"""Running single kernels, and compiling them for real GPUs."""

import numpy
import pytest
from hypothesis import HealthCheck, Phase, settings

from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.elementwise import (
    group_kernel,
)
from minidl.program.gpu.kernels.source import THREADS, launch_name
from minidl.program.program import Instruction, Value
from tests.primitives.test_gradients import BUILT_IN

ELEMENTWISE = {
    name: primitive
    for name, primitive in BUILT_IN.items()
    if primitive.kind == "elementwise" and primitive.expression is not None
}


def examples(number):
    """Return settings for tests that compile for each example: none searches for the smallest that fails."""
    return settings(
        max_examples=number,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


def computed(gpu, launches):
    """Run launches: lists of kernels on arrays of the GPU."""
    module = gpu.RawModule(code=cuda_source.source(launches))
    for number, kernels in enumerate(launches):
        arguments = tuple(argument for kernel in kernels for argument in kernel.arguments)
        blocks = sum(kernel.blocks for kernel in kernels)
        if blocks:
            module.get_function(launch_name(number))((blocks,), (THREADS,), arguments)


def kernel_of(gpu, primitive, inputs, attributes):
    """Return the kernel of one primitive, the array of its result, and what NumPy computes."""
    with numpy.errstate(all="ignore"):
        expected = numpy.asarray(primitive.forward(numpy, *inputs, **attributes))
    values = [Value(x.shape, x.dtype) for x in inputs]
    member = Instruction(primitive, values, attributes, Value(expected.shape, expected.dtype))
    out = gpu.asarray(numpy.full(expected.shape, 77).astype(expected.dtype))
    places = dict(zip(values, (on(gpu, x) for x in inputs), strict=True)) | {member.output: out}
    return group_kernel([member], [member.output], places, expected.shape), out, expected


def on(gpu, array):
    """Return a NumPy array on the GPU, with its strides."""
    if array.ndim == 0 or array.size == 0:
        return gpu.asarray(array)
    base = array[tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)]
    step = base.strides[-1] // base.itemsize
    wide = numpy.zeros((*base.shape[:-1], base.shape[-1] * max(step, 1)), array.dtype)
    wide[..., :: max(step, 1)] = base
    keys = tuple(slice(None, None, -1 if stride < 0 else 1) for stride in array.strides)
    return gpu.asarray(wide)[..., :: max(step, 1)][keys]


def zeros_of(gpu):
    kept = []

    def zeros(count, dtype):
        kept.append(gpu.zeros(count, dtype))
        return kept[-1]

    return zeros


#: What CuPy tells the compiler in every case.
AS_CUPY = {"ftz": True, "device_as_default_execution_space": True}


def compile_for_gpus(*codes, architectures=("sm_80", "sm_90")):
    """Compile CUDA source for real GPUs, which needs none; skip the test where there is no compiler."""
    core = pytest.importorskip(
        "cuda.core", reason="needs NVIDIA's compiler: pip install -e '.[nvrtc]'", exc_type=ImportError
    )
    for arch in architectures:
        options = core.ProgramOptions(arch=arch, std="c++17", **AS_CUPY)
        for code in codes:
            code = code.replace("#include <cuda_fp16.h>", HALVES)
            assert core.Program(code, "c++", options).compile("cubin").code


#: What this code uses of cuda_fp16.h, for the compiler alone comes without CUDA's headers.
HALVES = """
struct __half { unsigned short bits; };
__device__ inline float __half2float(__half h) {
    float value; asm("{ cvt.f32.f16 %0, %1; }" : "=f"(value) : "h"(h.bits)); return value;
}
__device__ inline __half __float2half(float value) {
    __half h; asm("{ cvt.rn.f16.f32 %0, %1; }" : "=h"(h.bits) : "f"(value)); return h;
}
"""
