import numpy
import pytest

import minidl as dl
from minidl import interop
from minidl.interop.onnx_functions import FUNCTIONS
from tests.interop import zoo

onnx = pytest.importorskip("onnx", reason="onnx is not installed (the extra `interop`)")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (the extra `interop`)")
from tests.interop.test_onnx_export import FORMULAS, LAYERS, normal, run, single  # noqa: E402

helper = onnx.helper


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "network.onnx")


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_round_trips(name, path):
    network, x = zoo.make(name)
    network.to_onnx(path, x)
    back = interop.read_onnx(path)
    expected = network(x).numpy()
    numpy.testing.assert_allclose(back(x).numpy(), expected, rtol=1e-5, atol=1e-6)
    back.to_onnx(path, x)
    numpy.testing.assert_allclose(run(path, x)[0], expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_round_trips_of_layers(name, path):
    make, shape = LAYERS[name]
    layer, x = make().eval(), normal(*shape)
    layer.to_onnx(path, x)
    expected, found = layer(x), interop.read_onnx(path)(x)
    pairs = zip(*(y if isinstance(y, tuple) else (y,) for y in (expected, found)), strict=True)
    for y, z in pairs:
        numpy.testing.assert_allclose(z.numpy(), y.numpy(), rtol=1e-5, atol=1e-6, strict=True)


@pytest.mark.parametrize("name", FORMULAS)
def test_round_trips_of_primitives(name, path):
    network, inputs = single(*FORMULAS[name])
    network.to_onnx(path, *inputs)
    found, expected = interop.read_onnx(path)(*inputs), network(*inputs)
    numpy.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-5, atol=1e-6, strict=True)


@pytest.mark.parametrize("kernels", ["numpy", "c"])
@pytest.mark.parametrize("name", ["tied autoencoder", "cnn", "lstm"])
def test_what_was_read_trains_and_compiles(name, kernels, path):
    network, x = zoo.make(name)
    network.to_onnx(path, x)
    losses = []
    for compiled in (False, True):
        layer = interop.read_onnx(path)
        optimizer = dl.SGD(layer.parameters(), 0.001)

        def step(x, layer=layer, optimizer=optimizer):
            loss = (layer(x) ** 2).mean()
            loss.backward()
            optimizer.step()
            return loss

        step = dl.compile(step, kernels=kernels) if compiled else step
        losses.append([step(x).item() for _ in range(4)])
    numpy.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    assert losses[0][3] < losses[0][0]


def test_parameters_have_the_names_of_the_file(path):
    network, x = zoo.make("mlp")
    network.to_onnx(path, x)
    back = interop.read_onnx(path)
    assert [name for name, _ in back.named_parameters()] == list(network.state_dict())
    fresh, _ = zoo.make("mlp")
    for x in fresh.parameters():
        x.assign(x * 0)
    fresh.load_state_dict(back.state_dict())
    numpy.testing.assert_array_equal(fresh[0].weight.numpy(), network[0].weight.numpy())


def test_statistics_are_state_and_do_not_train(path):
    network, x = zoo.make("cnn")
    network.to_onnx(path, x)
    back = interop.read_onnx(path)
    trained = {name for name, _ in back.named_parameters()}
    state = set(back.state_dict()) - trained
    assert state == {"1.running_mean", "1.running_variance"}
    assert "x -> output: " in repr(back)


def model(nodes, arrays=(), shape=("batch", 3), opset=18):
    """Return a model of x and y as another library would write it."""
    x, y = (helper.make_tensor_value_info(name, 1, shape if name == "x" else None) for name in "xy")
    arrays = [
        onnx.numpy_helper.from_array(numpy.asarray(value), name) for name, value in dict(arrays).items()
    ]
    graph = helper.make_graph(nodes, "graph", [x], [y], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(operator, *inputs, output="y", **attributes):
    return helper.make_node(operator, list(inputs), [output], **attributes)


X = normal(4, 3)
IMAGES = normal(2, 3, 6, 6)
CASES = {
    "Gemm": (
        [node("Gemm", "x", "w", "c", alpha=2.0, beta=0.5, transB=1)],
        {"w": normal(5, 3).numpy(), "c": normal(5).numpy()},
        X,
    ),
    "Flatten": ([node("Flatten", "x")], {}, IMAGES),
    "Constant": ([node("Constant", value_float=2.0, output="c"), node("Mul", "x", "c")], {}, X),
    "Reshape": ([node("Reshape", "x", "s")], {"s": numpy.array([0, -1])}, IMAGES),
    "Shape": (
        [
            node("Shape", "x", output="s"),
            node("Gather", "s", "i", output="n"),
            node("Unsqueeze", "n", "axes", output="v"),
            node("Concat", "v", "rest", axis=0, output="t"),
            node("Reshape", "x", "t"),
        ],
        {"i": numpy.array(0), "axes": numpy.array([0]), "rest": numpy.array([-1])},
        IMAGES,
    ),
    "Split": (
        [helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2), node("Sub", "a", "b")],
        {},
        normal(4, 6),
    ),
    "Clip": ([node("Clip", "x", "", "high")], {"high": numpy.float32(0.25)}, X),
    "Pad": ([node("Pad", "x", "w", mode="reflect")], {"w": numpy.array([0, 1, 0, 1])}, X),
    "AveragePool": (
        [node("AveragePool", "x", kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)],
        {},
        IMAGES,
    ),
    "Conv": (
        [node("Conv", "x", "w", auto_pad="SAME_UPPER", strides=[2, 2])],
        {"w": normal(4, 3, 3, 3).numpy()},
        IMAGES,
    ),
    "GlobalAveragePool": ([node("GlobalAveragePool", "x")], {}, IMAGES),
    "GlobalMaxPool": ([node("GlobalMaxPool", "x")], {}, IMAGES),
    "ReduceMean": ([node("ReduceMean", "x", "axes", keepdims=0)], {"axes": numpy.array([2, 3])}, IMAGES),
    "ReduceProd": ([node("ReduceProd", "x", "axes")], {"axes": numpy.array([1])}, X),
    "ReduceMax": ([node("ReduceMax", "x")], {}, X),
    "Elu": ([node("Elu", "x", alpha=0.5)], {}, X),
    "Selu": ([node("Selu", "x")], {}, X),
    "Softsign": ([node("Softsign", "x")], {}, X),
    "LeakyRelu": ([node("LeakyRelu", "x", alpha=0.3)], {}, X),
    "PRelu": ([node("PRelu", "x", "s")], {"s": normal(3).numpy()}, X),
    "Reciprocal": ([node("Reciprocal", "x")], {}, X),
    "Sum": ([node("Sum", "x", "x", "x")], {}, X),
    "Mean": ([node("Mean", "x", "c")], {"c": normal(3).numpy()}, X),
    "Tile": ([node("Tile", "x", "n")], {"n": numpy.array([1, 2])}, X),
    "Dropout": ([node("Dropout", "x")], {}, X),
    "Slice": (
        [node("Slice", "x", "a", "b", "c", "d")],
        {"a": numpy.array([-1]), "b": numpy.array([-(2**63)]), "c": numpy.array([1]), "d": numpy.array([-1])},
        X,
    ),
    "Mod": (
        [
            node("Cast", "x", output="p", to=7),
            node("Mod", "p", "c", output="q"),
            node("Cast", "q", to=1),
        ],
        {"c": numpy.array([3, -3, 2])},
        5 * X,
    ),
    "Xor": (
        [
            node("Greater", "x", "c", output="p"),
            node("Less", "x", "c", output="q"),
            node("Xor", "p", "q", output="r"),
            node("Cast", "r", to=1),
        ],
        {"c": normal(3).numpy()},
        X,
    ),
    "ConstantOfShape": (
        [
            node("Shape", "x", output="s"),
            node("ConstantOfShape", "s", value=helper.make_tensor("v", 1, [1], [2.0]), output="t"),
            node("Add", "x", "t"),
        ],
        {},
        X,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_operators_that_other_libraries_write(name, path):
    nodes, arrays, x = CASES[name]
    onnx.save(model(nodes, arrays, ("batch", *x.shape[1:])), path)
    (expected,) = run(path, x)
    found = interop.read_onnx(path)(x).numpy()
    numpy.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, strict=True)


def test_gelu_of_opset_20(path):
    for approximate in ("none", "tanh"):
        onnx.save(model([node("Gelu", "x", approximate=approximate)], opset=20), path)
        numpy.testing.assert_allclose(
            interop.read_onnx(path)(X).numpy(), run(path, X)[0], rtol=1e-5, atol=1e-6
        )


def test_every_operator_is_tested(tmp_path):
    tested = set(CASES) | {"Gelu", "TopK"}
    for i, (formula, *inputs) in enumerate(FORMULAS.values()):
        network, inputs = single(formula, *inputs)
        network.to_onnx(tmp_path / f"{i}.onnx", *inputs)
        tested |= {node.op_type for node in onnx.load(tmp_path / f"{i}.onnx").graph.node}
    for i, (make, shape) in enumerate(LAYERS.values()):
        make().to_onnx(tmp_path / f"{i}.onnx", normal(*shape))
        tested |= {node.op_type for node in onnx.load(tmp_path / f"{i}.onnx").graph.node}
    assert tested == set(FUNCTIONS)


def test_unknown_operators_are_all_listed(path):
    nodes = [node("Hardmax", "x", output="a"), node("Mish", "a", output="b"), node("Relu", "b")]
    onnx.save(model(nodes), path)
    with pytest.raises(ValueError, match="minidl has not: Hardmax, Mish"):
        interop.read_onnx(path)


def test_attributes_that_are_not_there_are_refused_with_the_node(path):
    onnx.save(model([node("CumSum", "x", "a", reverse=1)], {"a": numpy.array(1)}), path)
    with pytest.raises(ValueError, match="CumSum 'y' of the ONNX file: exclusive or reverse"):
        interop.read_onnx(path)(X)
    with pytest.raises(TypeError, match="takes x; got 2"):
        interop.read_onnx(path)(X, X)


def test_damaged_and_missing_files_are_named(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="network"):
        interop.read_onnx(path)
    for content in (b"", b"some text", b"\0" * 99):
        (tmp_path / "network.onnx").write_bytes(content)
        with pytest.raises(ValueError, match=r"network\.onnx' is no complete ONNX file"):
            interop.read_onnx(path)
