import numpy
import pytest
from scipy.io import loadmat, savemat

import minidl as dl
from minidl import interop
from tests.data import mat73
from tests.interop import zoo


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.mat"


def write(path, learnables, state=()):
    """Write a file as MATLAB does, from rows (layer, parameter, value)."""

    def structs(rows):
        table = numpy.empty((len(rows), 1), [(name, object) for name in ("Layer", "Parameter", "Value")])
        for i, row in enumerate(rows):
            table[i, 0] = row
        return table

    savemat(path, {"learnables": structs(list(learnables)), "state": structs(list(state))})


def close(x, expected):
    numpy.testing.assert_allclose(x.numpy(), expected, rtol=1e-4, atol=1e-5)


def sigmoid(x):
    return 1 / (1 + numpy.exp(-x))


# --- MATLAB's formulas ----------------------------------------------------------------------------


def test_fullyconnected(path, rng):
    w, b, x = rng.normal(size=(3, 4)), rng.normal(size=(3, 1)), rng.normal(size=(4, 5))
    write(path, [("fc_1", "Weights", w), ("fc_1", "Bias", b)])
    network = dl.Network([dl.Dense(4, 3)])
    report = network.load_mat(path, rename={"fc_1": "0"})
    assert report.loaded == {"0.weight": "fc_1.Weights", "0.bias": "fc_1.Bias"}
    close(network(x.T.astype("float32")), (w @ x + b).T)


@pytest.mark.parametrize(("channels", "filters"), [(2, 3), (1, 1), (2, 1)])
def test_convolution_also_where_matlab_drops_axes(path, rng, channels, filters):
    w, b = rng.normal(size=(3, 2, channels, filters)), rng.normal(size=(1, 1, filters))
    x = rng.normal(size=(2, 5, 4, channels)).astype("float32")
    write(path, [("conv", "Weights", w.squeeze(axis=(3,) if filters == 1 else ())), ("conv", "Bias", b)])
    layer = dl.Conv2D(channels, filters, (3, 2))
    layer.load_mat(path, rename={"conv": ""})
    patches = numpy.lib.stride_tricks.sliding_window_view(x, (3, 2), (1, 2))  # n, row, column, c, h, w
    close(layer(x), numpy.einsum("nrqchw,hwco->nrqo", patches, w) + b)


def test_grouped_convolution(path, rng):
    w, b = rng.normal(size=(3, 3, 2, 3, 2)), rng.normal(size=(1, 1, 6))  # 2 groups of 2 channels, 3 filters
    x = rng.normal(size=(2, 5, 5, 4)).astype("float32")
    write(path, [("gconv", "Weights", w), ("gconv", "Bias", b)])
    layer = dl.Conv2D(4, 6, 3, groups=2)
    layer.load_mat(path, rename={"gconv": ""})
    halves = [dl.conv2d(x[..., 2 * g : 2 * g + 2], w[..., g].astype("float32")).numpy() for g in range(2)]
    close(layer(x), numpy.concatenate(halves, -1) + b)


def test_lstm(path, rng):
    w, r, b = rng.normal(size=(12, 2)), rng.normal(size=(12, 3)), rng.normal(size=(12, 1))
    x = rng.normal(size=(2, 5))  # features, time
    write(
        path, [("lstm", name, v) for name, v in (("InputWeights", w), ("RecurrentWeights", r), ("Bias", b))]
    )
    layer = dl.LSTM(2, 3)
    layer.load_mat(path, rename={"lstm": ""})
    h = c = numpy.zeros((3, 1))
    for t in range(5):
        i, f, g, o = numpy.split(w @ x[:, t : t + 1] + r @ h + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * numpy.tanh(g)
        h = sigmoid(o) * numpy.tanh(c)
    close(layer(x.T[None].astype("float32")), h.T)


@pytest.mark.parametrize("two_biases", [False, True])
def test_gru(path, rng, two_biases):
    w, r, b = rng.normal(size=(9, 2)), rng.normal(size=(9, 3)), rng.normal(size=(18 if two_biases else 9, 1))
    x = rng.normal(size=(2, 5))
    write(path, [("gru", name, v) for name, v in (("InputWeights", w), ("RecurrentWeights", r), ("Bias", b))])
    layer = dl.GRU(2, 3)
    layer.load_mat(path, rename={"gru": ""})
    h = numpy.zeros((3, 1))
    for t in range(5):
        xr, xz, xn = numpy.split(w @ x[:, t : t + 1] + b[:9], 3)
        hr, hz, hn = numpy.split(r @ h + (b[9:] if two_biases else 0), 3)
        z = sigmoid(xz + hz)
        h = (1 - z) * numpy.tanh(xn + sigmoid(xr + hr) * hn) + z * h
    close(layer(x.T[None].astype("float32")), h.T)


def test_batchnorm_has_its_statistics_in_the_other_table(path, rng):
    scale, offset, mean, variance = (rng.uniform(0.5, 2, size=(1, 1, 3)) for _ in range(4))
    write(
        path,
        [("bn", "Offset", offset), ("bn", "Scale", scale)],
        [("bn", "TrainedMean", mean), ("bn", "TrainedVariance", variance)],
    )
    layer = dl.BatchNorm(3).eval()
    layer.load_mat(path, rename={"bn": ""})
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    close(layer(x), scale * (x - mean) / numpy.sqrt(variance + 1e-5) + offset)


def test_flattened_images_are_columns_first(path, rng):
    w, image = rng.normal(size=(2, 3 * 4 * 2)), rng.normal(size=(3, 4, 2))
    write(path, [("fc", "Weights", w), ("fc", "Bias", numpy.zeros((2, 1)))])
    network = dl.Network([dl.Flatten(), dl.Dense(24, 2)])
    network.load_mat(path, rename={"fc": "1"}, flattened={"1": (3, 4, 2)})
    close(network(image[None].astype("float32")), (w @ image.flatten(order="F"))[None])
    network.to_mat(path, flattened={"1": (3, 4, 2)})
    numpy.testing.assert_allclose(loadmat(path)["learnables"][0, 0]["Value"], w, rtol=1e-6)


# --- there and back -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_round_trips(name, path):
    network, x = zoo.make(name)
    network.to_mat(path)
    other, _ = zoo.make(name)
    for p in other.parameters():
        p.assign(p * 0)
    report = other.load_mat(path)
    assert not report.missing + report.unexpected
    numpy.testing.assert_array_equal(other(x).numpy(), network(x).numpy())


def test_what_is_shared_is_written_once_with_matlabs_fields(path):
    network, _ = zoo.make("tied autoencoder")
    network.to_mat(path)
    rows = loadmat(path)["learnables"].reshape(-1)
    assert rows.dtype.names == ("Layer", "Parameter", "Value")
    shapes = {f"{row['Layer'].item()}.{row['Parameter'].item()}": row["Value"].shape for row in rows}
    assert shapes["encoder.0.Weights"] == (8, 12)
    assert shapes["encoder.0.Bias"] == (8, 1)
    assert shapes["biases.0"] == (12, 1)
    assert len(rows) == len(network.state_dict())


def test_version_7_3_is_read_too(path, rng):
    pytest.importorskip("h5py", reason="h5py is not installed (the extra `interop`)")
    w, b, mean = rng.normal(size=(3, 4)), rng.normal(size=(3, 1)), rng.normal(size=(1, 1, 3))
    rows = [
        {"Layer": layer, "Parameter": parameter, "Value": value}
        for layer, parameter, value in (
            *(("fc", "Weights", w), ("fc", "Bias", b)),
            *(("bn", "Offset", mean), ("bn", "Scale", mean + 2)),
        )
    ]
    state = [
        {"Layer": "bn", "Parameter": name, "Value": mean + 9} for name in ("TrainedMean", "TrainedVariance")
    ]
    mat73.write(path, {"learnables": mat73.Structs(rows), "state": mat73.Structs(state)})
    network = dl.Network([dl.Dense(4, 3), dl.BatchNorm(3)]).eval()
    report = network.load_mat(path, rename={"fc": "0", "bn": "1"})
    assert not report.missing + report.unexpected
    x, mean = rng.normal(size=(2, 4)).astype("float32"), mean.reshape(-1)
    expected = (mean + 2) * (x @ w.T + b[:, 0] - mean - 9) / numpy.sqrt(mean + 9 + 1e-5) + mean
    close(network(x), expected)


# --- what does not fit ----------------------------------------------------------------------------


def test_wrong_files_are_refused_and_change_nothing(path, rng):
    layer = dl.Dense(4, 3, seed=0)
    before = layer.weight.numpy()
    with pytest.raises(FileNotFoundError, match=r"weights\.mat"):
        layer.load_mat(path)
    path.write_bytes(b"some text" * 100)
    with pytest.raises(ValueError, match="not a MAT file"):
        layer.load_mat(path)
    savemat(path, {"net": numpy.zeros(3)})
    with pytest.raises(ValueError, match="has no struct `learnables`"):
        layer.load_mat(path)
    savemat(path, {"learnables": numpy.zeros(3)})
    with pytest.raises(ValueError, match="no struct with Layer, Parameter and Value"):
        layer.load_mat(path)
    write(path, [("", "Weights", "a dlarray")])
    with pytest.raises(ValueError, match="extractdata"):
        layer.load_mat(path)
    write(path, [(numpy.zeros((1, 6)), "Weights", numpy.eye(3))])
    with pytest.raises(ValueError, match=r"names that are no text, but objects: .* cellstr"):
        layer.load_mat(path)
    write(path, [("fc", "Weights", rng.normal(size=(4, 3))), ("fc", "Bias", numpy.zeros((3, 1)))])
    with pytest.raises(ValueError, match=r"wrong shape: weight is \(3, 4\)"):
        layer.load_mat(path, rename={"fc": ""})
    numpy.testing.assert_array_equal(layer.weight.numpy(), before)
    assert interop.load_mat(layer, path, strict=False, rename={"fc.Bias": "Bias"}).missing == ["weight"]
