import importlib.util
import sys
from pathlib import Path

import numpy
import pytest

import minidl as dl
from minidl.interop import onnx_operators
from minidl.layers import recurrent
from minidl.primitives.elementwise import sigmoid_cross_entropy
from minidl.primitives.primitive import PRIMITIVES
from tests.interop import zoo

onnx = pytest.importorskip("onnx", reason="onnx is not installed (the extra `interop`)")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra `interop`)")


def run(path, *inputs):
    """Return the first output of a file in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    return session.run(None, dict(zip(names, (x.numpy() for x in inputs), strict=True)))


def assert_exported(network, *inputs, path, rtol=1e-5, atol=1e-6):
    """Compare a network with its file, on the batch of the sample and on another one."""
    network.to_onnx(path, *inputs)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    with network.evaluating():
        for batch in (inputs, [dl.concatenate([x, x[:1]]) for x in inputs]):
            expected = network(*batch)
            expected = expected if isinstance(expected, tuple) else (expected,)
            for y, z in zip(run(path, *batch), expected, strict=True):
                numpy.testing.assert_allclose(y, z.numpy(), rtol=rtol, atol=atol, strict=True)


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "network.onnx")


def normal(*shape, seed=0):
    return dl.random.normal(shape, generator=dl.Generator(seed))


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_networks(name, path):
    network, x = zoo.make(name)
    assert_exported(network, x, path=path)


def example(name):
    file = Path(__file__).parents[2] / "examples" / f"{name}.py"
    specification = importlib.util.spec_from_file_location(f"example_{name}", file)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def character_model(kind):
    module = example("character_model")
    options = module.parse_arguments(["--model", kind, "--features", "16", "--context", "8", "--depth", "2"])
    return module.build_model(options, 10)


EXAMPLES = {
    "tied autoencoder": (lambda: example("tied_autoencoder").build_network(0), lambda: normal(2, 784)),
    "classify digits": (lambda: example("classify_digits").build_network(0), lambda: normal(2, 28, 28, 1)),
    "sweep": (lambda: example("sweep").build_network(8, 0), lambda: normal(2, 784)),
    "gpt": (lambda: character_model("gpt"), lambda: dl.tensor(numpy.arange(16).reshape(2, 8) % 10)),
    "lstm": (lambda: character_model("lstm"), lambda: dl.tensor(numpy.arange(16).reshape(2, 8) % 10)),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_networks_of_the_examples(name, path):
    make, sample = EXAMPLES[name]
    assert_exported(make().eval(), sample(), path=path)


LAYERS = {
    "RBM": (lambda: dl.RBM(3, 4, seed=0), (2, 3)),
    "RBM, gaussian": (lambda: dl.RBM(3, 4, hidden="gaussian", seed=0), (2, 3)),
    "Dense": (lambda: dl.Dense(3, 4), (2, 3)),
    "Dense of sequences": (lambda: dl.Dense(3, 4), (2, 5, 3)),
    "Dense without bias": (lambda: dl.Dense(3, 4, bias=False), (2, 3)),
    "Conv1D": (lambda: dl.Conv1D(2, 4, 3, stride=2, padding="same", dilation=2, groups=2), (2, 9, 2)),
    "Conv2D": (lambda: dl.Conv2D(2, 3, (3, 2), 2, padding=[(0, 1), (2, 0)], bias=False), (2, 7, 6, 2)),
    "ConvTranspose2D": (lambda: dl.ConvTranspose2D(4, 6, 3, 2, padding="same", groups=2), (2, 3, 4, 4)),
    "ConvTranspose2D, far apart": (lambda: dl.ConvTranspose2D(2, 3, 2, 3, padding="same"), (2, 3, 4, 2)),
    "DepthwiseConv2D": (lambda: dl.DepthwiseConv2D(3, 3, multiplier=2, padding=1), (2, 5, 6, 3)),
    "MaxPool2D": (lambda: dl.MaxPool2D(3, 2, padding="same"), (2, 6, 7, 3)),
    "AveragePool2D": (lambda: dl.AveragePool2D(3, 2, padding=1), (2, 6, 7, 3)),
    "GlobalAveragePool2D": (dl.GlobalAveragePool2D, (2, 3, 4, 5)),
    "UpSample2D": (lambda: dl.UpSample2D((2, 3)), (2, 3, 4, 2)),
    "UpSample2D, bilinear": (lambda: dl.UpSample2D(2, "bilinear"), (2, 3, 4, 2)),
    "BatchNorm": (lambda: dl.BatchNorm(4), (2, 4)),
    "BatchNorm of images": (lambda: dl.BatchNorm(4), (2, 3, 3, 4)),
    "LayerNorm": (lambda: dl.LayerNorm(4, epsilon=1e-3), (2, 3, 4)),
    "LayerNorm without bias": (lambda: dl.LayerNorm(4, bias=False), (2, 4)),
    "RMSNorm": (lambda: dl.RMSNorm(4), (2, 3, 4)),
    "GroupNorm": (lambda: dl.GroupNorm(2, 4), (2, 3, 3, 4)),
    "Normalize": (lambda: dl.Normalize((4,)).fit(normal(9, 4, seed=2)), (2, 4)),
    "MultiHeadAttention": (lambda: dl.MultiHeadAttention(6, 2, causal=True, dropout=0.5), (2, 4, 6)),
    "RNN": (lambda: dl.RNN(3, 4), (2, 5, 3)),
    "LSTM": (lambda: dl.LSTM(3, 4, return_sequences=True), (2, 5, 3)),
    "LSTM with its state": (lambda: dl.LSTM(3, 4, return_state=True), (2, 5, 3)),
    "GRU": (lambda: dl.GRU(3, 4, return_sequences=True, return_state=True), (2, 5, 3)),
    "Flatten": (dl.Flatten, (2, 3, 4)),
    "Reshape": (lambda: dl.Reshape(2, -1), (2, 3, 4)),
    "Dropout": (lambda: dl.Network([dl.Dropout(0.5), dl.ReLU()]), (2, 3)),
    "PReLU": (lambda: dl.PReLU(3), (2, 3)),
    **{
        kind.__name__: (kind, (2, 3))
        for kind in (
            dl.ReLU,
            dl.Sigmoid,
            dl.Tanh,
            dl.Softmax,
            dl.Softplus,
            dl.GELU,
            dl.SiLU,
            dl.ELU,
            dl.LeakyReLU,
        )
    },
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name, path):
    make, shape = LAYERS[name]
    layer = make()
    generator = dl.Generator(3)
    for name_, x in layer.named_tensors():
        if name != "Normalize":
            noise = dl.random.normal(x.shape, generator=generator)
            x.assign(abs(noise) + 0.5 if "variance" in name_ else noise)
    assert_exported(layer, normal(*shape), path=path)


def test_there_is_a_test_of_every_layer():
    tested = {name.split()[0].rstrip(",") for name in LAYERS} | {"Layer", "Network", "Embedding"}
    kinds = {name for name in dl.layers.__all__ if isinstance(getattr(dl.layers, name), type)}
    assert kinds <= tested


def test_embeddings(path):
    for padding in (None, 0):
        layer = dl.Embedding(5, 3, padding_index=padding)
        assert_exported(layer, dl.tensor([[0, 4, 1], [2, 2, 0]]), path=path)


def test_a_softmax_of_several_axes_and_images_of_float64(path):
    assert_exported(lambda_layer(lambda x: dl.softmax(x, axis=(1, 2))), normal(2, 3, 4), path=path)
    assert_exported(dl.Dense(3, 4).astype("float64"), normal(2, 3).astype("float64"), path=path)


# --- what a file holds ----------------------------------------------------------------------------


def test_what_is_shared_is_stored_once_and_read_transposed(path):
    network, x = zoo.make("tied autoencoder")
    network.to_onnx(path, x)
    graph = onnx.load(path).graph
    assert sorted(x.name for x in graph.initializer) == sorted(network.state_dict())
    uses = [node for node in graph.node if "encoder.0.weight" in node.input]
    assert [node.op_type for node in uses] == ["Gemm", "Gemm"]
    assert [a.name for a in uses[1].attribute] == ["transB"]
    assert "Transpose" not in operators(path)


def test_names_come_from_the_layers_and_the_batch_is_symbolic(path):
    network, _ = zoo.make("cnn")
    network.to_onnx(path, (8, 7, 2))
    graph = onnx.load(path).graph
    (x,), (y,) = graph.input, graph.output
    assert [d.dim_param or d.dim_value for d in x.type.tensor_type.shape.dim] == ["batch", 8, 7, 2]
    assert [d.dim_param or d.dim_value for d in y.type.tensor_type.shape.dim] == ["batch", 3]
    assert "0/Conv" in [node.name for node in graph.node]
    assert {x.name: tuple(x.dims) for x in graph.initializer}["0.weight"] == (4, 2, 3, 2)


def test_consecutive_transpositions_are_one(path):
    dl.Network([dl.Conv2D(2, 3, 3), dl.BatchNorm(3), dl.MaxPool2D(2)]).to_onnx(path, (8, 8, 2))
    assert operators(path) == ["Transpose", "Conv", "BatchNormalization", "MaxPool", "Transpose", "Identity"]


def test_a_weight_of_a_convolution_that_is_used_elsewhere_too(path):
    class Layer(dl.Layer):
        def __init__(self):
            self.conv = dl.Conv2D(2, 3, 3)

        def forward(self, x):
            return self.conv(x) * self.conv.weight.sum() + dl.conv2d(x, self.conv.weight)

    assert_exported(Layer(), normal(2, 5, 5, 2), path=path, rtol=1e-4)


def test_a_layer_used_twice_is_stored_once(path):
    lstm, conv = dl.LSTM(4, 4, return_sequences=True), dl.Conv1D(4, 4, 3, padding="same")
    assert_exported(dl.Network([lstm, conv, lstm, conv]), normal(2, 5, 4), path=path)
    assert len([x for x in onnx.load(path).graph.initializer if x.data_type == 1]) == 5


def test_recurrent_layers_are_one_node_or_unrolled(path):
    class Twice(dl.LSTM):
        def step(self, x, *state):
            return super().step(2 * x, *state)

    for layer, count in ((dl.LSTM(3, 4), 1), (Twice(3, 4), 0)):
        assert_exported(layer, normal(2, 5, 3), path=path)
        assert operators(path).count("LSTM") == count
    layer = dl.GRU(3, 4, return_sequences=True)
    mask = dl.tensor([[True, True, False], [True, False, False]])
    assert_exported(masked(layer), normal(2, 3, 3), mask, path=path)
    assert "GRU" not in operators(path)
    assert_exported(started(layer), normal(2, 3, 3), normal(2, 4), path=path)


def masked(layer):
    return lambda_layer(lambda x, mask: layer(x, mask=mask), layer)


def started(layer):
    return lambda_layer(lambda x, h: layer(x, h), layer)


def lambda_layer(function, *parts):
    class Lambda(dl.Layer):
        def __init__(self):
            self.parts = list(parts)

        def forward(self, *inputs):
            return function(*inputs)

    return Lambda()


def test_several_inputs_and_outputs_have_their_names(path):
    class Two(dl.Layer):
        def __init__(self):
            self.dense = dl.Dense(3, 2)

        def forward(self, left, right):
            return {"sum": self.dense(left) + right, "left": left}

    network = Two()
    network.to_onnx(path, (3,), (2,))
    graph = onnx.load(path).graph
    assert [x.name for x in graph.input] == ["left", "right"]
    assert [x.name for x in graph.output] == ["sum", "left_2"]
    left, right = normal(4, 3), normal(4, 2)
    total, same = run(path, left, right)
    numpy.testing.assert_allclose(total, network(left, right)["sum"].numpy(), rtol=1e-5, atol=1e-6)
    numpy.testing.assert_array_equal(same, left.numpy())


def test_exporting_changes_nothing(path):
    network, x = zoo.make("cnn")
    network.train()
    before = network.state_dict()
    network.to_onnx(path, x)
    assert network.training
    assert all(layer.training for layer in network)
    for name, value in network.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


# --- the table of primitives ----------------------------------------------------------------------


def single(formula, *inputs):
    """Return a Layer of one formula, and inputs as Tensors."""
    return lambda_layer(formula), [x if isinstance(x, dl.Tensor) else dl.tensor(x) for x in inputs]


A, B = normal(2, 3), normal(2, 3, seed=1)
P, Q = abs(A) + 0.5, abs(B) + 0.5
U = dl.tensor([[0.1, -0.7, 0.4], [0.9, 0.3, -0.2]])
K, J = dl.tensor([[5, -7, 3], [8, 1, -6]]), dl.tensor([[2, 3, 3], [5, 1, 4]])
T, F = K > 0, J > 2
FILTER, TRANSPOSED = normal(2, 2, 3, 4), normal(2, 2, 4, 3)

#: Formulas by the primitives that they are made of; each is exported, run and compared.
FORMULAS = {
    "add": (lambda a, b: a + b, A, B),
    "subtract": (lambda a, b: a - b, A, B),
    "multiply": (lambda a, b: a * b, A, B),
    "multiply by bools": (lambda a, b: a * b, A, T),
    "divide": (lambda a, b: a / b, A, Q),
    "power": (lambda a, b: a**b, P, B),
    "negative": (lambda a: -a, A),
    "absolute": (abs, A),
    "sign": (dl.sign, A),
    "floor": (dl.floor, A),
    "ceil": (dl.ceil, A),
    "rint": (dl.rint, A),
    "trunc": (dl.trunc, A),
    "exp": (dl.exp, A),
    "log": (dl.log, P),
    "log1p": (dl.log1p, P),
    "expm1": (dl.expm1, A),
    "exp2": (dl.exp2, A),
    "log2": (dl.log2, P),
    "log10": (dl.log10, P),
    "logaddexp": (dl.logaddexp, A, B),
    "sqrt": (dl.sqrt, P),
    "erf": (dl.erf, A),
    "sin": (dl.sin, A),
    "cos": (dl.cos, A),
    "tan": (dl.tan, U),
    "arcsin": (dl.arcsin, U),
    "arccos": (dl.arccos, U),
    "arctan": (dl.arctan, U),
    "sinh": (dl.sinh, U),
    "cosh": (dl.cosh, U),
    "arcsinh": (dl.arcsinh, U),
    "arccosh": (lambda a: dl.arccosh(a + 1), P),
    "arctanh": (dl.arctanh, U),
    "mod": (lambda a, b: a % b, A, B),
    "floor_divide": (lambda a, b: a // b, A, B),
    "relu": (dl.relu, A),
    "sigmoid": (dl.sigmoid, A),
    "tanh": (dl.tanh, A),
    "softplus": (dl.softplus, A),
    "sigmoid_cross_entropy": (sigmoid_cross_entropy, A, T * 1.0),
    "equal": (lambda a, b: a == b, K, J),
    "equal of bools": (lambda a, b: a == b, T, F),
    "not_equal": (lambda a, b: a != b, K, J),
    "less": (lambda a, b: a < b, A, B),
    "less of integers and floats": (lambda a, b: a < b, K, B),
    "less_equal": (lambda a, b: a <= b, A, B),
    "greater": (lambda a, b: a > b, A, B),
    "greater_equal": (lambda a, b: a >= b, A, B),
    "bitwise_and": (lambda a, b: a & b, T, F),
    "bitwise_and of integers": (lambda a, b: a & b, K, J),
    "bitwise_or of integers": (lambda a, b: a | b, K, J),
    "bitwise_xor of integers": (lambda a, b: a ^ b, K, J),
    "bitwise_or": (lambda a, b: a | b, T, F),
    "bitwise_xor": (lambda a, b: a ^ b, T, F),
    "maximum": (dl.maximum, A, B),
    "minimum": (dl.minimum, A, B),
    "where": (dl.where, T, A, B),
    "where of bools": (lambda c, a, b: dl.where(c, a, b), T, F, F),
    "clip": (lambda a: dl.clip(a, -0.5, 0.5), A),
    "cast": (lambda a: a.astype("int32"), A),
    "reshape": (lambda a: a.reshape(-1, 1), A),
    "transpose": (lambda a: dl.transpose(a), A),
    "broadcast_to": (lambda a: dl.broadcast_to(a.reshape(-1, 1, 3), (a.shape[0], 2, 3)), A),
    "detach": (lambda a: a.detach() + 1, A),
    "concatenate": (lambda a, b: dl.concatenate([a, b], 1), A, B),
    "pad": (lambda a: dl.pad(a, ((0, 0), (1, 2)), constant_values=0.5), A),
    "slice": (lambda a: a[:, ::-2], A),
    "slice of one": (lambda a: a[:, -1], A),
    "slice and a new axis": (lambda a: a[..., None, 1:2], A),
    "gather": (lambda a: a[:, [2, 0]], A),
    "gather of pairs": (lambda a, i, j: a[i, j], A, dl.tensor([0, 1]), dl.tensor([2, 1])),
    "matmul": (lambda a, b: a @ b.T, A, B),
    "sum": (lambda a: a.sum(1), A),
    "max": (lambda a: a.max(1, keepdims=True), A),
    "min": (lambda a: a.min(1), A),
    "logsumexp": (lambda a: dl.logsumexp(a, 1), A),
    "softmax": (dl.softmax, A),
    "log_softmax": (dl.log_softmax, A),
    "argmax": (lambda a: a.argmax(1), A),
    "argmin": (lambda a: a.argmin(1), A),
    "argsort": (lambda a: dl.argsort(a, 1), A),
    "cumsum": (lambda a: dl.cumsum(a, 1), A),
    "conv": (lambda x: dl.conv2d(x, FILTER), normal(2, 4, 4, 3)),
    "conv_input": (lambda x: dl.conv_transpose2d(x, TRANSPOSED, 2), normal(2, 4, 4, 3)),
    "select_maxima": (lambda x: dl.max_pool2d(x, 2, padding=1), normal(2, 4, 4, 3)),
    "windows": (lambda x: dl.windows(x, (3, 2), stride=(1, 2), dilation=(2, 1)), normal(2, 6, 5, 3)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_primitives(name, path):
    network, inputs = single(*FORMULAS[name])
    x = inputs[0]
    if name in ("transpose", "gather of pairs", "matmul"):  # the batch is not the first axis of the result
        network.to_onnx(path, *inputs)
        numpy.testing.assert_allclose(run(path, *inputs)[0], network(*inputs).numpy(), rtol=1e-5, atol=1e-6)
        return
    assert x.shape[0] == 2
    assert_exported(network, *inputs, path=path, rtol=2e-5)


def test_there_is_a_formula_for_every_entry_of_the_table():
    assert {name.split(" ")[0] for name in FORMULAS} == set(onnx_operators.PRIMITIVES)
    assert onnx_operators.PRIMITIVES.keys() <= PRIMITIVES.keys()


# --- what is refused ------------------------------------------------------------------------------


def refused(formula, *inputs):
    network, inputs = single(formula, *inputs)
    return pytest.raises(ValueError, match=r"."), network, inputs


@pytest.mark.parametrize(
    ("formula", "problem"),
    [
        (lambda a: dl.erfinv(a) + dl.arctan2(a, a), "erfinv in the network\n  arctan2"),
        (lambda a: a * a.shape[0], "depends on the number of observations"),
        (
            lambda a: a + dl.tensor(numpy.arange(a.shape[0] * 3.0).reshape(-1, 3)),
            "another one for each observation",
        ),
        (lambda a: a + dl.random.normal((1, 3)), "random_normal"),
        (lambda a: a if a.shape[0] == 2 else a * 2, "other steps"),
        (lambda a: a[[0, 1], :][:, [0, 2]][[0, 1]] if a.shape[0] == 2 else a[0:1], "other steps"),
        (lambda a: a[:, None][:, [0], 0:1], "indices beside"),
        (lambda a: a[: a.shape[0] - 1], "another key"),
    ],
    ids=range(8),
)
def test_what_a_file_cannot_say_is_refused(formula, problem, path):
    network, inputs = single(formula, A)
    with pytest.raises(ValueError, match=problem):
        network.to_onnx(path, *inputs)
    assert not Path(path).exists()


def test_networks_that_are_not_ready_are_refused(path):
    with pytest.raises(ValueError, match=r"0 = Normalize.* is not fitted"):
        dl.Network([dl.Normalize((3,))]).to_onnx(path, (3,))
    with pytest.raises(ValueError, match="sizes left open"):
        dl.Network([dl.Dense(None, 3)]).to_onnx(path, (3,))
    layer = dl.LSTM(3, 2, stateful=True)
    layer.reset_state(2)
    with pytest.raises(ValueError, match="LSTM"):
        layer.to_onnx(path, (5, 3))
    with pytest.raises(TypeError, match="needs, for each input"):
        dl.Dense(3, 2).to_onnx(path)
    for opset in (17, 99, "18"):
        with pytest.raises(ValueError, match="writes opset 18 to"):
            dl.Dense(3, 2).to_onnx(path, (3,), opset=opset)


def test_a_compiled_function_does_not_export(path):
    layer = dl.Dense(3, 2)

    @dl.compile
    def function(x):
        layer.to_onnx(path, (3,))
        return layer(x)

    with pytest.raises(dl.RecordingError, match="cannot be traced"):
        function(dl.ones((1, 3)))


def test_a_missing_package_is_named_with_the_cure(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install minidl\[onnx\]"):
        dl.Dense(3, 2).to_onnx(path, (3,))


def test_a_later_opset(path):
    dl.Network([dl.Dense(3, 2), dl.Softmax()]).to_onnx(path, (3,), opset=21)
    assert onnx.load(path).opset_import[0].version == 21


def test_every_recurrent_layer_has_an_entry():
    kinds = recurrent._Recurrent.__subclasses__()
    own = [kind for kind in kinds if kind.__module__ == recurrent.__name__]
    assert own
    assert set(own) <= onnx_operators.LAYERS.keys()
