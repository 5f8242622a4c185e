"""Whatever is public prints as something short that says what it is."""

import types

import numpy
import pytest

import minidl as dl
from minidl import checks

X = numpy.ones((8, 2), numpy.float32)


def network():
    return dl.Network([dl.Dense(2, 2, seed=0), dl.ReLU()])


def trainer():
    return dl.Trainer(network(), dl.mean_squared_error, device="cpu", metrics=[dl.rmse], seed=0)


def program():
    step = dl.compile(lambda x: dl.relu(x).sum(), kernels="numpy")
    step(dl.ones((3, 3)))
    return step.programs[0]


def steps():
    step = dl.compile(lambda x, w: (dl.exp(dl.relu(x @ w)) + 1).mean(axis=0), kernels="numpy")
    step(dl.ones((300, 3)), dl.ones((3, 4)))
    return step.programs[0].steps


class Halve(dl.Callback):
    def __init__(self, patience=2):
        self.patience = patience


class Flat(dl.schedules.Schedule):
    pass


def recording_error():
    try:
        dl.compile(lambda x: x.item())(dl.ones(1))
    except dl.RecordingError as error:
        return str(error).partition(" A replay")[0]


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
    "a History": (lambda: trainer().fit(X, X, epochs=1, verbose=False), "History(1 step, loss "),
    "an optimizer": (lambda: dl.SGD(network().parameters(), 0.1), "SGD(2 Parameters, momentum=0.9"),
    "scalars of NumPy": (lambda: dl.Adam(network().parameters(), beta1=numpy.float32(0.5)), "beta1=0.5,"),
    "LBFGS": (lambda: dl.LBFGS(network().parameters()), "LBFGS(2 Parameters, "),
    "a schedule": (lambda: dl.schedules.Step(1e-3, 10), "Step(learning_rate=0.001, period=10, factor=0.1)"),
    "a loss": (lambda: dl.huber, "<function huber at "),
    "a metric": (lambda: dl.rmse, "metric rmse"),
    "a primitive": (lambda: dl.relu, "<primitive relu>"),
    "a compiled function": (compiled, "<compiled "),
    "a program": (program, "Program("),
    "the steps of a program": (steps, "Group("),
    "a value of a program": (lambda: program().inputs, "[Value(input, float32, shape=(3, 3))]"),
    "what runs a program": (lambda: program().executor, "NumpyExecutor(Program("),
    "an error while recording": (recording_error, "reads the value of a Tensor"),
    "a DivergenceError": (
        lambda: dl.DivergenceError("the loss is NaN", 3, None),
        "DivergenceError('the loss",
    ),
    "a Callback": (Halve, "Halve(patience=2)"),
    "ReduceOnPlateau": (lambda: dl.ReduceOnPlateau(0.5), "ReduceOnPlateau(factor=0.5, patience=5, "),
    "a log": (lambda: dl.interop.JSONLinesLog("a.jsonl"), "JSONLinesLog(path="),
    "a group of Parameters": (lambda: trainer().optimizer.groups, "[ParameterGroup(2 parameters"),
    "a report of loaded weights": (lambda: network().load_state_dict(network().state_dict()), "LoadReport("),
    "a metric of one output": (lambda: dl.rmse.of(1), "metric rmse(output=1, "),
    "a schedule of one's own": (Flat, "Flat()"),
    "an augmentation": (dl.data.Augmentation, "Augmentation()"),
    "a vocabulary": (lambda: dl.data.Vocabulary("abc" * 500), "Vocabulary(3 tokens: "),
    "a layer of open size": (lambda: dl.Dense(None, 3), "Dense(None, 3)"),
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


@pytest.mark.parametrize("module", ["dl", "data", "schedules", "random", "interop", "checks", "linalg"])
def test_every_public_object_prints_shortly(module):
    where = {"dl": dl, "checks": checks}.get(module) or getattr(dl, module)
    names = [name for name in dir(where) if not name.startswith("_")]
    assert len(names) >= 5
    for name in names:
        value = getattr(where, name)
        if not isinstance(value, (type, types.FunctionType, types.ModuleType)):
            assert len(repr(value)) <= 80, name
            assert " at 0x" not in repr(value), name


def test_reports_of_checks_are_tables():
    x = numpy.random.default_rng(0).normal(size=(6, 2))
    reports = [
        checks.check_gradients(lambda x: (x * x).sum(), x),
        checks.check_layer(dl.Dense(2, 2), (3, 2)),
        checks.check_loss(dl.mean_squared_error, x, x + 1),
        checks.check_optimizer(lambda parameters: dl.SGD(parameters, 0.1)),
        checks.check_data(x, x),
    ]
    for report in reports:
        lines = repr(report).splitlines()
        assert 1 < len(lines) <= 40
        assert max(map(len, lines)) <= 200
        assert " at 0x" not in repr(report)


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
        **dict.fromkeys((dl.Dense, dl.RNN, dl.LSTM, dl.GRU, dl.RBM), (2, 3)),
        **dict.fromkeys((dl.BatchNorm, dl.LayerNorm, dl.RMSNorm), (2,)),
    }
    layers = [x for x in vars(dl).values() if isinstance(x, type) and issubclass(x, dl.Layer)]
    assert len(layers) > 30
    for layer in layers:
        text = repr(layer(*arguments.get(layer, ())))
        assert text.startswith(f"{layer.__name__}(")
        assert len(text) <= 160
