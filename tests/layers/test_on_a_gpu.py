"""Layers compute on a GPU what they compute on the CPU: outputs, gradients and state."""

import numpy
import pytest

import minidl as dl

LAYERS = {
    "Conv1D": (lambda: dl.Conv1D(2, 3, 2, 2, 1, seed=0), (5, 2)),
    "Conv2D": (lambda: dl.Conv2D(4, 6, 3, padding="same", groups=2, seed=0), (5, 4, 4)),
    "Conv2D with a stride": (lambda: dl.Conv2D(3, 4, (3, 2), (2, 1), dilation=(1, 2), seed=0), (7, 6, 3)),
    "ConvTranspose2D": (lambda: dl.ConvTranspose2D(3, 4, 3, 2, "same", seed=0), (3, 4, 3)),
    "DepthwiseConv2D": (lambda: dl.DepthwiseConv2D(3, 3, 2, seed=0), (5, 4, 3)),
    "MaxPool2D": (lambda: dl.MaxPool2D(3, 2, 1), (7, 6, 2)),
    "AveragePool2D": (lambda: dl.AveragePool2D(3, 2, "same"), (7, 6, 2)),
    "GlobalAveragePool2D": (lambda: dl.GlobalAveragePool2D(), (3, 4, 2)),
    "UpSample2D": (lambda: dl.UpSample2D((2, 3)), (3, 4, 2)),
    "UpSample2D bilinear": (lambda: dl.UpSample2D(2, "bilinear"), (3, 4, 2)),
    "BatchNorm": (lambda: dl.BatchNorm(2), (3, 4, 2)),
    "GroupNorm": (lambda: dl.GroupNorm(2, 4), (3, 4)),
    "LayerNorm": (lambda: dl.LayerNorm(4), (3, 4)),
    "RMSNorm": (lambda: dl.RMSNorm(4), (3, 4)),
    "RNN": (lambda: dl.RNN(2, 3, return_sequences=True, seed=0), (4, 2)),
    "LSTM": (lambda: dl.LSTM(2, 3, seed=0), (4, 2)),
    "GRU": (lambda: dl.GRU(2, 3, seed=0), (4, 2)),
    "MultiHeadAttention": (lambda: dl.MultiHeadAttention(4, 2, causal=True, seed=0), (3, 4)),
    "PReLU": (lambda: dl.PReLU(3), (4, 3)),
    "SiLU": (lambda: dl.SiLU(), (4,)),
    "ELU": (lambda: dl.ELU(), (4,)),
    "LeakyReLU": (lambda: dl.LeakyReLU(), (4,)),
    "Softplus": (lambda: dl.Softplus(), (4,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_gradients_and_state_are_those_of_the_cpu(name, gpu, rng):
    make, shape = LAYERS[name]
    x = rng.normal(size=(2, *shape)).astype("float32")
    results = []
    for device in ("cpu", "gpu:0"):
        layer = make().to(device)
        source = dl.tensor(x, device=device, requires_grad=True)
        y = layer(source)
        assert y.device == device
        (y * dl.sin(y)).sum().backward()
        gradients = {name: p.grad.numpy() for name, p in layer.named_parameters()}
        results.append({"y": y.numpy(), "x": source.grad.numpy(), **gradients} | layer.state_dict())
    for key, expected in results[0].items():
        numpy.testing.assert_allclose(results[1][key], expected, rtol=1e-4, atol=1e-5, err_msg=key)


def test_embedding_on_a_gpu(gpu):
    x = numpy.array([[1, 2], [0, 2]])
    layer = dl.Embedding(3, 2, padding_index=0, seed=0)
    expected = layer(x).numpy()
    y = layer.to("gpu:0")(dl.tensor(x, device="gpu:0"))
    numpy.testing.assert_array_equal(y.numpy(), expected)


def test_a_stateful_layer_moves_with_its_state(gpu, rng):
    layer = dl.LSTM(2, 3, stateful=True, seed=0)
    layer.reset_state(2)
    x = rng.normal(size=(2, 4, 2)).astype("float32")
    layer(x)
    expected = layer(x).numpy()
    layer.reset_state(2)
    layer(x)
    layer.to("gpu:0")
    numpy.testing.assert_allclose(layer(dl.tensor(x, device="gpu:0")).numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_mask_made_on_the_host_is_refused_by_name(gpu):
    layer = dl.GRU(2, 3).to("gpu:0")
    with pytest.raises(dl.devices.DeviceError):
        layer(dl.ones((2, 4, 2), device="gpu:0"), mask=numpy.ones((2, 4), bool))
