"""Generated kernels of convolutions of small groups agree with NumPy, and compile for real GPUs."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.primitives.convolution import conv_, conv_input_, conv_weight_
from minidl.program.gpu.kernels import source as cuda_source
from minidl.program.gpu.kernels.grouped import (
    grouped_conv_input_kernel,
    grouped_conv_kernel,
    grouped_conv_weight_kernel,
    is_of_small_groups,
)
from minidl.program.plan.convolution import Form
from minidl.program.program import Instruction, Value
from tests.primitives.test_convolution import convolutions
from tests.program.gpu.kernels.running import compile_for_gpus, computed, examples, on, zeros_of

pytestmark = pytest.mark.gpu_source

SHARED = examples(6)
TOLERANCES = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-12}


@pytest.fixture(params=["forwards", "backwards"])
def order(request, monkeypatch):
    if request.param == "backwards":
        monkeypatch.setenv("BLOCKS_BACKWARDS", "1")


def kernels_of(gpu, x, w, where, dtype):
    """Return the kernel of each form, what it writes, and what NumPy computes in float64."""
    x, w = x.astype(dtype), w.astype(dtype)
    g = conv_.forward(numpy, x.astype("float64"), w.astype("float64"), **where)
    g = (g / max(abs(g).max(), 1)).astype(dtype)
    window, lengths = {"window": w.shape[:-2]}, {"lengths": x.shape[1:-1]}
    step = Instruction(
        conv_, [Value(x.shape, x.dtype), Value(w.shape, x.dtype)], where, Value(g.shape, x.dtype)
    )
    form = Form.of(step)
    made = []
    for primitive, a, b, more in (
        (conv_, x, w, {}),
        (conv_input_, g, w, lengths),
        (conv_weight_, x, g, window),
    ):
        exact = primitive.forward(numpy, a.astype("float64"), b.astype("float64"), **where, **more)
        out = gpu.asarray(numpy.full(exact.shape, 77, dtype))
        arrays = on(gpu, a), on(gpu, b), out, form
        if primitive is conv_weight_:
            kernel = grouped_conv_weight_kernel(*arrays, zeros_of(gpu))
        else:
            kernel = (grouped_conv_kernel if primitive is conv_ else grouped_conv_input_kernel)(*arrays)
        made.append((kernel, out, exact))
    return made


@given(data=st.data())
@SHARED
def test_convolutions_of_small_groups_agree_with_numpy(gpu, order, data):
    made = []
    for dtype in (*TOLERANCES, *TOLERANCES):
        x, w, where = data.draw(convolutions())
        x = x.repeat(2, -1)[..., ::2] if data.draw(st.booleans()) else x
        made += kernels_of(gpu, x, w, where, dtype)
    computed(gpu, [[kernel for kernel, _, _ in made]])
    for kernel, out, exact in made:
        tolerance = TOLERANCES[out.dtype.name] * (1 + abs(exact).max())
        numpy.testing.assert_allclose(gpu.asnumpy(out), exact, rtol=0, atol=tolerance, err_msg=kernel.code)


@pytest.mark.parametrize("channels", [5, 40])
def test_many_windows_are_summed_by_several_blocks(gpu, order, rng, channels):
    """Side by side in their channels, or in their windows, where these are few."""
    where = {"stride": (2, 1), "padding": ((1, 1), (0, 1)), "dilation": (1, 2), "groups": channels}
    x, w = rng.normal(size=(4, 40, 30, channels)), rng.normal(size=(3, 2, 1, channels))
    made = kernels_of(gpu, x, w, where, "float32")
    assert len(made[-1][0].arrays) == 5
    computed(gpu, [[kernel] for kernel, _, _ in made])
    bits = gpu.asnumpy(made[-1][1]).tobytes()
    computed(gpu, [[kernel] for kernel, _, _ in made])  # the counters are ready again
    assert gpu.asnumpy(made[-1][1]).tobytes() == bits
    for _, out, exact in made:
        numpy.testing.assert_allclose(gpu.asnumpy(out), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("groups", "inside", "outside", "expected"),
    [(1, 1, 1, False), (2, 8, 8, True), (2, 9, 1, False), (4, 1, 9, False)],
)
def test_which_groups_are_small(groups, inside, outside, expected):
    form = Form(1, (3,), (3,), (1,), (1,), (0,), (1,), groups, inside, outside)
    assert is_of_small_groups(form) == expected


def test_the_cuda_compiler_takes_convolutions_of_small_groups(strict_gpu, rng):
    kernels = []
    for dtype in TOLERANCES:
        for axes in (1, 2, 3):
            where = {
                "stride": (2,) * axes,
                "padding": ((1, 0),) * axes,
                "dilation": (1,) * axes,
                "groups": 32,
            }
            x, w = rng.normal(size=(2, *(5,) * axes, 64)), rng.normal(size=(*(3,) * axes, 2, 32))
            kernels += [kernel for kernel, _, _ in kernels_of(strict_gpu, x, w, where, dtype)]
    compile_for_gpus(cuda_source.source([kernels]))
