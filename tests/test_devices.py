import subprocess
import sys

import numpy
import pytest

import minidl as dl
from minidl import devices
from tests import strict_device


def test_unknown_devices_are_refused():
    for name in ("tpu", "gpu:x", "GPU", "cpu:1", "", None, 0):
        with pytest.raises(devices.DeviceError, match="unknown device"):
            dl.ones(3).to(name)


def test_without_a_gpu_the_error_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        devices.DeviceError, match=r"'gpu' is not available: CuPy is not installed; install it"
    ):
        dl.ones(3).to("gpu")
    assert devices.resolve("auto") == "cpu"


def test_a_cupy_that_cannot_be_imported_says_why(monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    text = "=====\\nFailed to import CuPy.\\nOriginal error:\\n  ImportError: libnvrtc\\n====="
    (tmp_path / "cupy.py").write_text(f"raise ImportError('{text}')")
    with pytest.raises(devices.DeviceError, match=r"CuPy cannot be imported: ImportError: libnvrtc$"):
        devices.resolve("gpu")
    (tmp_path / "cupy.py").write_text("import a_part_of_it_that_is_missing")
    with pytest.raises(devices.DeviceError, match="cannot be imported: No module named 'a_part_of_it"):
        devices.resolve("gpu")


def test_without_a_driver_the_error_says_so(strict_gpu, monkeypatch):
    monkeypatch.setattr(strict_gpu.cuda, "is_available", lambda: False)
    with pytest.raises(devices.DeviceError, match="no CUDA driver"):
        dl.tensor([1.0], device="gpu")
    assert devices.resolve("auto") == "cpu"


def test_there_and_back(strict_gpu):
    x = dl.tensor([1.0, 2.0], device="gpu")
    assert x.device == "gpu:0"
    assert devices.resolve("auto") == "gpu:0"
    assert x.to("gpu:0") is x
    assert x.to("cpu").device == "cpu"
    numpy.testing.assert_array_equal(x.numpy(), [1, 2])
    assert repr(x) == "tensor([1., 2.], device=gpu:0)"
    with pytest.raises(devices.DeviceError, match=r"'gpu:3' does not exist: this machine has 2 GPU"):
        x.to("gpu:3")


def test_mixing_devices_names_both(strict_gpu):
    with pytest.raises(devices.DeviceError, match="add got Tensors on gpu:0 and cpu"):
        dl.tensor([1.0], device="gpu") + dl.ones(1)
    with pytest.raises(devices.DeviceError, match="assign got Tensors on cpu and gpu:0"):
        dl.ones(1).assign(dl.tensor([1.0], device="gpu"))
    with pytest.raises(devices.DeviceError, match="multiply got Tensors on gpu:1 and gpu:0"):
        dl.tensor([1.0], device="gpu:1") * dl.tensor([1.0], device="gpu:0")
    with pytest.raises(devices.DeviceError, match="assign got Tensors on gpu:0 and gpu:1"):
        dl.tensor([1.0], device="gpu:0").assign(dl.tensor([1.0], device="gpu:1"))
    with pytest.raises(devices.DeviceError, match=r"Dense\(2, 3\) is on gpu:1; got an input on gpu:0"):
        dl.Dense(2, 3).to("gpu:1")(dl.ones((1, 2), device="gpu:0"))


def test_nothing_moves_implicitly(gpu):
    with pytest.raises(TypeError, match="not converted implicitly"):
        numpy.asarray(dl.tensor([1.0], device="gpu"))


def test_the_stand_in_refuses_what_cupy_refuses(strict_gpu):
    x = dl.tensor([1.0, 2.0], device="gpu").data
    with pytest.raises(TypeError, match="Unsupported type"):
        strict_gpu.add(x, numpy.ones(2))
    with pytest.raises(TypeError, match="Implicit conversion"):
        numpy.asarray(x)
    with pytest.raises(TypeError):
        numpy.ones(2) + x


def test_every_operation_runs_on_device_arrays(gpu, gpu_name, rng):
    """The expressions and their gradients agree with the CPU's, on arrays that refuse NumPy."""
    values = rng.uniform(0.5, 1.5, (2, 4))

    def expression(x):
        y = dl.exp(x) * 2 + dl.log(x) / x - dl.sqrt(x) ** 1.5 + dl.tanh(x) * dl.sigmoid(x) - dl.softplus(x)
        y = y + dl.where(x > 1, x, 0.5) + dl.maximum(x, 1.0) + dl.clip(x, 0.6, 1.2) + abs(-x) + dl.relu(x - 1)
        y = y + dl.softmax(x) + dl.logsumexp(x, axis=0) + x.max(axis=1, keepdims=True) + x.var(axis=0)
        z = dl.concatenate([y, dl.pad(y[:, 1:], ((0, 0), (1, 0)))], axis=0) @ dl.stack([x[0], x[1]], axis=1)
        return (z[[0, 0, 1]].T.reshape(-1) * 0.1).sum() + x[x > 1].mean() + dl.sin(x).sum() * dl.cos(x).mean()

    results = {}
    for device in ("cpu", gpu_name):
        x = dl.tensor(values, device=device, requires_grad=True)
        y = expression(x)
        first = dl.grad(y, x, create_graph=True)
        (first * first).sum().backward()
        assert x.grad.device == y.device == device
        results[device] = [y.numpy(), first.numpy(), x.grad.numpy()]
    for ours, theirs in zip(results[gpu_name], results["cpu"], strict=True):
        numpy.testing.assert_allclose(ours, theirs, rtol=1e-10)


def test_the_sign_of_zero_survives_the_move(gpu, gpu_name):
    for x in (numpy.array(-0.0), numpy.array([-0.0, 0.0])):
        moved = dl.tensor(x, device=gpu_name)
        assert moved.shape == x.shape
        assert numpy.signbit(moved.numpy()).tolist() == numpy.signbit(x).tolist()
    assert numpy.signbit((dl.ones(2, device=gpu_name) * -0.0).numpy()).all()


def test_many_arrays_are_fetched_together(gpu, gpu_name, rng):
    shapes, dtypes = [(), (2, 3), (0,), (4,), ()], ["float32", "float64", "int32"]
    values = [rng.uniform(-9, 9, shape).astype(dtype) for shape in shapes for dtype in dtypes]
    places = [("cpu", "gpu:0", gpu_name)[i % 3] for i in (0, 1, 2, 1, 2, 0, 2, 2, 2, 1, 1, 1, 0, 1, 2)]
    arrays = [devices.to_device(x, place) for x, place in zip(values, places, strict=True)]
    before = len(strict_device.synchronisations)
    fetched = devices.fetch(arrays)
    for array, expected in zip(fetched, values, strict=True):
        assert (type(array), array.dtype, array.shape) == (numpy.ndarray, expected.dtype, expected.shape)
        numpy.testing.assert_array_equal(array, expected)
    assert devices.fetch([]) == []
    if gpu is strict_device.module:
        kinds = {(place, x.dtype) for place, x in zip(places, values, strict=True) if place != "cpu"}
        assert strict_device.synchronisations[before:] == ["asnumpy()"] * len(kinds)


def test_random_numbers_follow_the_seed_on_the_device(gpu, gpu_name):
    draws = []
    for _ in range(2):
        layer = dl.Dropout(0.5, seed=3)
        x = dl.tensor(numpy.ones((4, 4)), device=gpu_name)
        draws.append([layer(x).numpy(), layer(x).numpy()])
    numpy.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0][0] != draws[0][1]).any()


def test_importing_minidl_imports_neither_cupy_nor_anything_heavy():
    heavy = "('cupy', 'matplotlib', 'scipy', 'tqdm', 'safetensors', 'threadpoolctl')"
    program = f"import sys, minidl; print(*[m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""
