"""Generated kernels of Rows agree with NumPy, and compile for real GPUs."""

import numpy
import pytest

import minidl as dl
from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.elementwise import is_literal
from minidl.program.gpu.kernels.rows import rows_kernel
from minidl.program.passes import pipeline
from minidl.program.program import Rows
from tests.program.gpu.kernels.running import compile_for_gpus, computed, on
from tests.program.networks import recorded

pytestmark = pytest.mark.gpu_source


def normalized(x):
    gain = dl.tensor(numpy.linspace(0.5, 2, x.shape[-1]).astype(x.dtype))
    y = dl.rms_norm(dl.layer_norm(x, gain) * 2, epsilon=1e-3)
    return y, y.max(axis=-1, keepdims=True)


def masked(x):
    mask = numpy.arange(x.shape[-1]) % 3 > 0
    powers = dl.exp(dl.where(mask, x, -5)) * dl.tanh(x)
    return dl.softmax(powers - powers.min(axis=-1, keepdims=True)), dl.logsumexp(
        powers, axis=-1, keepdims=True
    )


FUNCTIONS = {
    "softmax": lambda x: dl.softmax(x * 2),
    "log_softmax": lambda x: (dl.log_softmax(x), dl.exp(dl.log_softmax(x))),
    "normalized": normalized,
    "masked": masked,
    "integers": lambda x: x.astype("int32") - (x * 10).astype("int32").max(axis=-1, keepdims=True),
}


def kernels_of(gpu, function, x):
    """Return the kernels of the Rows of a function, the arrays that they write, and what NumPy computes."""
    program = pipeline.optimize(recorded(function, x), on_gpu=True)
    known = {value: value.array for value in program.values() if value.array is not None}
    known[program.inputs[0]] = x.reshape(program.inputs[0].shape)
    made = []
    for step in program.steps:
        known |= step.evaluate(numpy, known)
        if isinstance(step, Rows):
            places = {v: on(gpu, known[v]) for v in step.inputs if not is_literal(v)}
            places |= {v: gpu.asarray(numpy.full(v.shape, 77).astype(v.dtype)) for v in step.outputs}
            made.append((rows_kernel(step, places), [(places[v], known[v]) for v in step.outputs]))
    return made


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rows_agree_with_numpy(gpu, name, rng):
    made = []
    for shape in [(5, 2), (3, 33), (2, 3, 128), (2, 700), (1, 9000)]:
        for dtype in ("float32", "float64"):
            made += kernels_of(gpu, FUNCTIONS[name], rng.normal(size=shape).astype(dtype))
    assert len(made) >= 10
    computed(gpu, [[kernel] for kernel, _ in made])
    for _, results in made:
        for out, expected in results:
            tolerance = 1e-11 if expected.dtype == numpy.float64 else 2e-5
            numpy.testing.assert_allclose(gpu.asnumpy(out), expected, rtol=tolerance, atol=tolerance)


def test_what_is_not_finite_comes_out_as_in_numpy(gpu):
    x = numpy.zeros((4, 40), "float32")
    x[0, 3], x[1], x[2, 7] = numpy.nan, -numpy.inf, numpy.inf
    with numpy.errstate(all="ignore"):
        made = kernels_of(gpu, lambda x: (dl.softmax(x), dl.logsumexp(x, axis=-1, keepdims=True)), x)
    computed(gpu, [[kernel] for kernel, _ in made])
    for _, results in made:
        for out, expected in results:
            numpy.testing.assert_allclose(gpu.asnumpy(out), expected, rtol=2e-6)


def test_rows_compile_for_real_gpus(gpu, rng):
    kernels = [
        kernel
        for function in FUNCTIONS.values()
        for dtype in ("float16", "float32")
        for kernel, _ in kernels_of(gpu, function, rng.normal(size=(3, 40)).astype(dtype))
    ]
    compile_for_gpus(cuda_source.source([[kernel] for kernel in kernels]))
