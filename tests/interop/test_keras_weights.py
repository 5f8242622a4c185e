import numpy
import pytest

import minidl as dl
from minidl import interop

h5py = pytest.importorskip("h5py", reason="h5py is not installed (the extra `interop`)")

#: Networks, how Keras's layers are called here, and how Keras builds them, from its module of layers.
CASES = {
    "dense": (
        lambda: dl.Network([dl.Dense(4, 3), dl.LayerNorm(3, 1e-3), dl.Dense(3, 2)]),
        {"dense": "0", "layer_normalization": "1", "dense_1": "2"},
        lambda k: [k.Input((4,)), k.Dense(3), k.LayerNormalization(), k.Dense(2)],
    ),
    "images": (
        lambda: dl.Network(
            [
                dl.Conv2D(2, 4, 3, groups=2),
                dl.BatchNorm(4, epsilon=1e-3),
                dl.DepthwiseConv2D(4, 2, multiplier=2),
                dl.ConvTranspose2D(8, 3, 3, 2, padding="same"),
                dl.Flatten(),
                dl.Dense(108, 2),
            ]
        ),
        {
            "conv2d": "0",
            "batch_normalization": "1",
            "depthwise_conv2d": "2",
            "conv2d_transpose": "3",
            "dense": "5",
        },
        lambda k: [
            k.Input((6, 6, 2)),
            k.Conv2D(4, 3, groups=2),
            k.BatchNormalization(),
            k.DepthwiseConv2D(2, depth_multiplier=2),
            k.Conv2DTranspose(3, 3, 2, padding="same"),
            k.Flatten(),
            k.Dense(2),
        ],
    ),
    "sequences": (
        lambda: dl.Network(
            [
                dl.Embedding(9, 4),
                dl.LSTM(4, 3, return_sequences=True),
                dl.GRU(3, 3, return_sequences=True),
                dl.RNN(3, 2, return_sequences=True),
                dl.Conv1D(2, 2, 2),
            ]
        ),
        {"embedding": "0", "lstm": "1", "gru": "2", "simple_rnn": "3", "conv1d": "4"},
        lambda k: [
            k.Input((5,), dtype="int32"),
            k.Embedding(9, 4),
            k.LSTM(3, return_sequences=True),
            k.GRU(3, return_sequences=True),
            k.SimpleRNN(2, return_sequences=True),
            k.Conv1D(2, 2),
        ],
    ),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.weights.h5"


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    module = pytest.importorskip("keras", reason="Keras is not installed (the extra `bench`)")
    module.utils.set_random_seed(0)
    module.backend.clear_session()  # which begins to count layers anew
    return module


def randomize(model, rng):
    for weight in model.weights:
        weight.assign(rng.uniform(0.1, 1, size=weight.shape))


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_outputs_are_keras(name, keras, path, rng):
    make, rename, build = CASES[name]
    model = keras.Sequential(build(keras.layers))
    randomize(model, rng)
    model.save_weights(path)
    network = make().eval()
    report = network.load_keras(path, rename=rename)
    assert not report.missing + report.unexpected
    x = rng.normal(size=(3, *model.input_shape[1:])).astype("float32")
    x = rng.integers(0, 9, (3, 5)) if name == "sequences" else x
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    numpy.testing.assert_allclose(network(x).numpy(), expected, rtol=2e-4, atol=1e-4)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_attention(keras, path, rng):
    x = keras.layers.Input((5, 4))
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 2)(x, x))
    randomize(model, rng)
    model.save_weights(path)
    layer = dl.MultiHeadAttention(4, 2)
    layer.load_keras(path, rename={"multi_head_attention": ""})
    x = rng.normal(size=(3, 5, 4)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(x))
    numpy.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-4, atol=1e-5)


def test_files_made_by_hand(path, rng):
    kernel, bias = rng.normal(size=(3, 2)).astype("float32"), numpy.ones(2, "float32")
    with h5py.File(path, "w") as file:
        file["encoder/layers/dense/vars/0"], file["encoder/layers/dense/vars/1"] = kernel, bias
        file["optimizer/vars/0"] = numpy.zeros(1)
    layer = dl.Layer()
    layer.encoder = dl.Network([dl.Dense(3, 2)])
    report = interop.load_keras(layer, path, rename={"encoder.dense": "encoder.0"})
    assert report.loaded == {"encoder.0.weight": "encoder.dense.0", "encoder.0.bias": "encoder.dense.1"}
    numpy.testing.assert_array_equal(layer.encoder[0].weight.numpy(), kernel)
    with h5py.File(path, "w") as file:
        for i, shape in enumerate([(3, 6), (2, 6), (6,)]):
            file[f"gru/cell/vars/{i}"] = numpy.zeros(shape)
    with pytest.raises(ValueError, match="reset_after=False"):
        dl.GRU(3, 2).load_keras(path, rename={"gru": ""})


def test_damaged_and_missing_files_are_named(path):
    with pytest.raises(FileNotFoundError, match="model"):
        dl.Dense(3, 2).load_keras(path)
    path.write_bytes(b"some text")
    with pytest.raises(ValueError, match="no complete HDF5 file"):
        dl.Dense(3, 2).load_keras(path)
