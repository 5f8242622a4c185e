"""Whatever is public prints as something short that says what it is."""

import numpy
import pytest

import minidl as dl

X = numpy.ones((8, 2), numpy.float32)


def network():
    return dl.Network([dl.Dense(2, 2, seed=0), dl.ReLU()])


def trainer():
    return dl.Trainer(network(), dl.mean_squared_error, device="cpu", metrics=[dl.rmse], seed=0)


def program():
    step = dl.compile(lambda x: dl.relu(x).sum(), kernels="numpy")
    step(dl.ones((3, 3)))
    return step.programs[0]


def compiled():
    def step(x):
        return x

    return dl.compile(step)


PRINTED = {
    "a Tensor": (lambda: dl.ones(3), "tensor([1., 1., 1.])"),
    "a large Tensor": (lambda: dl.ones(1000), "tensor([1., 1., 1., ..., 1., 1., 1.])"),
    "a Parameter": (lambda: dl.Parameter([1.0]), "parameter("),
    "a Generator": (lambda: dl.Generator(0), "Generator(PCG64, for cpu)"),
    "a Layer": (lambda: dl.Dense(2, 3), "Dense(2, 3)"),
    "a Network": (network, "Network(\n  (0): Dense(2, 2)\n  (1): ReLU()\n)"),
    "a summary": (lambda: network().summary(2), "layer"),
    "a Trainer": (trainer, "Trainer(Network, mean_squared_error, Adam(2 Parameters, beta1=0.9"),
    "a History": (lambda: trainer().fit(X, X, epochs=1, verbose=False), "History(1 steps, loss "),
    "an optimizer": (lambda: dl.SGD(network().parameters(), 0.1), "SGD(2 Parameters, momentum=0.9"),
    "scalars of NumPy": (lambda: dl.Adam(network().parameters(), beta1=numpy.float32(0.5)), "beta1=0.5,"),
    "LBFGS": (lambda: dl.LBFGS(network().parameters()), "LBFGS(2 Parameters, "),
    "a schedule": (lambda: dl.schedules.Step(1e-3, 10), "Step(learning_rate=0.001, period=10, factor=0.1)"),
    "a loss": (lambda: dl.huber, "<function huber at "),
    "a metric": (lambda: dl.rmse, "metric rmse"),
    "a primitive": (lambda: dl.relu, "<primitive relu>"),
    "a compiled function": (compiled, "<compiled "),
    "a program": (program, "Program("),
    "no_grad": (dl.no_grad, "no_grad()"),
    "images": (lambda: dl.data.digits(train=20, test=10)[0], "LabelledImages(images=(20, 28, 28, 1) float32"),
    "mini-batches": (
        lambda: dl.data.batches(X, batch_size=4),
        "Batches(2 of 4 from 8 observations, in order)",
    ),
}


@pytest.mark.parametrize("what", PRINTED)
def test_what_is_public_prints_shortly(what):
    make, expected = PRINTED[what]
    text = repr(make())
    assert expected in text
    assert len(text) <= 300
    assert "object at 0x" not in text
    assert f"{make()}".strip()


def test_every_layer_prints_its_settings():
    arguments = {
        dl.Embedding: (3, 2),
        dl.Conv1D: (1, 2, 3),
        dl.Conv2D: (1, 2, 3),
        dl.ConvTranspose2D: (1, 2, 3),
        dl.DepthwiseConv2D: (2, 3),
        dl.GroupNorm: (1, 2),
        dl.MultiHeadAttention: (4, 2),
        dl.Normalize: ((2,),),
        dl.Reshape: (2, 1),
        dl.Network: ([],),
        **dict.fromkeys((dl.Dense, dl.RNN, dl.LSTM, dl.GRU), (2, 3)),
        **dict.fromkeys((dl.BatchNorm, dl.LayerNorm, dl.RMSNorm), (2,)),
    }
    layers = [x for x in vars(dl).values() if isinstance(x, type) and issubclass(x, dl.Layer)]
    assert len(layers) > 30
    for layer in layers:
        text = repr(layer(*arguments.get(layer, ())))
        assert text.startswith(f"{layer.__name__}(")
        assert len(text) <= 160
