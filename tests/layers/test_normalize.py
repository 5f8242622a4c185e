import numpy
import pytest

import minidl as dl
from minidl.layers import normalize

METHODS = ["zscore", "zerocenter", "rescale-zero-one", "rescale-symmetric"]


def expected(x, method, axes):
    """The definitions, written out."""
    x = x.astype(float)
    mean, low, high = (f(x, axis=axes, keepdims=True) for f in (numpy.mean, numpy.min, numpy.max))
    return {
        "zscore": (x - mean) / x.std(axis=axes, keepdims=True),
        "zerocenter": x - mean,
        "rescale-zero-one": (x - low) / (high - low),
        "rescale-symmetric": 2 * (x - low) / (high - low) - 1,
    }[method]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("shape", "over", "axes"),
    [
        ((5,), "auto", (0,)),
        ((4, 3, 2), "auto", (0, 1, 2)),
        ((4, 3, 2), "element", (0,)),
        ((4, 3), "channel", (0, 1)),
        ((4, 3), "all", (0, 1, 2)),
        ((1,), "auto", (0,)),
        ((), "auto", (0,)),
    ],
)
def test_the_definitions_whole_or_in_batches(method, shape, over, axes, rng):
    x = (rng.normal(size=(50, *shape)) * 3 + 7).astype("float32")
    whole, streamed = dl.Normalize(shape, method, over), dl.Normalize(shape, method, over)
    whole.fit(x)
    streamed.fit(x[start : start + 17] for start in range(0, 50, 17))
    numpy.testing.assert_allclose(whole(x).numpy(), expected(x, method, axes), rtol=1e-4, atol=1e-4)
    numpy.testing.assert_allclose(streamed.offset.numpy(), whole.offset.numpy(), rtol=1e-6)
    numpy.testing.assert_allclose(streamed.factor.numpy(), whole.factor.numpy(), rtol=1e-6)


def test_a_mean_that_is_large_beside_the_spread(rng):
    x = rng.normal(size=(1000, 2)) + 1e8
    layer = dl.Normalize((2,)).astype("float64").fit(x[start : start + 100] for start in range(0, 1000, 100))
    numpy.testing.assert_allclose(layer(x).numpy().std(axis=0), 1, rtol=1e-6)


def test_constant_features_are_only_shifted():
    x = numpy.full((4, 3), 5.0, "float32")
    for method in METHODS:
        y = dl.Normalize((3,), method).fit(x)(x).numpy()
        assert numpy.isfinite(y).all()
        assert (y == 0).all()


@pytest.mark.parametrize("method", ["zscore", "rescale-zero-one", "rescale-symmetric"])
@pytest.mark.parametrize("value", [0.1, 0.3, 123.456, 1e-30, 0.0])
def test_constant_features_that_rounding_makes_vary(method, value):
    """The float64 mean of 120 times 0.1 is not 0.1, and the deviations from it are no spread."""
    layer = dl.Normalize((2,), method).fit([numpy.full((rows, 2), value) for rows in (7, 13, 100)])
    numpy.testing.assert_array_equal(layer.factor.numpy(), 1)
    numpy.testing.assert_allclose(layer.offset.numpy(), value, rtol=1e-6)


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("method", ["zscore", "zerocenter", "rescale-zero-one"])
def test_what_is_not_finite_is_refused(method, value, rng):
    layer = dl.Normalize((3,), method).fit(rng.normal(size=(5, 3)))
    before = layer.state_dict()
    x = rng.normal(size=(6, 3))
    x[4, 1] = value
    for data in (x, [x[:3], x[3:]]):
        with pytest.raises(ValueError, match="hold NaN or infinity"):
            layer.fit(data)
    for name, array in layer.state_dict().items():
        numpy.testing.assert_array_equal(array, before[name])


def test_a_large_array_is_gone_through_in_blocks(monkeypatch, rng):
    x = rng.normal(size=(50, 3, 2)).astype("float32")
    whole = dl.Normalize((3, 2)).fit(x)
    monkeypatch.setattr(normalize, "_BLOCK", 20)
    added = []
    add = normalize.Statistics._add
    monkeypatch.setattr(
        normalize.Statistics, "_add", lambda self, array: (added.append(len(array)), add(self, array))
    )
    in_blocks = dl.Normalize((3, 2)).fit(x)
    assert added == [3] * 16 + [2]
    numpy.testing.assert_allclose(in_blocks.offset.numpy(), whole.offset.numpy(), atol=1e-7)
    numpy.testing.assert_allclose(in_blocks.factor.numpy(), whole.factor.numpy(), rtol=1e-6)


def test_bytes_become_floats():
    x = numpy.arange(12, dtype="uint8").reshape(4, 3)
    y = dl.Normalize((3,), "rescale-zero-one", over="all").fit(x)(x)
    assert y.dtype == numpy.float32
    numpy.testing.assert_allclose(y.numpy(), x / 11, rtol=1e-6)


def test_none_and_functions_need_no_fit():
    x = numpy.array([[1.0, 2.0]], "float32")
    numpy.testing.assert_array_equal(dl.Normalize((2,), "none")(x).numpy(), x)
    numpy.testing.assert_array_equal(dl.Normalize((2,), lambda x: x / 2)(x).numpy(), x / 2)


def test_statistics_are_saved_and_not_trained(rng, tmp_path):
    x = rng.normal(size=(9, 3)).astype("float32")
    layer = dl.Normalize((3,)).fit(x)
    assert layer.parameters() == []
    layer.save(tmp_path / "weights.safetensors")
    loaded = dl.Normalize((3,))
    assert not loaded.fitted
    loaded.load(tmp_path / "weights.safetensors")
    assert loaded.fitted
    numpy.testing.assert_array_equal(loaded(x).numpy(), layer(x).numpy())


def test_errors():
    for arguments, message in [
        (((2,), "zscores"), "method must be one of zscore, .* got 'zscores'"),
        (((2,), "zscore", "rows"), "over must be one of auto, .* got 'rows'"),
    ]:
        with pytest.raises(ValueError, match=message):
            dl.Normalize(*arguments)
    layer = dl.Normalize((2,))
    with pytest.raises(RuntimeError, match=r"Normalize\(\(2,\), 'zscore'.* has no statistics yet: call fit"):
        layer(dl.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"takes inputs \(batch, 2\); got \(4, 3\)"):
        layer.fit(numpy.zeros((4, 3)))
    with pytest.raises(ValueError, match="there are no observations"):
        layer.fit([])


def test_on_device_arrays(strict_gpu, rng):
    x = rng.normal(size=(8, 3)).astype("float32")
    layer = dl.Normalize((3,)).to("gpu").fit(strict_gpu.asarray(x))
    y = layer(dl.tensor(x, device="gpu"))
    assert y.device == "gpu:0"
    numpy.testing.assert_allclose(y.numpy(), expected(x, "zscore", (0,)), rtol=1e-4, atol=1e-4)


def test_a_compiled_step_on_a_gpu_refuses_what_is_not_fitted(gpu, rng):
    x = dl.tensor(rng.normal(size=(8, 3)).astype("float32"), device="gpu")
    layer = dl.Normalize((3,)).to("gpu")
    step = dl.compile(layer.forward)
    with pytest.raises(RuntimeError, match=r"Normalize\(.*has no statistics yet: call fit"):
        step(x)
    layer.fit(x.data)
    numpy.testing.assert_allclose(step(x).numpy(), layer(x).numpy(), rtol=1e-5)
